"""Converts the colours of pictures to sRGB: ICC profiles, PNG's cICP, gAMA and cHRM, colour boxes of AVIF, HEIC."""

import io
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

from musepose.media.tone_mapping import (
    BT709,
    BT2020,
    D65,
    HLG,
    PQ,
    PRIMARIES,
    SRGB,
    UNSPECIFIED,
    Chromaticities,
    is_hdr,
    is_known,
    to_sdr,
)

SRGB_GAMMA = 1 / 2.2  # as gAMA states sRGB's curve
SAME_GAMMA = 0.05  # a relative difference that libpng takes for none
SAME_CHROMATICITY = 0.01
BOX_BYTES = 1 << 20  # colour boxes stand in front of the pixels
ALIKE = (BT709, UNSPECIFIED, 6, SRGB, 14, 15)  # transfer characteristics that a picture with sRGB's is shown by
# Names of ICC profiles that W3C's note "Using the ITU BT.2100 PQ EOTF with the PNG Format" gives to HDR.
HDR_PROFILES = {b"ITUR_2100_PQ_FULL": PQ, b"ITUR_2100_HLG_FULL": HLG}


@dataclass(frozen=True)
class ImageColors:
    """What a file says of its colours; nothing: sRGB."""

    profile: bytes | None = None  # ICC
    transfer: int | float | None = None  # code of ITU-T H.273, or the exponent of a power law
    primaries: int | Chromaticities = BT709


def read_colors(path: Path, image: Image.Image, chunks: Mapping[bytes, bytes]) -> ImageColors:
    """The strongest of a file's statements. `chunks`: those of a PNG.

    In PNG cICP comes first, then the profile, then sRGB, then gAMA and cHRM (PNG specification, third edition, 4.3); in
    AVIF and HEIC the profile, then the colour box.
    """
    profile = image.info.get("icc_profile") or None
    codes = None
    if len(chunks.get(b"cICP", b"")) == 4:
        codes = chunks[b"cICP"][1], chunks[b"cICP"][0]
    elif profile is not None:
        codes = _profile_codes(profile, chunks.get(b"iCCP", b"").partition(b"\0")[0])
        if codes is None:
            return ImageColors(profile)
    elif chunks:
        return _gamma(chunks)
    else:
        codes = _box_codes(path)
    if codes is None:
        return ImageColors()
    transfer, primaries = codes
    if primaries not in PRIMARIES:
        primaries = BT2020 if is_hdr(transfer) else BT709
    if transfer in ALIKE or not is_known(transfer):
        return ImageColors(None, SRGB, primaries) if primaries != BT709 else ImageColors()
    return ImageColors(None, transfer, primaries)


def to_srgb(picture: Image.Image, colors: ImageColors) -> Image.Image:
    """RGB, RGBA or CMYK → RGB or RGBA in sRGB. An unusable profile is ignored."""
    if colors.transfer is not None and picture.mode in ("RGB", "RGBA"):
        pixels = np.asarray(picture)
        own = signal_to_srgb(pixels[..., :3], colors)
        return Image.fromarray(np.concatenate([own, pixels[..., 3:]], axis=-1), picture.mode)
    if not colors.profile:
        return picture
    mode = "RGBA" if picture.mode == "RGBA" else "RGB"
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(colors.profile))
        if picture.mode != "CMYK" and "srgb" in ImageCms.getProfileDescription(source).lower():
            return picture  # already sRGB: avoids rounding
        return ImageCms.profileToProfile(picture, source, ImageCms.createProfile("sRGB"), outputMode=mode)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return picture


def signal_to_srgb(
    pixels: np.ndarray,  # (h, w, 3) uint8 or uint16
    colors: ImageColors,  # whose `transfer` is known
) -> np.ndarray:
    """By transfer characteristics and primaries: (h, w, 3) uint8. Row by row, because float pixels take much memory."""
    most, result = np.iinfo(pixels.dtype).max, np.empty(pixels.shape, np.uint8)
    for row, signal in enumerate(pixels):
        mapped = to_sdr(signal.astype(np.float32) / np.float32(most), colors.transfer, colors.primaries, SRGB)
        result[row] = np.rint(255 * mapped)
    return result


def _box_codes(path: Path) -> tuple[int, int] | None:
    """Transfer characteristics and primaries from the colour box ("nclx", ISO/IEC 14496-12, 12.1.5) of AVIF or HEIC."""
    with open(path, "rb") as file:
        data = file.read(12)
        if data[4:8] != b"ftyp":
            return None
        data += file.read(BOX_BYTES)
    at = data.find(b"colrnclx")
    if at < 0 or len(data) < at + 12:
        return None
    primaries, transfer = struct.unpack(">HH", data[at + 8 : at + 12])
    return transfer, primaries


def _profile_codes(profile: bytes, name: bytes) -> tuple[int, int] | None:
    """Likewise from an ICC profile for HDR: by its name, or its "cicp" tag (ICC.1:2022, 9.2.17); None for others."""
    for known, transfer in HDR_PROFILES.items():
        if known == name or known in profile or known.decode().encode("utf-16-be") in profile:
            return transfer, BT2020
    try:
        for index in range(min(struct.unpack_from(">I", profile, 128)[0], 100)):
            tag, offset, _ = struct.unpack_from(">4sII", profile, 132 + 12 * index)
            if tag == b"cicp":
                primaries, transfer = struct.unpack_from("BB", profile, offset + 8)
                return (transfer, primaries) if is_hdr(transfer) else None
    except struct.error:
        pass
    return None


def _gamma(chunks: Mapping[bytes, bytes]) -> ImageColors:
    """From PNG's gAMA and cHRM, unless sRGB stands beside them."""
    if b"sRGB" in chunks or len(chunks.get(b"gAMA", b"")) != 4:
        return ImageColors()
    gamma = struct.unpack(">I", chunks[b"gAMA"])[0] / 100000
    if not 0.01 < gamma < 10:
        return ImageColors()
    primaries = _chromaticities(chunks.get(b"cHRM", b""))
    if abs(gamma / SRGB_GAMMA - 1) <= SAME_GAMMA:
        return ImageColors() if primaries == BT709 else ImageColors(None, SRGB, primaries)
    return ImageColors(None, 1 / gamma, primaries)


def _chromaticities(chunk: bytes) -> int | Chromaticities:
    """Of cHRM; BT.709 where they are the same, missing, or impossible."""
    if len(chunk) != 32:
        return BT709
    values = [value / 100000 for value in struct.unpack(">8I", chunk)]
    white, *colours = zip(values[::2], values[1::2], strict=True)
    xyz = np.array([(x, y, 1 - x - y) for x, y in colours])
    if not all(0 < y <= 1 for _, y in (white, *colours)) or abs(np.linalg.det(xyz)) < SAME_CHROMATICITY:
        return BT709
    same = np.abs(np.subtract((*colours, white), (*PRIMARIES[BT709][:3], D65))).max() <= SAME_CHROMATICITY
    return BT709 if same else (*colours, white)
