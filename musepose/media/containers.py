"""Opens video containers, and detects truncated files from the lengths in their structure.

PyAV is imported when a file is opened, not before: sampling and training steps run without it.
"""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from musepose.media.animated_webp import as_matroska, is_animated_webp
from musepose.media.image import check_file
from musepose.media.png import SIGNATURE, is_animated_png
from musepose.utils.errors import UserError

if TYPE_CHECKING:
    import av

ISO_BOXES = {b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"mfra", b"sidx", b"ssix", b"free", b"skip", b"wide"}
ISO_BOXES |= {b"uuid", b"meta", b"pdin", b"prft", b"emsg", b"udta"}
EBML_HEADER, EBML_SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"

# Only real video containers: FFmpeg would also read a picture as a video of one frame, a text file as a terminal
# recording, and a playlist whose URLs it fetches.
OPEN_OPTIONS = {"format_whitelist": "mov,mp4,m4a,3gp,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg,gif,apng,mxf"}


def open_media(path: Path) -> av.container.InputContainer:
    """Open a video file, or an animated WebP, for reading; raises av.error.FFmpegError, UserError."""
    import av

    if is_animated_webp(path):
        return av.open(as_matroska(path))

    # Metadata in a legacy encoding must not raise; in PyAV 19 it never does.
    lenient = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
    # "file:" stops FFmpeg from interpreting a colon or a percent sign in the name.
    return av.open(f"file:{path}", options=OPEN_OPTIONS, **lenient)


def read_comment(path: Path) -> str:
    """The comment in a video's metadata; empty: there is none, or this is no video."""
    import av

    try:
        with open_media(path) as container:
            return container.metadata.get("comment", "")
    except (OSError, UserError, av.error.FFmpegError):
        return ""


def to_fraction(ratio) -> Fraction | None:
    """Convert PyAV's rates and time bases: up to 18 a Fraction or None; from 19 its own type, 0/0 if unknown."""
    return Fraction(ratio.numerator, ratio.denominator) if ratio else None


def check_video_file(path: Path) -> None:
    """Raises UserError if `path` is missing, empty, cut off, or a picture that is no animation."""
    check_file(path, "video")
    missing = missing_bytes(path)
    if missing:
        raise UserError(f"{path} is cut off ({missing} bytes are missing): copy or download it again")
    with open(path, "rb") as file:
        head = file.read(12)
    for kind, is_kind, is_animated in (
        ("WebP", head[:4] == b"RIFF" and head[8:] == b"WEBP", is_animated_webp),
        ("PNG", head[:8] == SIGNATURE, is_animated_png),
        ("JPEG", head[:3] == b"\xff\xd8\xff", lambda _: False),
        ("BMP", head[:2] == b"BM", lambda _: False),
        ("AVIF", head[4:] == b"ftypavif", lambda _: False),  # of a sequence the brand is avis
        ("HEIC", head[4:] in (b"ftypheic", b"ftypheix", b"ftypmif1"), lambda _: False),
    ):
        if is_kind and not is_animated(path):
            raise UserError(f"{path} is a {kind} picture without motion, not a video: give a video or an animation")


def missing_bytes(path: Path) -> int:
    """Bytes missing at the end of the file, by the lengths of its top-level elements; 0 if none or unknown.

    Supports ISO base media (mp4, mov; ISO/IEC 14496-12, 4.2), Matroska and WebM (RFC 8794, RFC 9559) and RIFF (avi).
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        magic = file.read(12)
        file.seek(0)
        if magic[4:8] in ISO_BOXES:
            end = _end_of_iso_boxes(file, size)
        elif magic[:4] == EBML_HEADER:
            end = _end_of_matroska(file)
        elif magic[:4] == b"RIFF" and magic[8:12] == b"AVI ":
            end = _end_of_riff(file, size)
        else:
            return 0
    return max(0, end - size)


def _end_of_iso_boxes(file: BinaryIO, size: int) -> int:
    """End of the last top-level box. Each has a 32-bit length (1: 64 bits follow, 0: to the end) and a type."""
    offset = 0
    while offset < size:
        file.seek(offset)
        header = file.read(16)
        if len(header) < 8 or header[4:8] not in ISO_BOXES:  # padding after the last box
            break
        length = struct.unpack(">I", header[:4])[0]
        if length == 1 and len(header) == 16:
            length = struct.unpack(">Q", header[8:])[0]
        if length < 8:
            break
        offset += length
    return offset


def _end_of_matroska(file: BinaryIO) -> int:
    """End of the segment. After the EBML header come its identifier, its length (all ones: unknown) and its data."""
    file.seek(4)
    file.seek(_read_ebml_length(file) or 0, 1)
    if file.read(4) != EBML_SEGMENT:
        return 0
    length = _read_ebml_length(file)
    return 0 if length is None else file.tell() + length


def _read_ebml_length(file: BinaryIO) -> int | None:
    """A variable-length integer: the first byte's leading zeros count the bytes that follow."""
    first = file.read(1)
    if not first or first[0] == 0:
        return None
    width = 9 - first[0].bit_length()
    rest = file.read(width - 1)
    value = int.from_bytes(bytes([first[0] & (0xFF >> width)]) + rest, "big")
    return None if value == (1 << 7 * width) - 1 else value


def _end_of_riff(file: BinaryIO, size: int) -> int:
    """End of the last RIFF chunk; AVI files above 1 GB have several."""
    offset = 0
    while offset < size:
        file.seek(offset)
        header = file.read(8)
        if len(header) < 8 or header[:4] != b"RIFF":
            break
        length = struct.unpack("<I", header[4:])[0]
        if length == 0:  # the recorder did not write the length
            return 0
        offset += 8 + length + length % 2
    return offset
