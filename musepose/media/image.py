"""Reads pictures as RGB, upright and in sRGB."""

import math
import os
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, features

from musepose.media.image_colors import ImageColors, read_colors, signal_to_srgb, to_srgb
from musepose.media.png import read_chunks
from musepose.utils.errors import UserError, is_out_of_memory
from musepose.utils.paths import check_regular

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".heic", ".heif")
# Pillow would also read formats that run a program, such as PostScript.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "AVIF")
READABLE = "PNG, JPEG, WebP, AVIF, HEIC, TIFF, GIF or BMP"

MAX_PIXELS = 89_478_485  # of what is returned; larger pictures are scaled down by a whole number
MAX_STORED_PIXELS = 300_000_000  # of a file: at four bytes a pixel while it is read
MAX_JPEG_PIXELS = 1_000_000_000  # JPEG can be decoded at an eighth of its size

# What Pillow's decoders raise on damaged files. UnidentifiedImageError is an OSError.
DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError)
DECODE_ERRORS += (struct.error, zlib.error)

AVIF_BRANDS = {b"avif", b"avis"}
HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}

# EXIF orientation → what turns the picture upright.
_TURNS = dict(enumerate((0, 3, 1, 5, 4, 6, 2), start=2))
_TURNS = {orientation: Image.Transpose(turn) for orientation, turn in _TURNS.items()}
_BAND = 256  # rows of a large picture that are scaled down at a time


def read_image(path: str | os.PathLike) -> Image.Image:
    """Read a picture as a viewer shows it, mode RGB.

    Applies EXIF rotation, composites transparency on white, converts grey, palette, 16-bit and CMYK pictures, and
    converts colours to sRGB, HDR too (image_colors.py). Of an animation it takes the first frame. More than 89 million
    pixels are scaled down.

    Raises UserError if the file is missing, empty, truncated, damaged, not a picture, has too many pixels, or is HEIC
    while pillow-heif is not installed.
    """
    path = Path(path)
    check_file(path, "picture")
    formats = _formats(path)
    try:
        chunks = read_chunks(path)
        with warnings.catch_warnings(), _large_pictures():
            warnings.simplefilter("ignore")  # about metadata
            with Image.open(path, formats=formats) as image:
                _check_pixels(path, image)
                if image.mode == "F":
                    raise UserError(f"{path} has floating-point pixels, without a defined white: save it as PNG")
                if (factor := _reduction(image.size)) > 1:  # JPEG then decodes to a half, a quarter or an eighth
                    image.draft(None, tuple(side // factor for side in image.size))
                image.load()
                orientation = _orientation(image)
                colors = read_colors(path, image, chunks)
                picture = _to_rgb(path, image, colors)
    except Image.UnidentifiedImageError:
        raise UserError(f"{path} is not a picture that can be read: give a {READABLE} file") from None
    except Image.DecompressionBombError:
        raise _too_large(path) from None
    except (MemoryError, *DECODE_ERRORS) as error:
        raise decode_error(path, error) from None
    return picture if orientation not in _TURNS else picture.transpose(_TURNS[orientation])


def check_file(path: Path, kind: str) -> None:
    """As `check_regular`: raise a UserError if `path` is no file that can be read. `kind` names the content."""
    check_regular(path, kind)


def decode_error(path: Path, error: Exception) -> UserError:
    """What to print for an error of a decoder: a lack of memory is not blamed on the file."""
    if is_out_of_memory(error) or "out of memory" in str(error):  # Pillow reports some as OSError
        return UserError(f"{path} needs more memory than there is: free some, or raise the limit (ulimit -v)")
    return UserError(f"{path} is damaged or cut off ({error}): copy or save it again")


def _formats(path: Path) -> list[str]:
    """What the file may be. Raises UserError: HEIC or AVIF that this installation does not read."""
    with open(path, "rb") as file:
        head = file.read(64)
    if head[4:8] != b"ftyp":
        return list(FORMATS)
    brands = {head[8:12], *(head[at : at + 4] for at in range(16, min(len(head), _box_length(head)), 4))}
    if brands & AVIF_BRANDS:
        if not features.check("avif"):
            raise UserError(f"{path} is an AVIF picture: pip install 'pillow>=11.3', or save it as PNG or JPEG")
    elif brands & HEIC_BRANDS:
        try:
            from pillow_heif import register_heif_opener
        except ImportError:
            raise UserError(
                f"{path} is a HEIC picture: pip install -r requirements-heif.txt, or save it as PNG or JPEG"
            ) from None
        register_heif_opener()
        return ["HEIF"]
    return list(FORMATS)


def _box_length(head: bytes) -> int:
    return struct.unpack(">I", head[:4])[0]


@contextmanager
def _large_pictures() -> Iterator[None]:
    """Pillow's own limit is far below today's phones; `_check_pixels` has another."""
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, MAX_JPEG_PIXELS
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _check_pixels(path: Path, image: Image.Image) -> None:
    scalable = image.format in ("JPEG", "MPO") and not image.info.get("progressive")
    if math.prod(image.size) > (MAX_JPEG_PIXELS if scalable else MAX_STORED_PIXELS):
        raise _too_large(path)


def _too_large(path: Path) -> UserError:
    return UserError(f"{path} has far too many pixels: scale it down first")


def _orientation(image: Image.Image) -> int:
    """By EXIF, 1 to 8. Broken EXIF data are ignored, as in picture viewers."""
    try:
        return image.getexif().get(0x0112, 1)
    except DECODE_ERRORS:
        return 1


def _reduction(size: tuple[int, int]) -> int:
    """The whole number by which both sides must be divided; 1: none."""
    return max(1, math.ceil(math.sqrt(math.prod(size) / MAX_PIXELS)))


def _to_rgb(path: Path, image: Image.Image, colors: ImageColors) -> Image.Image:
    """Any Pillow mode to RGB, scaled down to `MAX_PIXELS`."""
    factor, (width, height) = _reduction(image.size), image.size
    if factor == 1:
        if image.format == "PNG" and colors.transfer is not None:
            return _deep_png(path, colors, image.info.get("transparency"))
        return _convert(image, colors)
    small = Image.new("RGB", (math.ceil(width / factor), math.ceil(height / factor)))
    for top in range(0, height, rows := _BAND * factor):
        band = image.crop((0, top, width, min(top + rows, height)))
        band.info = image.info
        small.paste(_convert(band, colors).reduce(factor), (0, top // factor))
    return small


def _convert(image: Image.Image, colors: ImageColors) -> Image.Image:
    """Any Pillow mode to RGB, transparency on white."""
    if image.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion clips at 255
        stored = np.asarray(image)
        grey = np.clip(np.rint(stored.astype(np.float32) / 257), 0, 255).astype(np.uint8)
        if isinstance(transparent := image.info.get("transparency"), int):
            grey[stored == transparent] = 255
        return Image.fromarray(grey, "L").convert("RGB")
    if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
        transparent = image.info.get("transparency")
        if image.mode == "RGB" and isinstance(transparent, tuple) and max(transparent) > 255:
            image.info["transparency"] = tuple(value >> 8 for value in transparent)  # of 16 bits Pillow keeps 8
        return _on_white(to_srgb(image.convert("RGBA"), colors))
    if image.mode not in ("RGB", "CMYK"):
        image = image.convert("RGB")
        return to_srgb(image, colors) if colors.transfer is not None else image
    return to_srgb(image, colors).convert("RGB")


def _on_white(layer: Image.Image) -> Image.Image:
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


def _deep_png(path: Path, colors: ImageColors, transparent: object) -> Image.Image:
    """A PNG with all of its bits, of which Pillow keeps eight: in HDR they make steps that one sees.

    `transparent`: the level or colour that tRNS makes transparent; None, or anything else, if there is none.
    """
    import cv2

    try:
        pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise MemoryError from None
        raise ValueError(error.err) from None
    if pixels is None:
        raise ValueError("its pixels cannot be decoded")
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    colours = pixels[..., 2::-1] if pixels.shape[2] > 2 else np.repeat(pixels[..., :1], 3, axis=2)
    picture = Image.fromarray(signal_to_srgb(colours, colors), "RGB")
    if pixels.shape[2] == 4:
        alpha = pixels[..., 3] if pixels.dtype == np.uint8 else (pixels[..., 3] >> 8).astype(np.uint8)
    elif isinstance(transparent, int | tuple):
        alpha = np.where((colours == transparent).all(axis=-1), 0, 255).astype(np.uint8)
    else:
        return picture
    picture.putalpha(Image.fromarray(np.ascontiguousarray(alpha), "L"))
    return _on_white(picture)
