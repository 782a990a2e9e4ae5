"""The published weight files, and what to advise where a file is missing or broken: each file's own remedy."""

import os
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
DOWNLOAD_HINT = "run `python download_weights.py`"
OPTIONAL = "sd-image-variations-diffusers/unet/diffusion_pytorch_model.bin"
# Paths below the weights folder, as in download/weights.py, which this level must not import.
PUBLISHED = (
    *(f"MusePose/{name}.pth" for name in ("denoising_unet", "motion_module", "pose_guider", "reference_unet")),
    *(f"dwpose/{name}.pth" for name in ("dw-ll_ucoco_384", "yolox_l_8x8_300e_coco")),
    "sd-image-variations-diffusers/unet/config.json",
    OPTIONAL,
    *(f"image_encoder/{name}" for name in ("config.json", "pytorch_model.bin")),
    *(f"sd-vae-ft-mse/{name}" for name in ("config.json", "diffusion_pytorch_model.bin")),
)


def source_hint(path: str | os.PathLike) -> str:
    """Where a whole copy of `path` comes from; empty if neither download_weights.py nor the repository has it."""
    absolute = Path(os.path.abspath(path))
    for target in PUBLISHED:
        tail = Path(target).parts
        if absolute.parts[-len(tail) :] != tail:
            continue
        folder = absolute.parents[len(tail) - 1]
        if folder == PROJECT / "pretrained_weights" / "puppet":
            return "restore it from the repository"
        flags = (
            "" if folder in (PROJECT / "pretrained_weights", Path.cwd() / "pretrained_weights") else f" --dir {folder}"
        )
        flags += " --with_base_unet" if target == OPTIONAL else ""
        return f"{DOWNLOAD_HINT[:-1]}{flags}`"
    return ""


def missing_hint(path: str | os.PathLike) -> str:
    """The remedy for a file that is not there."""
    return source_hint(path) or "check the path"


def replace_hint(path: str | os.PathLike) -> str:
    """The remedy for a broken file."""
    source = source_hint(path)
    return f"delete it and {source}" if source else "get a whole copy of it, or give another file"


def other_hint(path: str | os.PathLike) -> str:
    """The remedy for a whole file of other content than is needed."""
    return source_hint(path) or "give weights of the architecture that the config files say"
