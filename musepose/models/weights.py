"""The published weight files → models, strictly: every tensor of a model is covered, or an error says which is not.

The models take their sizes from the config files that lie beside the weights, so smaller files give smaller models.
They are built without memory (meta device) and the files' tensors are assigned to them, so that loading needs little
more than one copy of the weights.
"""

import os
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from musepose.models.configs import (
    check_configs,
    clip_config,
    guider_config,
    motion_config,
    noise_config,
    unet_config,
    vae_config,
)
from musepose.models.pose_guider import PoseGuider
from musepose.models.state_dicts import (
    read_checkpoint,
    refuse_other_motion_modules,
    require_all,
    take_matching,
    warn_of_surplus,
)
from musepose.models.unet import UNet
from musepose.models.weight_files import find_weights
from musepose.utils.errors import UserError

MODELS = ("vae", "image_encoder", "reference_unet", "denoising_unet", "pose_guider")
INFERENCE_CONFIG = Path(__file__).parents[2] / "configs" / "inference_v2.yaml"
# Autoencoders saved before diffusers 0.15 name their attention weights so.
OLD_VAE_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


@dataclass(frozen=True)
class WeightPaths:
    """Where everything lies: three folders with a config.json each, four MusePose files, the inference config."""

    base_model: Path  # with unet/config.json; unet's own weights only fill what the MusePose files lack
    vae: Path
    image_encoder: Path
    denoising_unet: Path
    reference_unet: Path
    pose_guider: Path
    motion_module: Path
    inference_config: Path

    @classmethod
    def published(
        cls, folder: str | os.PathLike = "pretrained_weights", inference_config: str | os.PathLike = INFERENCE_CONFIG
    ) -> "WeightPaths":
        """The layout that download_weights.py makes in `folder`."""
        folder = Path(folder)
        models = ("denoising_unet", "reference_unet", "pose_guider", "motion_module")
        return cls(
            base_model=folder / "sd-image-variations-diffusers",
            vae=folder / "sd-vae-ft-mse",
            image_encoder=folder / "image_encoder",
            inference_config=Path(inference_config),
            **{name: folder / "MusePose" / f"{name}.pth" for name in models},
        )


def check_weights(paths: WeightPaths, names: Container[str] = MODELS) -> None:
    """Check configs, and the files' tables of contents and checksums, without loading a model.

    Tensors of no use get one warning a file. Raises UserError: something is missing, damaged, no checkpoint, or of
    another architecture.
    """
    for name, model in empty_models(paths):
        if name in names:
            _gather(model, _sources(name, model, paths), warn=True)


def load_models(
    paths: WeightPaths, device: torch.device | str, dtype: torch.dtype, names: Container[str] = MODELS
) -> dict[str, nn.Module]:
    """→ those of `names`, among them all by default: in eval mode, without gradients.

    Raises UserError as `check_weights` does.
    """
    models = {}
    for name, model in empty_models(paths):
        if name not in names:
            continue
        tensors = _gather(model, _sources(name, model, paths))
        for key in list(tensors):
            tensors[key] = tensors[key].to(device, dtype)
        model.load_state_dict(tensors, strict=False, assign=True)  # strictly: _gather has seen to it
        # For the buffers; not diffusers' own `to`, which warns of a cast that has just been done tensor by tensor.
        models[name] = nn.Module.to(model, device, dtype).eval().requires_grad_(False)
    return models


def fill_model(name: str, model: nn.Module, paths: WeightPaths, besides: str = "") -> None:
    """Load the weights of the model `name` into one that exists, except tensors with `besides` in their names.

    `base_unet` stands for the base model's UNet, which both UNets may start from. Raises UserError as `check_weights`.
    """
    sources = [base_unet_file(paths)] if name == "base_unet" else _sources(name, model, paths)
    if besides:
        sources.remove(paths.motion_module)
    model.load_state_dict(_gather(model, sources, besides=besides), strict=False)  # strictly: _gather has seen to it


def scheduler_config(paths: WeightPaths) -> dict:
    """`noise_scheduler_kwargs` of the inference config, for DDIMScheduler."""
    return noise_config(paths.inference_config)


def empty_models(paths: WeightPaths) -> Iterator[tuple[str, nn.Module]]:
    """Models whose parameters are on the meta device; their computed buffers are real.

    Raises UserError as `check_configs` does, before the first model.
    """
    check_configs(paths.base_model, paths.vae, paths.image_encoder, paths.inference_config)
    unet = unet_config(paths.base_model / "unet" / "config.json")
    motion, guider = motion_config(paths.inference_config), guider_config(paths.inference_config)
    vae, clip = vae_config(paths.vae), clip_config(paths.image_encoder)
    builders = {
        "vae": lambda: AutoencoderKL(**vae),
        "image_encoder": lambda: CLIPVisionModelWithProjection(CLIPVisionConfig(**clip)),
        "reference_unet": lambda: UNet(**unet, has_output=False),
        "denoising_unet": lambda: UNet(**unet, motion_module=motion),
        "pose_guider": lambda: PoseGuider(unet["block_out_channels"][0], **guider),
    }
    for name, build in builders.items():
        try:
            with init_empty_weights(include_buffers=False):
                model = build()
        except Exception as error:  # of libraries that do not check their arguments: what the rules let through
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"the config of the {name} makes no model ({reason}): use the published config files"
            ) from error
        yield name, model


def _sources(name: str, model: nn.Module, paths: WeightPaths) -> list[Path]:
    """The files that may hold a model's tensors, the first to hold one wins; the last is opened only if needed."""
    motion = [paths.motion_module] if getattr(model.config, "motion_module", None) else []
    return {
        "vae": [find_weights(paths.vae, "diffusion_pytorch_model")],
        "image_encoder": [find_weights(paths.image_encoder, "pytorch_model", "model")],
        "reference_unet": [paths.reference_unet, base_unet_file(paths)],
        "denoising_unet": [paths.denoising_unet, *motion, base_unet_file(paths)],
        "pose_guider": [paths.pose_guider],
    }[name]


def base_unet_file(paths: WeightPaths) -> Path:
    """The base UNet's own weights, there or not."""
    return find_weights(paths.base_model / "unet", "diffusion_pytorch_model")


def _gather(model: nn.Module, sources: list[Path], warn: bool = False, besides: str = "") -> dict[str, Tensor]:
    """Every tensor of the model, from the first of the files that holds it, not yet cast; not those named `besides`.

    Raises UserError: one is missing or of another shape.
    """
    wanted = {
        key: tensor.shape
        for key, tensor in model.state_dict().items()
        if not key.endswith(".pe") and not (besides and besides in key)
    }
    found: dict[str, Tensor] = {}
    is_unet = isinstance(model, UNet)
    for place, path in enumerate(sources):
        spare = is_unet and place == len(sources) - 1  # the base UNet: not needed where the others are complete
        if spare and (len(found) == len(wanted) or not path.is_file()):
            continue
        tensors = {_current_name(key, model): tensor for key, tensor in read_checkpoint(path).items()}
        lacking = {key: shape for key, shape in wanted.items() if key not in found}
        if any(key.startswith("mid_block.motion_modules.") for key in lacking):
            refuse_other_motion_modules(tensors, path)
        found |= take_matching(lacking, tensors, path)
        if warn and not spare:
            known = (".pe", "position_ids")
            surplus = (k for k in tensors if k not in wanted and not k.endswith(known) and not _left_out(k, model))
            warn_of_surplus(surplus, path)
    lacking = next((key for key in wanted if key not in found), "")
    require_all(wanted, found, sources[1] if is_unet and "motion_modules" in lacking else sources[0])
    return found


def _left_out(key: str, model: nn.Module) -> bool:
    """A motion module's tensor where the inference config wants none: nothing to warn of."""
    return isinstance(model, UNet) and ".motion_modules." in key and not model.config.motion_module


def _current_name(key: str, model: nn.Module) -> str:
    if isinstance(model, AutoencoderKL) and ".attentions." in key:
        stem, _, kind = key.rpartition(".")
        stem, _, layer = stem.rpartition(".")
        return f"{stem}.{OLD_VAE_NAMES.get(layer, layer)}.{kind}"
    return key
