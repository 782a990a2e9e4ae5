"""Small models in the published layout, with the weights of the golden data (see tests/golden/README.md)."""

import copy
import io
import json
import pickle
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from musepose.models.pose_guider import PoseGuider
from musepose.models.unet import UNet
from musepose.models.weights import WeightPaths

ROOT = Path(__file__).resolve().parent.parent
UNET_CONFIG = {
    "_class_name": "UNet2DConditionModel",
    "act_fn": "silu",
    "attention_head_dim": 8,
    "block_out_channels": [32, 64, 96, 128],
    "center_input_sample": False,
    "cross_attention_dim": 32,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-05,
    "norm_num_groups": 32,
    "out_channels": 4,
    "sample_size": 64,
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
}
MOTION_CONFIG = {"heads": 8, "max_frames": 128, "blocks": 1, "attentions": 2}
CLIP_CONFIG = {
    "model_type": "clip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 224,
    "patch_size": 32,
    "projection_dim": 32,
}
VAE_CONFIG = {
    "_class_name": "AutoencoderKL",
    "block_out_channels": [32, 32, 32, 64],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 32,
    "scaling_factor": 0.18215,
}


def tensor_by_rule(model: str, key: str, shape: tuple[int, ...], seed: int = 1) -> Tensor:
    """The random tensor that the golden data's rule gives for a key of a model's state dict."""
    state = np.random.RandomState(zlib.crc32(f"{seed}:{model}:{key}".encode()))
    values = state.standard_normal(shape).astype(np.float32)
    if values.ndim <= 1:
        values = np.float32(0.1) * values
        return torch.from_numpy(np.asarray(1 + values if key.endswith(".weight") else values, np.float32))
    values = values / np.sqrt(np.float32(np.prod(shape[1:])))
    return torch.from_numpy(np.asarray(values * (1.4 if model == "pose_guider" else 1), np.float32))


def fill_by_rule(model: nn.Module, name: str) -> nn.Module:
    """Load the rule's tensors into a model, except position tables and integer buffers. → the model in eval mode."""
    tensors = {
        key: tensor
        if key.endswith(".pe") or not tensor.is_floating_point()
        else tensor_by_rule(name, key, tuple(tensor.shape))
        for key, tensor in model.state_dict().items()
    }
    model.load_state_dict(tensors)
    return model.eval()


def tiny_models(*names: str) -> dict[str, nn.Module]:
    """Fresh copies of the five models, or of those with these names, by name."""
    return {name: copy_model(_tiny_models()[name]) for name in names or _tiny_models()}


def copy_model(model: nn.Module) -> nn.Module:
    """What copy.deepcopy returns, many times as fast: models are thousands of small Python objects."""
    tensors: dict[int, Tensor] = {}  # by id, so that what shares a tensor goes on sharing one

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> int | None:
            if not isinstance(value, Tensor):
                return None
            tensors.setdefault(id(value), copy.deepcopy(value))
            return id(value)

    class Unpickler(pickle.Unpickler):
        def persistent_load(self, number: int) -> Tensor:
            return tensors[number]

    pickled = io.BytesIO()
    Pickler(pickled, pickle.HIGHEST_PROTOCOL).dump(model)
    pickled.seek(0)
    return Unpickler(pickled).load()


@cache
def _tiny_models() -> dict[str, nn.Module]:
    unet = {key: value for key, value in UNET_CONFIG.items() if key in UNet.__init__.__wrapped__.__code__.co_varnames}
    models = {
        "vae": AutoencoderKL.from_config(VAE_CONFIG),
        "image_encoder": CLIPVisionModelWithProjection(CLIPVisionConfig.from_dict(CLIP_CONFIG)),
        "reference_unet": UNet(**unet, has_output=False),
        "denoising_unet": UNet(**unet, motion_module=MOTION_CONFIG),
        "pose_guider": PoseGuider(UNET_CONFIG["block_out_channels"][0]),
    }
    return {name: fill_by_rule(model, name) for name, model in models.items()}


def write_published_layout(folder: Path, dtype: torch.dtype = torch.float32) -> WeightPaths:
    """Save the tiny models under `folder` with the published file names and split. → their paths."""
    models = _tiny_models()
    state = {
        name: {k: v.to(dtype) if v.is_floating_point() else v for k, v in model.state_dict().items()}
        for name, model in models.items()
    }
    musepose, base = folder / "MusePose", folder / "sd-image-variations-diffusers"
    vae, clip = folder / "sd-vae-ft-mse", folder / "image_encoder"
    for path in (musepose, base / "unet", vae, clip):
        path.mkdir(parents=True, exist_ok=True)
    denoising = state["denoising_unet"]
    torch.save({k: v for k, v in denoising.items() if "motion_modules" not in k}, musepose / "denoising_unet.pth")
    torch.save({k: v for k, v in denoising.items() if "motion_modules" in k}, musepose / "motion_module.pth")
    torch.save(state["reference_unet"], musepose / "reference_unet.pth")
    torch.save(state["pose_guider"], musepose / "pose_guider.pth")
    torch.save(state["vae"], vae / "diffusion_pytorch_model.bin")
    torch.save(state["image_encoder"], clip / "pytorch_model.bin")
    for path, config in ((base / "unet", UNET_CONFIG), (vae, VAE_CONFIG), (clip, CLIP_CONFIG)):
        (path / "config.json").write_text(json.dumps(config, indent=2))
    return WeightPaths.published(folder)
