"""Full-size models with random weights, for measuring time and memory."""

import math
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from musepose.models.attention import BlockContext
from musepose.models.pose_guider import PoseGuider
from musepose.models.unet import UNet
from musepose.pipelines.pose2video import Pose2VideoPipeline
from random_models.naive_unet import NaiveUNet

MOTION = {"heads": 8, "max_frames": 128, "blocks": 1, "attentions": 2}
CLIP = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
CLIP |= {"patch_size": 14, "image_size": 224, "projection_dim": 768}
VAE = {
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
}
BUILD = {
    "vae": lambda: AutoencoderKL(**VAE),
    "image_encoder": lambda: CLIPVisionModelWithProjection(CLIPVisionConfig(**CLIP)),
    "reference_unet": lambda: UNet(has_output=False),
    "denoising_unet": lambda: UNet(motion_module=MOTION),
    "pose_guider": PoseGuider,
}


def full_size(name: str, dtype: torch.dtype, device: str = "cpu") -> nn.Module:
    """A model of `BUILD` with random weights, or without storage on the meta device."""
    with torch.device("meta"):
        model = BUILD[name]()
    if device != "meta":
        return random_model(model, dtype, device)
    return nn.Module.to(model, "meta", dtype).eval().requires_grad_(False)


def full_size_pipeline(dtype: torch.dtype, device: str = "cpu") -> Pose2VideoPipeline:
    """A pipeline of all models of `BUILD`."""
    return Pose2VideoPipeline(**{name: full_size(name, dtype, device) for name in BUILD}, scheduler=DDIMScheduler())


def random_model(model: nn.Module, dtype: torch.dtype, device: str = "cpu") -> nn.Module:
    """Initialise a model from the meta device with random weights that preserve the scale of activations."""
    model.to_empty(device=device)
    generator = torch.Generator(device).manual_seed(0)
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if not tensor.is_floating_point():
                tensor.copy_(torch.arange(tensor.numel()).view_as(tensor))  # CLIP's positions
            elif tensor.ndim > 1:
                tensor.normal_(0, tensor[0].numel() ** -0.5, generator=generator)
            else:
                tensor.fill_(1.0 if name.endswith("weight") else 0.0)
    return nn.Module.to(model, dtype=dtype).eval().requires_grad_(False)


def naive_unet(unet: UNet) -> Any:
    """The naive reference implementation, with the parameters of `unet`."""
    config = unet.config
    sizes = (list(config.block_out_channels), config.layers_per_block, config.norm_num_groups)
    heads = (config.attention_head_dim, config.motion_module["heads"])
    return NaiveUNet(unet.state_dict(), *sizes, heads=heads[0], motion_heads=heads[1])


@torch.no_grad()
def step_inputs(
    unet: UNet,
    side: int,  # pixels
    frames: int,
) -> tuple[Tensor, list[BlockContext], Tensor, Tensor, list[Tensor]]:
    """→ sample f c h w, contexts of both CFG branches, pose features f c h w, token 1 1 d, reference features 1 n c."""
    like = {"dtype": unet.dtype, "device": unet.device}
    size = side // 8
    widths = unet.config.block_out_channels
    features = []
    for name, block in unet.spatial_blocks().items():
        width = block.norm1.normalized_shape[0]
        level = len(widths) - 1 if name.startswith("mid") else widths.index(width)
        features.append(torch.randn(1, math.ceil(size / 2**level) ** 2, width, **like))
    token = torch.randn(1, 1, unet.config.cross_attention_dim, **like)
    context = unet.prepare(torch.cat([torch.zeros_like(token), token]), features)
    sample = torch.randn(frames, unet.config.in_channels, size, size, **like)
    return sample, context, torch.randn(frames, widths[0], size, size, **like), token, features
