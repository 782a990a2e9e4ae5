"""The formats of checkpoint files, told apart by content, whatever the name: zip, safetensors, and older pickles."""

import pickle
import re
import warnings
import zipfile
from collections.abc import Sequence
from contextlib import nullcontext
from functools import lru_cache
from pathlib import Path

import torch
from safetensors.torch import load_file

from musepose.utils.errors import UserError, is_out_of_memory, shown
from musepose.utils.published import replace_hint

HEADER = 256  # bytes that tell what a file is
MOST_HEADER = 2**32  # bytes of safetensors' header, whose own limit is 100 MB
CHUNK = 1 << 20
INFLATION = 20  # weights hardly shrink: a zip that unpacks to more than this many times its size is refused
REASON = 120  # characters
# Beginnings of files that people save as weights by mistake.
OTHER_FILES = {
    b"version https://git-lfs": "a pointer of Git LFS: fetch the file itself with `git lfs pull`",
    b"<": "a web page",
    b"{": "a JSON text",
    b"\x1f\x8b": "a gzip archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"Rar!": "a RAR archive",
    b"\x89HDF": "an HDF5 file",
    b"GGUF": "a GGUF file",
}


def read_content(path: Path, extra_globals: Sequence = ()) -> object:
    """What a checkpoint file holds. Pickles are read with `weights_only=True` and these globals besides.

    Raises UserError: the file is unreadable, damaged, no checkpoint, or a pickle that wants to run code.
    """
    try:
        with path.open("rb") as file:
            head = file.read(HEADER)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): check its permissions") from error
    if head.startswith(b"PK\x03\x04"):  # torch >= 1.6
        return _read_zip(path, extra_globals)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < MOST_HEADER:  # the header's length, and the header
        return _read_safetensors(path)
    if head.startswith(pickle.PROTO):
        return _read_pickle(path, extra_globals, mmap=False)
    raise UserError(f"{path} is no checkpoint{_what(head)}: {replace_hint(path)}")


def _what(head: bytes) -> str:
    stripped = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    for start, name in OTHER_FILES.items():
        if stripped.startswith(start):
            return f", but {name}"
    try:
        text = head.decode("utf-8", "strict" if len(head) < HEADER else "ignore")
    except UnicodeDecodeError:
        return ""
    return (
        f", but the text {shown(text.strip())}"
        if text.strip() and all(c.isprintable() or c.isspace() for c in text)
        else ""
    )


def _read_safetensors(path: Path) -> object:
    try:
        return load_file(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}): check its permissions") from error
    except Exception as error:  # also KeyError for a type that torch lacks
        raise _damaged(path, error, "no safetensors file") from error


def _read_zip(path: Path, extra_globals: Sequence) -> object:
    """A zip checkpoint, memory-mapped if it is not compressed. torch compares no checksums, so that this does."""
    status = path.stat()
    try:
        compressed = _check_zip(path.absolute(), status.st_size, status.st_mtime_ns)
    except Exception as error:  # zipfile and zlib raise various types for damaged files
        raise _damaged(path, error) from error
    return _read_pickle(path, extra_globals, mmap=not compressed)


@lru_cache(maxsize=64)
def _check_zip(
    path: Path,
    size: int,
    mtime: int,  # noqa: ARG001 (a changed file is checked again)
) -> bool:
    """Compare every checksum of a zip file. → whether anything in it is compressed. Raises whatever zipfile does."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if sum(entry.file_size for entry in entries) > INFLATION * size:
            raise ValueError(f"it would unpack to more than {INFLATION} times its size")
        for entry in entries:
            if entry.CRC == 0:  # torch writes none if `set_crc32_options(False)`
                continue
            with archive.open(entry) as part:
                while part.read(CHUNK):
                    pass
    return any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)


def _read_pickle(path: Path, extra_globals: Sequence, mmap: bool) -> object:
    # torch.load takes a path of this name for safetensors, whatever is in it, and maps paths only.
    misnamed = path.suffix == ".safetensors"
    try:
        with (
            torch.serialization.safe_globals(list(extra_globals)),
            warnings.catch_warnings(),
            path.open("rb") if misnamed else nullcontext(path) as source,
        ):
            warnings.simplefilter("ignore")  # of pickle protocols
            return torch.load(source, map_location="cpu", weights_only=True, mmap=mmap and not misnamed)
    except Exception as error:  # a damaged pickle may raise anything: it is a program for a small machine
        refused = re.search(r"(?:GLOBAL|global) `?([\w.]+)", str(error))
        if isinstance(error, pickle.UnpicklingError) and refused and "unsupported" in str(error).lower():
            raise UserError(
                f"{path} is a pickle that brings code along ({shown(refused[1])}), which is never run: "
                "use a file from a source that you trust, saved as plain tensors"
            ) from error
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception, what: str = "no checkpoint") -> UserError:
    if is_out_of_memory(error) and path.stat().st_size > CHUNK:  # of a small file, the size is a damaged number
        return UserError(f"{path} does not fit into memory: close other programs, or take a machine with more memory")
    reason = re.split(r"\. |[.:]?\n", str(error).strip())[0] or type(error).__name__
    return UserError(f"{path} is truncated, damaged or {what} ({reason[:REASON]}): {replace_hint(path)}")
