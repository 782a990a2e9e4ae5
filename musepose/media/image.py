"""Reads pictures as RGB, upright and in sRGB."""

import io
import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps

from musepose.utils.errors import UserError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")

# What Pillow's decoders raise on damaged files. UnidentifiedImageError is an OSError.
DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError)
DECODE_ERRORS += (struct.error, zlib.error, MemoryError)


def read_image(path: str | os.PathLike) -> Image.Image:
    """Read a picture as a viewer shows it, mode RGB.

    Applies EXIF rotation, composites transparency on white, converts grey, palette, 16-bit and CMYK pictures, and
    converts an embedded colour profile to sRGB. Of an animation it takes the first frame.

    Raises UserError if the file is missing, empty, truncated, damaged, not a picture, or has too many pixels.
    """
    path = Path(path)
    check_file(path, "picture")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.filterwarnings("ignore", category=UserWarning)  # warnings about metadata
            with Image.open(path) as image:
                image.load()
                return _to_rgb(_upright(image))
    except Image.UnidentifiedImageError:
        raise UserError(f"{path} is not a picture that can be read: give a PNG, JPEG, WebP or BMP file") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UserError(f"{path} has far too many pixels: scale it down first") from None
    except DECODE_ERRORS as error:
        raise UserError(f"{path} is damaged or cut off ({error}): copy or save it again") from None


def check_file(path: Path, kind: str) -> None:
    """Raise a UserError if `path` is missing, a folder, empty or unreadable. `kind` names the expected content."""
    try:
        size = path.stat().st_size
        if path.is_dir():
            raise UserError(f"{path} is a folder: give a {kind} file")
        with open(path, "rb"):
            pass
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: check the path of the {kind}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): check the path and its permissions") from None
    if size == 0:
        raise UserError(f"{path} is empty: copy or download the {kind} again")


def _upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF rotation. Broken EXIF data are ignored, as in picture viewers."""
    try:
        return ImageOps.exif_transpose(image)
    except DECODE_ERRORS:
        return image


def _to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow mode to RGB, transparency on white."""
    if image.mode == "F":
        raise ValueError("floating-point pixels have no defined white")
    if image.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion clips at 255
        grey = np.asarray(image, np.float64) / 257
        return Image.fromarray(np.clip(np.rint(grey), 0, 255).astype(np.uint8), "L").convert("RGB")
    if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
        layer = _to_srgb(image.convert("RGBA"), image.info.get("icc_profile"))
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    if image.mode not in ("RGB", "CMYK"):
        return image.convert("RGB")
    return _to_srgb(image, image.info.get("icc_profile")).convert("RGB")


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert from the embedded profile (phones: Display P3; print: CMYK) to sRGB. An unusable profile is ignored."""
    if not profile:
        return image
    mode = "RGBA" if image.mode == "RGBA" else "RGB"
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if image.mode != "CMYK" and "srgb" in ImageCms.getProfileDescription(source).lower():
            return image  # already sRGB: avoids rounding
        return ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode=mode)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image
