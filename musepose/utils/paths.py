"""Checks of paths: names that no file can have, inputs that are no regular files, outputs that are inputs."""

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from musepose.utils.errors import UserError, shown


def checked_path(path: str | os.PathLike) -> Path:
    """`path` as a Path. Raises UserError: no file can have this name (a NUL, a lone surrogate)."""
    with suppress(OSError):  # missing, or too long: opening it reports that
        try:
            os.lstat(path)
        except ValueError as error:  # a NUL; or what the locale's encoding lacks
            remedy = "correct it"
            if isinstance(error, UnicodeEncodeError) and error.encoding != "utf-8":
                remedy += f", or set PYTHONUTF8=1, as this locale's encoding is {error.encoding}"
            raise UserError(f"{shown(os.fspath(path))} cannot be the name of a file: {remedy}") from None
    return Path(path)


def check_regular(path: Path, kind: str) -> os.stat_result:
    """Check that the input `path` is a file that can be read, without waiting for anything. `kind` names the content.

    Raises UserError: it is missing, a folder, a pipe, a socket or a device, empty, or may not be read.
    """
    try:
        status = checked_path(path).stat()
        if stat.S_ISDIR(status.st_mode):
            raise UserError(f"{path} is a folder: give a {kind} file")
        if not stat.S_ISREG(status.st_mode):
            raise UserError(f"{path} is a pipe, a socket or a device: give a {kind} file, copy what comes out into one")
        with open(path, "rb"):
            pass
    except FileNotFoundError:
        what = "is a link to nothing" if path.is_symlink() else "does not exist"
        raise UserError(f"{path} {what}: check the path of the {kind}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): check the path and its permissions") from None
    if status.st_size == 0:
        raise UserError(f"{path} is empty: copy or download the {kind} again")
    return status


def refuse_inputs(outputs: Iterable[Path | None], inputs: Iterable[Path | None]) -> None:
    """Raises UserError: an output is an input of the run, under whatever name: by links, hard links too.

    Inputs may be folders: then nothing in them may be an output. None is no file.
    """
    read: dict[object, Path] = {}
    for path in filter(None, inputs):
        for one in [path, *path.rglob("*")] if path.is_dir() else [path]:
            read |= dict.fromkeys(_identities(one), path)
    for path in filter(None, outputs):
        for identity in _identities(path):
            if identity in read:
                same = read[identity]
                as_well = "" if same == path else f", which is {same}"
                raise UserError(f"{path} would be overwritten{as_well}, an input: choose another output path")


def _identities(path: Path) -> list[object]:
    """What tells whether two paths are the same file: the real path, and the file system's number if it exists."""
    found: list[object] = [os.path.normcase(os.path.realpath(path))]
    with suppress(OSError, ValueError):
        status = os.stat(path)
        if stat.S_ISREG(status.st_mode):
            found.append((status.st_dev, status.st_ino))
    return found
