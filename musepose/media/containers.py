"""Video containers: how they are opened, and whether a file is as long as its own structure says.

PyAV is imported when a file is opened, not before: sampling and training steps work without it.
"""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    import av

ISO_BOXES = {b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"mfra", b"sidx", b"ssix", b"free", b"skip", b"wide"}
ISO_BOXES |= {b"uuid", b"meta", b"pdin", b"prft", b"emsg", b"udta"}
EBML_HEADER, EBML_SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"

# Only real video containers: FFmpeg would also read a picture as a video of one frame, a text as a terminal recording,
# and a play list that fetches addresses.
OPEN_OPTIONS = {"format_whitelist": "mov,mp4,m4a,3gp,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg,gif,mxf"}


def open_media(path: Path) -> av.container.InputContainer:
    """Open a video file for reading; raises av.error.FFmpegError."""
    import av

    # Titles in an old encoding are no reason to fail; PyAV 19 never does.
    lenient = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
    # "file:" keeps FFmpeg from reading a colon or a percent sign in the name as something else.
    return av.open(f"file:{path}", options=OPEN_OPTIONS, **lenient)


def to_fraction(ratio) -> Fraction | None:
    """PyAV's rates and time bases: a Fraction or None up to 18, a type of its own, 0/0 for unknown, from 19 on."""
    return Fraction(ratio.numerator, ratio.denominator) if ratio else None


def missing_bytes(path: Path) -> int:
    """How many bytes the outermost parts of the container announce beyond the end of the file; 0 if none, or unknown.

    Knows ISO base media (mp4, mov; ISO/IEC 14496-12, 4.2), Matroska and WebM (RFC 8794, RFC 9559) and RIFF (avi).
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
    """Where the last top-level box ends: each is a 32-bit length (1: 64 bits follow, 0: to the end) and a type."""
    offset = 0
    while offset < size:
        file.seek(offset)
        header = file.read(16)
        if len(header) < 8 or header[4:8] not in ISO_BOXES:  # padding behind the last box is no box
            break
        length = struct.unpack(">I", header[:4])[0]
        if length == 1 and len(header) == 16:
            length = struct.unpack(">Q", header[8:])[0]
        if length < 8:
            break
        offset += length
    return offset


def _end_of_matroska(file: BinaryIO) -> int:
    """Where the segment ends: behind the EBML header stand its identifier, its length (all ones: unknown), its data."""
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
    """Where the last RIFF chunk ends; AVI files above 1 GB hold several."""
    offset = 0
    while offset < size:
        file.seek(offset)
        header = file.read(8)
        if len(header) < 8 or header[:4] != b"RIFF":
            break
        length = struct.unpack("<I", header[4:])[0]
        if length == 0:  # a recorder that never came back to write the length
            return 0
        offset += 8 + length + length % 2
    return offset
