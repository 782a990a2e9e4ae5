"""Picture conversion at the pipeline's input and output: PIL, NumPy, tensors."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor
from transformers import CLIPImageProcessorPil  # CLIPImageProcessor needs torchvision

CLIP_SIDE = 224

Picture: TypeAlias = "Image.Image | np.ndarray | Tensor"


def rgb_array(picture: Picture, background: str = "black") -> np.ndarray:
    """A picture as (h, w, 3) uint8 RGB.

    PIL pictures of any mode are converted, and composited over `background`, by default the black of pose pictures.
    Arrays are (h, w, 3) uint8; tensors (3, h, w), uint8 or floating-point in [0, 1]. Raises ValueError: any other shape
    or type. A fourth channel is refused, as it need not be transparency.
    """
    if isinstance(picture, Image.Image):
        if picture.mode != "RGB" and picture.has_transparency_data:
            layer = picture.convert("RGBA")
            picture = Image.alpha_composite(Image.new("RGBA", layer.size, background), layer)
        return np.asarray(picture.convert("RGB"))
    if isinstance(picture, Tensor):
        return _from_tensor(picture)
    array = np.asarray(picture)
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8:
        raise ValueError(f"a picture is an array of {array.dtype} {array.shape}: (h, w, 3) uint8 RGB is needed")
    return array


def _from_tensor(picture: Tensor) -> np.ndarray:
    if picture.ndim != 3 or len(picture) != 3:
        raise ValueError(f"a picture is a tensor of {tuple(picture.shape)}: (3, h, w) is needed")
    picture = picture.detach().cpu()
    if picture.is_floating_point():
        if not (picture.amin() >= 0 and picture.amax() <= 1):
            raise ValueError("a picture is a floating-point tensor with values outside [0, 1]")
        picture = (picture.float() * 255).round().byte()
    elif picture.dtype != torch.uint8:
        raise ValueError(f"a picture is a tensor of {picture.dtype}: uint8, or floating point in [0, 1], is needed")
    return rearrange(picture, "c h w -> h w c").numpy()


def to_bytes(pictures: Tensor) -> Tensor:
    """f 3 h w in [0, 1] → f h w 3 uint8, rounded."""
    return rearrange(pictures * 255, "f c h w -> f h w c").round().byte()


OUTPUT_TYPES = ("pil", "np", "pt", "latent")


def convert_output(pictures: Tensor, output_type: str) -> list[list[Image.Image]] | np.ndarray | Tensor:
    """f 3 h w in [0, 1] → a batch of one video, as diffusers' pipelines return it.

    "pil": a list of a list of pictures; "np": (1, f, h, w, 3) float32; "pt": (1, f, 3, h, w).
    """
    if output_type == "pil":
        return [[Image.fromarray(picture) for picture in to_bytes(pictures).numpy()]]
    return pictures[None] if output_type == "pt" else rearrange(pictures, "f c h w -> 1 f h w c").numpy()


def clip_pixels(pictures: Sequence[Image.Image]) -> Tensor:
    """Pictures → CLIP's input b 3 224 224; aspect ratios are not kept."""
    squares = [picture.convert("RGB").resize((CLIP_SIDE, CLIP_SIDE)) for picture in pictures]
    return CLIPImageProcessorPil()(squares, return_tensors="pt").pixel_values
