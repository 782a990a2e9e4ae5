"""The models' config files → their arguments, checked for each model and between models. Needs no torch."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from musepose.models import config_rules as rules
from musepose.utils.config_file import read_yaml
from musepose.utils.errors import UserError, shown
from musepose.utils.files import require_file
from musepose.utils.published import replace_hint
from musepose.utils.schema import check_section

REMEDY = "use the published config file"
RESTORE = "restore it from the repository (configs/inference_v2.yaml)"
UNET_LEVELS, UNET_GROUPS, UNET_HEADS = 4, 32, 8  # UNet's defaults
TRAIN_TIMESTEPS = 1000  # DDIMScheduler's default, as the following two
BETA_START, BETA_END = 0.0001, 0.02


def check_configs(base_model: Path, vae: Path, image_encoder: Path, inference_config: Path) -> None:
    """Check each config file, and that they fit each other. Raises UserError: one line that names file and key."""
    unet_path = base_model / "unet" / "config.json"
    content = read_inference_config(inference_config)
    sizes, motion = unet_config(unet_path), motion_config(inference_config, content)
    guider_config(inference_config, content)
    noise_config(inference_config, content)
    if motion is not None:
        _check_motion(motion, sizes, inference_config, unet_path)
    for wanted, path, key, found in (
        (sizes["in_channels"], unet_path, "out_channels", sizes["out_channels"]),
        (sizes["in_channels"], vae / "config.json", "latent_channels", vae_config(vae).get("latent_channels", 4)),
        (
            sizes["cross_attention_dim"],
            image_encoder / "config.json",
            "projection_dim",
            clip_config(image_encoder).get("projection_dim", 512),
        ),
    ):
        if found != wanted:
            other = "cross_attention_dim" if key == "projection_dim" else "in_channels"
            raise UserError(f"{path}: {key} is {found} where {unet_path} has {other} {wanted}: use models that fit")


def unet_config(path: Path) -> dict[str, Any]:
    """The sizes in a UNet's config.json, for UNet. Raises UserError: no such file, or one of another architecture."""
    config = check_section(read_json(path), rules.UNET, f"{path}: ", REMEDY)
    sizes = {"in_channels": 4, "out_channels": 4} | {key: config[key] for key in rules.UNET_SIZES if key in config}
    widths = sizes["block_out_channels"]
    for key in ("down_block_types", "up_block_types"):
        if len(sizes.get(key, range(UNET_LEVELS))) != len(widths):
            raise UserError(f"{path}: {key} and block_out_channels differ in length: {REMEDY}")
    _check_divides(path, "norm_num_groups", sizes.get("norm_num_groups", UNET_GROUPS), widths)
    _check_divides(path, "attention_head_dim", sizes.get("attention_head_dim", UNET_HEADS), widths)
    return sizes


def vae_config(folder: Path) -> dict[str, Any]:
    """The arguments for AutoencoderKL in a folder's config.json. Raises UserError as `unet_config` does."""
    path = folder / "config.json"
    config = check_section(read_json(path), rules.VAE, f"{path}: ", REMEDY)
    _check_divides(path, "norm_num_groups", config.get("norm_num_groups", 32), config["block_out_channels"])
    return {key: config[key] for key in rules.VAE_SIZES if key in config}


def clip_config(folder: Path) -> dict[str, Any]:
    """The arguments for CLIPVisionConfig in a folder's config.json. Raises UserError as `unet_config` does."""
    path = folder / "config.json"
    values = read_json(path)
    if values.get("attn_implementation") is None and "_attn_implementation" in values:
        values["attn_implementation"] = values["_attn_implementation"]
    config = check_section(values, rules.CLIP, f"{path}: ", REMEDY)
    _check_divides(path, "num_attention_heads", config.get("num_attention_heads", 12), [config.get("hidden_size", 768)])
    return {key: config[key] for key in rules.CLIP_SIZES if key in config}


def read_inference_config(path: Path) -> dict[str, Any]:
    """The inference config's sections. Raises UserError: missing, unreadable, or no YAML."""
    return read_yaml(require_file(path, RESTORE), RESTORE)


def motion_config(path: Path, content: Mapping[str, Any] | None = None) -> dict[str, int] | None:
    """The motion modules' sizes, for UNet; None where `use_motion_module` is off, as after the first training stage.

    `content`: of the inference config `path`, where it has been read. Raises UserError as `unet_config` does.
    """
    section = _section(path, content, "unet_additional_kwargs")
    where = f"{path}: unet_additional_kwargs."
    kwargs = section.pop("motion_module_kwargs", None)
    if check_section(section, rules.MOTION, where, REMEDY, others=False).get("use_motion_module") is False:
        return None
    where += "motion_module_kwargs."
    found = check_section({} if kwargs is None else kwargs, rules.MOTION_SIZES, where, REMEDY, others=False)
    return {
        "heads": found.get("num_attention_heads", 8),
        "max_frames": found.get("temporal_position_encoding_max_len", 128),
        "blocks": found.get("num_transformer_block", 1),
        "attentions": len(found.get("attention_block_types", range(2))),
    }


def guider_config(path: Path, content: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """`pose_guider_kwargs` of the inference config, where it has them: sizes other than the published ones."""
    kwargs = _section(path, content, "pose_guider_kwargs", optional=True)
    return check_section(kwargs, rules.GUIDER, f"{path}: pose_guider_kwargs.", others=False)


def noise_config(path: Path, content: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """`noise_scheduler_kwargs` of the inference config, for DDIMScheduler."""
    section = "noise_scheduler_kwargs"
    return check_noise(_section(path, content, section), f"{path}: {section}.")


def check_noise(kwargs: Any, where: str) -> dict[str, Any]:
    """→ the checked arguments for DDIMScheduler. `where` stands before a key in error lines. Raises UserError."""
    found = check_section(kwargs, rules.NOISE, where, others=False)
    start, end = found.get("beta_start", BETA_START), found.get("beta_end", BETA_END)
    if start > end:
        raise UserError(f"{where}beta_start is {start}, above beta_end {end}: give a smaller one")
    betas, timesteps = found.get("trained_betas"), found.get("num_train_timesteps", TRAIN_TIMESTEPS)
    if betas is not None and len(betas) != timesteps:
        raise UserError(f"{where}trained_betas has {len(betas)} values for {timesteps} timesteps: give one for each")
    if found.get("rescale_betas_zero_snr") and found.get("prediction_type", "epsilon") == "epsilon":
        raise UserError(
            f"{where}prediction_type is epsilon, which cannot start from the pure noise of rescale_betas_zero_snr: "
            "give v_prediction, or rescale_betas_zero_snr: false"
        )
    return found


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises UserError: the file is missing, unreadable or no JSON, or holds something else."""
    try:
        config = json.loads(require_file(path).read_text(encoding="utf-8-sig"))  # Windows editors write a mark
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): check its permissions") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no JSON ({error}): {replace_hint(path)}") from error
    if not isinstance(config, dict):
        raise UserError(f"{path} is no model config: {replace_hint(path)}")
    return config


def _section(path: Path, content: Mapping[str, Any] | None, section: str, optional: bool = False) -> dict[str, Any]:
    config = read_inference_config(path) if content is None else content
    if optional and config.get(section) is None:
        return {}
    if not isinstance(config.get(section), Mapping):
        given = f"{path}: {section} is {shown(config[section])}" if section in config else f"{path} has no {section}"
        raise UserError(f"{given}: give `key: value` pairs, or {RESTORE}")
    return dict(config[section])


def _check_divides(path: Path, key: str, divisor: int, widths: list[int]) -> None:
    if any(width % divisor for width in widths):
        raise UserError(f"{path}: {key} is {divisor}, which does not divide the widths {widths}: {REMEDY}")


def _check_motion(motion: dict[str, int], sizes: dict[str, Any], path: Path, unet_path: Path) -> None:
    widths = sizes["block_out_channels"]
    where = f"{path}: motion_module_kwargs"
    if any(width % motion["heads"] for width in widths):
        raise UserError(
            f"{where}: num_attention_heads is {motion['heads']}, which does not divide the widths {widths} "
            f"of {unet_path}: {REMEDY}"
        )
    if any(width % 2 for width in widths):
        raise UserError(f"{unet_path}: motion modules need even widths, not {widths}: {REMEDY}")
