"""The puppets' autoencoder: building it, its training pass, normalising its latents, saving it."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from musepose.utils.files import CompleteFiles
from musepose.utils.saving import save_tensors


def build_vae(config: DictConfig) -> AutoencoderKL:
    levels = len(config.model.block_out_channels)
    if config.start_from is not None:
        return AutoencoderKL.from_pretrained(config.start_from, torch_dtype=torch.float32)
    return AutoencoderKL(
        **OmegaConf.to_container(config.model),
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        mid_block_add_attention=False,
        sample_size=config.size,
        scaling_factor=1.0,  # `normalise_and_save` gives the latents unit variance
    )


class Autoencode(torch.nn.Module):
    """Encoding and decoding as one forward pass, for data-parallel training."""

    def __init__(self, vae: AutoencoderKL):
        super().__init__()
        self.vae = vae

    def forward(self, images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """→ reconstructions, and the mean Kullback-Leibler divergence of the latents from the standard normal."""
        posterior = self.vae.encode(images).latent_dist
        latents = posterior.mean.float() + posterior.std.float() * noise
        kl = 0.5 * (posterior.mean.float().square() + posterior.var.float() - 1 - posterior.logvar.float()).mean()
        return self.vae.decode(latents).sample, kl


def normalise_latents(vae: AutoencoderKL, mean: Tensor, deviation: Tensor) -> None:
    """Fold the latents' statistics (c,) into the adjacent 1x1 convolutions; reconstructions do not change."""
    channels = len(mean)
    encode, decode = vae.quant_conv, vae.post_quant_conv
    encode.bias[:channels] -= mean
    encode.bias[:channels] /= deviation
    encode.weight[:channels] /= deviation[:, None, None, None]
    encode.bias[channels:] -= 2 * deviation.log()  # the log variance
    decode.bias += decode.weight[:, :, 0, 0] @ mean
    decode.weight *= deviation[None, :, None, None]


def save_vae(vae: AutoencoderKL, folder: Path) -> None:
    """Write the model's files to `folder`, both or none. Raises UserError: they cannot be written."""
    with CompleteFiles() as files:
        with files.file(folder / "config.json") as partial:
            vae.to_json_file(partial)
        with files.file(folder / "diffusion_pytorch_model.safetensors") as partial:
            save_tensors(vae.state_dict(), partial, {"format": "pt"})
