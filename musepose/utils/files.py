"""Input files that must be there, and output files that appear under their final name only when they are complete."""

import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from musepose.utils.errors import UserError

try:
    import fcntl
except ImportError:  # Windows: there an open file cannot be removed, which protects a live run just as well
    fcntl = None

PROJECT = Path(__file__).resolve().parents[2]
DOWNLOAD_HINT = "run `python download_weights.py`"
DISK_FULL = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))


def write_error(path: Path, error: OSError) -> UserError:
    """The plain sentence for an OSError met while writing `path`."""
    reason = error.strerror or str(error)
    remedy = "free some space and start again" if error.errno in DISK_FULL else "choose another output path"
    return UserError(f"cannot write {path} ({reason}): {remedy}")


def project_file(path: str | os.PathLike) -> Path:
    """An input that comes with the project or is fetched into it: `path` as it is, or else in the project's folder."""
    path = Path(path)
    try:
        return PROJECT / path if not path.exists() and (PROJECT / path).exists() else path
    except OSError:  # too long a name: whoever opens it says so
        return path


def require_file(path: Path, hint: str = DOWNLOAD_HINT) -> Path:
    """Return `path` if it is a file with something in it. Raises UserError otherwise."""
    if not path.is_file():
        raise UserError(f"{path} is missing: {hint}")
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty: delete it and {hint}")
    return path


@contextmanager
def complete_file(path: str | os.PathLike) -> Iterator[Path]:
    """Give a temporary path in the folder of `path`; on leaving without an exception it becomes `path`.

    The temporary file is empty and exists; the caller overwrites it by name. It is synchronised to the disk before it
    is renamed, and removed on any exception, Ctrl-C included. What a killed run left for the same target is removed on
    the way in. A full disk, also where the caller meets it, and a place that cannot be written become a UserError that
    names `path`.
    """
    with CompleteFiles() as files, files.file(path) as partial:
        yield partial


class CompleteFiles:
    """Output files that appear together when all of them are complete; a context manager.

    On leaving it without an exception the files of `file` get their own names, in the order of their completion. If one
    cannot, or on any other exception, none appears and the old files of these names stay. A run killed at that moment
    may leave neither old nor new files, but never some of each.
    """

    def __init__(self) -> None:
        self._complete: list[tuple[Path, Path]] = []  # temporary name, own name
        self._stack = ExitStack()

    def __enter__(self) -> "CompleteFiles":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._stack:
            if kind is None:
                self._appear()

    @contextmanager
    def file(self, path: str | os.PathLike) -> Iterator[Path]:
        """As `complete_file`, but the temporary file becomes `path` together with the others."""
        path = Path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            remove_stale(path)
            partial, lock = _create_partial(path)
        except OSError as error:
            raise write_error(path, error) from error
        self._stack.callback(partial.unlink, missing_ok=True)
        self._stack.callback(_close, lock)
        try:
            yield partial
        except OSError as error:
            if error.errno in DISK_FULL:
                raise write_error(path, error) from error
            raise  # of something else that the caller did meanwhile
        try:
            sync_file(partial)
        except OSError as error:
            raise write_error(path, error) from error
        self._complete.append((partial, path))

    def _appear(self) -> None:
        together = len(self._complete) > 1
        hidden: list[tuple[Path, Path]] = []  # old files: temporary name, own name
        appeared: list[Path] = []
        try:
            for _, path in reversed(self._complete):
                if together and path.is_file():
                    old = _partial_name(path)
                    os.replace(path, old)
                    hidden.append((old, path))
            for partial, path in self._complete:
                os.replace(partial, path)
                appeared.append(path)
            for folder in {path.parent for path in appeared}:
                _sync_folder(folder)
        except BaseException as error:
            for new in appeared if together else ():
                with suppress(OSError):
                    new.unlink()
            for old, own in hidden:
                with suppress(OSError):
                    os.replace(old, own)
            if isinstance(error, OSError):
                raise write_error(path, error) from error
            raise
        for old, _ in hidden:
            with suppress(OSError):
                old.unlink()


@contextmanager
def complete_folder(path: str | os.PathLike) -> Iterator[Path]:
    """As `complete_file` for a folder: give an empty one beside it, which becomes `path` when it is complete.

    It takes the place of an older folder of that name, with all that is in there.
    """
    path = Path(os.path.realpath(path))  # a link stays where it is
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_stale(path)
        partial = _partial_name(path)
        partial.mkdir()
        lock = _lock(partial)
    except OSError as error:
        raise write_error(path, error) from error
    try:
        yield partial
        for file in partial.rglob("*"):
            if file.is_file() or os.name == "posix":
                sync_file(file)
        old = _partial_name(path)
        if path.exists():
            os.replace(path, old)
        try:
            os.replace(partial, path)
        except OSError:
            if old.exists():
                os.replace(old, path)
            raise
        shutil.rmtree(old, ignore_errors=True)
        _sync_folder(path.parent)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        _close(lock)
        shutil.rmtree(partial, ignore_errors=True)


def sync_file(path: str | os.PathLike) -> None:
    """Wait until a closed file is on the disk. On POSIX it may be read-only."""
    descriptor = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_writable(path: str | os.PathLike, folder: bool = False) -> None:
    """Raise a UserError if the output file `path`, or the folder, cannot be written.

    Creates nothing that stays, no folder either.
    """
    path = Path(path)
    try:
        if path.exists() and path.is_dir() != folder:
            kind = "no folder" if folder else "a folder"
            raise UserError(f"cannot write {path} (it is {kind}): choose another output path")
        existing = next(folder for folder in path.absolute().parents if folder.exists())
        for name in path.absolute().parts[1:]:  # too long a name shows only in a folder that exists
            with suppress(FileNotFoundError, NotADirectoryError):
                os.lstat(existing / name)
        partial, lock = _create_partial(existing / path.name)
    except OSError as error:
        raise write_error(path, error) from error
    _close(lock)
    partial.unlink(missing_ok=True)


def remove_stale(path: Path) -> None:
    """Remove the temporary files for the target `path` that belong to no living run."""
    for partial in path.parent.glob(f"{_prefix(path)}*.part"):
        try:
            lock = _lock(partial)
        except OSError:  # held by a living run, or gone meanwhile
            continue
        with suppress(OSError):  # in use (Windows), or the folder forbids it: not ours to enforce
            if not partial.is_dir():
                partial.unlink(missing_ok=True)
            elif lock is not None:  # where folders cannot be locked, a living run may be at work in it
                shutil.rmtree(partial)
        _close(lock)


def _prefix(path: Path) -> str:
    """How the temporary files for a target begin: hashed, as the name itself may be as long as a name can be."""
    return f".musepose-{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:12]}-"


def _partial_name(path: Path) -> Path:
    return path.parent / f"{_prefix(path)}{secrets.token_hex(4)}.part"


def _create_partial(path: Path) -> tuple[Path, int | None]:
    """A fresh temporary file for the target `path`, and the descriptor that holds its lock while this run lives."""
    while True:
        partial = _partial_name(path)
        os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        try:
            lock = _lock(partial)
        except OSError:  # another run took the file for a stale one between its creation and its lock
            continue
        if partial.exists():
            return partial, lock
        _close(lock)


def _lock(path: Path) -> int | None:
    """Lock `path` until the descriptor is closed, by the system at the latest when the process dies."""
    if fcntl is None:
        return None
    try:
        descriptor = os.open(path, os.O_RDWR)  # as NFS wants it for an exclusive lock
    except (PermissionError, IsADirectoryError):  # a read-only file that was linked or copied here; a folder
        descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise
    except OSError:  # a file system without locks: then nothing can be told about other runs, and nothing is refused
        pass
    return descriptor


def _close(descriptor: int | None) -> None:
    if descriptor is not None:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    """Make the new name itself durable, where the system lets folders be opened."""
    if os.name == "posix":
        sync_file(folder)
