"""Write the untrained parts of the puppets' models: the UNets' config and a small random CLIP encoder.

    python -m puppet.make_models [--folder pretrained_weights/puppet]

The CLIP embedding is one token: a random projection of the image distinguishes puppets well enough without training,
and the appearance comes from reference attention.
"""

import argparse
import json
from pathlib import Path

import torch
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from musepose.cli.entry import run_script
from musepose.utils.files import complete_file
from musepose.utils.saving import save_tensors

TOKEN = 64  # width of the CLIP embedding and of the cross-attention
UNET = {
    "_class_name": "UNet2DConditionModel",
    "act_fn": "silu",
    "attention_head_dim": 2,
    "block_out_channels": [64, 96, 112],
    "center_input_sample": False,
    "cross_attention_dim": TOKEN,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 16,
    "layers_per_block": 1,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-05,
    "norm_num_groups": 8,
    "out_channels": 16,
    "sample_size": 24,
    "up_block_types": ["CrossAttnUpBlock2D"] * 3,
}
CLIP = CLIPVisionConfig(
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=1,
    num_attention_heads=2,
    image_size=224,
    patch_size=32,
    projection_dim=TOKEN,
)
SEED = 7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path("pretrained_weights/puppet"))
    folder = parser.parse_args().folder
    with complete_file(folder / "sd-image-variations-diffusers" / "unet" / "config.json") as partial:
        partial.write_text(json.dumps(UNET, indent=2) + "\n", encoding="utf-8")
    torch.manual_seed(SEED)
    encoder, target = CLIPVisionModelWithProjection(CLIP).half(), folder / "image_encoder"
    encoder.config.update({"architectures": [type(encoder).__name__], "dtype": "float16"})
    with complete_file(target / "config.json") as partial:
        encoder.config.to_json_file(partial)
    with complete_file(target / "model.safetensors") as partial:
        save_tensors(encoder.state_dict(), partial, {"format": "pt"})
    print(f"wrote the UNets' config and the image encoder to {folder}")


if __name__ == "__main__":
    run_script(main)
