"""PNG's chunks: their checksums, and what they say of the colours."""

import struct
import zlib
from pathlib import Path

SIGNATURE = b"\x89PNG\r\n\x1a\n"
KEPT = {b"cICP", b"gAMA", b"cHRM", b"sRGB", b"iCCP"}
MAX_KEPT = 1 << 24  # bytes
PIECE = 1 << 20


def read_chunks(path: Path) -> dict[bytes, bytes]:
    """The data of the chunks on colours, name → data; none if the file is no PNG.

    Raises ValueError if a chunk's checksum is wrong (PNG specification, 5.3), which Pillow does not verify for pixels.
    """
    chunks: dict[bytes, bytes] = {}
    with open(path, "rb") as file:
        if file.read(8) != SIGNATURE:
            return chunks
        while len(header := file.read(8)) == 8:
            length, name = struct.unpack(">I4s", header)
            checksum, kept, left = zlib.crc32(name), [], length
            while left and (data := file.read(min(left, PIECE))):
                checksum, left = zlib.crc32(data, checksum), left - len(data)
                if name in KEPT and length <= MAX_KEPT:
                    kept.append(data)
            stored = file.read(4)
            if left or len(stored) < 4:  # cut off: the decoder says so
                break
            if struct.unpack(">I", stored)[0] != checksum:
                raise ValueError(f"wrong checksum in its part {name.decode('ascii', 'backslashreplace')}")
            if name in KEPT:
                chunks.setdefault(name, b"".join(kept))
            if name == b"IEND":
                break
    return chunks


def is_animated_png(path: Path) -> bool:
    """Whether a PNG has an animation control chunk before its pixels (PNG specification, third edition, 11.3.7)."""
    with open(path, "rb") as file:
        file.seek(len(SIGNATURE))
        while len(header := file.read(8)) == 8:
            length, name = struct.unpack(">I4s", header)
            if name in (b"acTL", b"IDAT"):
                return name == b"acTL"
            file.seek(length + 4, 1)
    return False
