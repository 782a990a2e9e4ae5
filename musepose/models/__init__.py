"""The networks: reference and denoising UNet, pose guider, and the loading of their weights."""
