"""The published weight files → models, strictly: every tensor of a model is covered, or an error says which is not.

The models take their sizes from the config files that lie beside the weights, so smaller files give smaller models.
They are built without memory (meta device) and the files' tensors are assigned to them, so that loading needs little
more than one copy of the weights.
"""

import json
import os
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL
from omegaconf import OmegaConf
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from musepose.models.pose_guider import PoseGuider
from musepose.models.state_dicts import read_checkpoint, require_all, take_matching, warn_of_surplus
from musepose.models.unet import UNet
from musepose.utils.errors import UserError
from musepose.utils.files import DOWNLOAD_HINT, require_file

MODELS = ("vae", "image_encoder", "reference_unet", "denoising_unet", "pose_guider")
INFERENCE_CONFIG = Path(__file__).parents[2] / "configs" / "inference_v2.yaml"
# What an SD-1.5-type UNet's config.json may say and this UNet does: anything else is another architecture.
FIXED_UNET_CONFIG = {
    "act_fn": "silu",
    "center_input_sample": False,
    "class_embed_type": None,
    "conv_in_kernel": 3,
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "mid_block_scale_factor": 1,
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "resnet_time_scale_shift": "default",
    "transformer_layers_per_block": 1,
    "use_linear_projection": False,
}
UNET_SIZES = (
    *("in_channels", "out_channels", "block_out_channels", "layers_per_block", "down_block_types", "up_block_types"),
    *("attention_head_dim", "cross_attention_dim", "norm_num_groups", "norm_eps"),
)
# Likewise for `unet_additional_kwargs` of the inference config.
FIXED_MOTION_CONFIG = {
    "use_inflated_groupnorm": True,
    "unet_use_cross_frame_attention": False,
    "unet_use_temporal_attention": False,
    "motion_module_resolutions": [1, 2, 4, 8],
    "motion_module_mid_block": True,
    "motion_module_decoder_only": False,
    "motion_module_type": "Vanilla",
}
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
    """Look at the files' tables of contents without loading a model. Tensors of no use get one warning a file.

    Raises UserError: something is missing, truncated, no checkpoint, or of another architecture.
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
    return _inference_section(paths.inference_config, "noise_scheduler_kwargs")


def empty_models(paths: WeightPaths) -> Iterator[tuple[str, nn.Module]]:
    """Models whose parameters are on the meta device; their computed buffers are real."""
    unet = unet_config(paths.base_model / "unet" / "config.json")
    motion, guider = motion_config(paths.inference_config), guider_config(paths.inference_config)
    vae, clip = read_json(paths.vae / "config.json"), read_json(paths.image_encoder / "config.json")
    builders = {
        "vae": lambda: AutoencoderKL.from_config(vae),
        "image_encoder": lambda: CLIPVisionModelWithProjection(CLIPVisionConfig.from_dict(clip)),
        "reference_unet": lambda: UNet(**unet, has_output=False),
        "denoising_unet": lambda: UNet(**unet, motion_module=motion),
        "pose_guider": lambda: PoseGuider(unet["block_out_channels"][0], **guider),
    }
    for name, build in builders.items():
        try:
            with init_empty_weights(include_buffers=False):
                model = build()
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(
                f"the config of the {name} makes no model ({error}): use the published config files"
            ) from error
        yield name, model


def _sources(name: str, model: nn.Module, paths: WeightPaths) -> list[Path]:
    """The files that may hold a model's tensors, the first to hold one wins; the last is opened only if needed."""
    motion = [paths.motion_module] if getattr(model.config, "motion_module", None) else []
    return {
        "vae": [_weight_file(paths.vae, "diffusion_pytorch_model")],
        "image_encoder": [_weight_file(paths.image_encoder, "pytorch_model", "model")],
        "reference_unet": [paths.reference_unet, base_unet_file(paths)],
        "denoising_unet": [
            paths.denoising_unet,
            *motion,
            base_unet_file(paths),
        ],
        "pose_guider": [paths.pose_guider],
    }[name]


def base_unet_file(paths: WeightPaths) -> Path:
    """The base UNet's own weights, there or not."""
    return _weight_file(paths.base_model / "unet", "diffusion_pytorch_model")


def _weight_file(folder: Path, *stems: str) -> Path:
    """The weight file of a diffusers or transformers folder; if there is none, where the published one would be."""
    candidates = [folder / f"{stem}{suffix}" for stem in stems for suffix in (".safetensors", ".bin")]
    return next((path for path in candidates if path.is_file()), folder / f"{stems[0]}.bin")


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
        found |= take_matching({key: shape for key, shape in wanted.items() if key not in found}, tensors, path)
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


def unet_config(path: Path) -> dict:
    """The sizes in a config.json, for UNet. Raises UserError: no such file, or one of another architecture."""
    config = read_json(path)
    _require_values(path, config, FIXED_UNET_CONFIG)
    lacking = [key for key in ("block_out_channels", "cross_attention_dim") if key not in config]
    if lacking:
        raise UserError(f"{path}: {lacking[0]} is missing: use the config.json of an SD-1.5-type UNet")
    return {key: config[key] for key in UNET_SIZES if key in config}


def motion_config(path: Path) -> dict | None:
    """The motion modules' sizes, for UNet; None where `use_motion_module` is off, as after the first training stage."""
    config = _inference_section(path, "unet_additional_kwargs")
    if config.get("use_motion_module") is False:
        return None
    _require_values(path, config, FIXED_MOTION_CONFIG)
    kwargs = config.get("motion_module_kwargs") or {}
    types = kwargs.get("attention_block_types", ["Temporal_Self", "Temporal_Self"])
    _require_values(path, kwargs, {"temporal_position_encoding": True, "temporal_attention_dim_div": 1})
    if set(types) != {"Temporal_Self"}:
        raise UserError(f"{path}: attention_block_types is {list(types)}: only Temporal_Self is supported")
    return {
        "heads": kwargs.get("num_attention_heads", 8),
        "max_frames": kwargs.get("temporal_position_encoding_max_len", 128),
        "blocks": kwargs.get("num_transformer_block", 1),
        "attentions": len(types),
    }


def guider_config(path: Path) -> dict:
    """`pose_guider_kwargs` of the inference config, where it has them: sizes other than the published ones."""
    kwargs = _inference_section(path, "pose_guider_kwargs", optional=True)
    channels = kwargs.get("block_out_channels")
    if set(kwargs) - {"block_out_channels"} or not (channels is None or _are_widths(channels)):
        raise UserError(f"{path}: pose_guider_kwargs is {kwargs}: give block_out_channels, four numbers")
    return kwargs


def _are_widths(value: object) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(isinstance(width, int) and width > 0 for width in value)


def _require_values(path: Path, config: dict, fixed: dict) -> None:
    for key, value in fixed.items():
        given = config.get(key)
        if given is not None and given != value:
            raise UserError(f"{path}: {key} is {given}, only {value} is supported: use the published config file")


def _inference_section(path: Path, section: str, optional: bool = False) -> dict:
    require_file(path, "restore it from the repository (configs/inference_v2.yaml)")
    try:
        config = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except Exception as error:  # OmegaConf passes on whatever its YAML reader raises
        raise UserError(f"{path} is no YAML ({str(error).splitlines()[0]}): mend it") from error
    if optional and isinstance(config, dict) and config.get(section) is None:
        return {}
    if not isinstance(config, dict) or not isinstance(config.get(section), dict):
        raise UserError(f"{path} has no section {section}: restore it from the repository")
    return config[section]


def read_json(path: Path) -> dict:
    try:
        config = json.loads(require_file(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is no JSON ({error}): delete it and {DOWNLOAD_HINT}") from error
    if not isinstance(config, dict):
        raise UserError(f"{path} is no model config: delete it and {DOWNLOAD_HINT}")
    return config
