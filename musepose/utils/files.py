"""Input file checks, and atomic output files: a file gets its final name only when it is complete."""

import errno
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from musepose.utils.errors import UserError
from musepose.utils.paths import checked_path
from musepose.utils.published import PROJECT, missing_hint, source_hint

try:
    import fcntl
except ImportError:  # Windows, where an open file cannot be removed: no lock is needed
    fcntl = None

DISK_FULL = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))


def write_error(path: Path, error: OSError) -> UserError:
    """The UserError for an OSError while writing `path`."""
    reason = error.strerror or str(error)
    remedy = "free some space and start again" if error.errno in DISK_FULL else "choose another output path"
    if error.errno == errno.ENAMETOOLONG:  # names of results are made of those of inputs
        remedy = "rename the input files, as their names are parts of it, or choose a shorter output path"
    return UserError(f"cannot write {path} ({reason}): {remedy}")


def project_file(path: str | os.PathLike) -> Path:
    """Resolve an input path: `path` itself if it exists, else the same path in the project's folder if that exists.

    Raises UserError: no file can have this name.
    """
    path = checked_path(path)
    try:
        return PROJECT / path if not path.exists() and (PROJECT / path).exists() else path
    except OSError:  # a folder that may not be entered, a circle of links: opening it reports that
        return path


def require_file(path: Path, hint: str = "") -> Path:
    """Return `path`. `hint`: the remedy; by default, where the file comes from.

    Raises UserError: it is not a regular file that can be read, or empty.
    """
    try:
        status = checked_path(path).stat()
        if stat.S_ISREG(status.st_mode):
            with open(path, "rb"):
                pass
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path} is missing: {hint or missing_hint(path)}") from None
    except OSError as error:  # a name that is too long, a folder that must not be entered
        raise UserError(
            f"{path} cannot be read ({error.strerror}): {hint or 'check the path and its permissions'}"
        ) from error
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "not a file"
        raise UserError(f"{path} is {kind}: {hint or missing_hint(path)}")
    if status.st_size == 0:
        raise UserError(f"{path} is empty: delete it and {hint or source_hint(path) or 'get it again'}")
    return path


@contextmanager
def complete_file(path: str | os.PathLike) -> Iterator[Path]:
    """Write a file atomically: yields a temporary path in the same folder, which is renamed to `path` on success.

    The temporary file exists and is empty; the caller overwrites it by name. It is synced to disk before the rename,
    and removed on any exception, Ctrl-C included. Temporary files that killed runs left for this target are removed
    first. Raises UserError that names `path`: the disk is full (in the caller's code too), or the path is not writable.
    """
    with CompleteFiles() as files, files.file(path) as partial:
        yield partial


class CompleteFiles:
    """Several output files that appear together, atomically; a context manager.

    On exit without an exception the files of `file` are renamed to their final names, in order of completion. If a
    rename fails, or on any exception, none appears and the old files stay. A run that is killed during the renames may
    leave neither old nor new files, but never a mix.
    """

    def __init__(self) -> None:
        self._complete: list[tuple[Path, Path]] = []  # temporary name, final name
        self._stack = ExitStack()

    def __enter__(self) -> "CompleteFiles":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._stack:
            if kind is None:
                self._rename_all()

    @contextmanager
    def file(self, path: str | os.PathLike) -> Iterator[Path]:
        """As `complete_file`, but renamed together with the others."""
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
            raise  # from other work in the caller's code
        try:
            sync_file(partial)
        except OSError as error:
            raise write_error(path, error) from error
        self._complete.append((partial, path))

    def _rename_all(self) -> None:
        together = len(self._complete) > 1
        hidden: list[tuple[Path, Path]] = []  # old files: temporary name, final name
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
    """Flush a closed file to disk (fsync). On POSIX it may be read-only."""
    descriptor = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_writable(path: str | os.PathLike, folder: bool = False) -> None:
    """Raise a UserError if the output file `path`, or the folder, cannot be written.

    Creates nothing that stays, no folder either.
    """
    path = checked_path(path)
    try:
        for place in (path, *path.absolute().parents):
            if place.is_symlink() and not place.exists():
                raise UserError(f"cannot write {path} ({place} is a link to nothing): choose another output path")
        if path.exists() and path.is_dir() != folder:
            kind = "no folder" if folder else "a folder"
            raise UserError(f"cannot write {path} (it is {kind}): choose another output path")
        if not folder and path.exists() and not path.is_file():
            raise UserError(f"cannot write {path} (it is a pipe or a device): choose another output path")
        existing = next(folder for folder in path.absolute().parents if folder.exists())
        for name in path.absolute().parts[1:]:  # a name that is too long fails only in an existing folder
            with suppress(FileNotFoundError, NotADirectoryError):
                os.lstat(existing / name)
        partial, lock = _create_partial(existing / path.name)
    except OSError as error:
        raise write_error(path, error) from error
    _close(lock)
    partial.unlink(missing_ok=True)


def remove_stale(path: Path) -> None:
    """Remove temporary files for the target `path` that no running process has locked."""
    for partial in path.parent.glob(f"{_prefix(path)}*.part"):
        try:
            lock = _lock(partial)
        except OSError:  # locked by a running process, or already gone
            continue
        with suppress(OSError):  # in use (Windows), or the folder forbids it: not ours to enforce
            if not partial.is_dir():
                partial.unlink(missing_ok=True)
            elif lock is not None:  # where folders cannot be locked, a living run may be at work in it
                shutil.rmtree(partial)
        _close(lock)


def _prefix(path: Path) -> str:
    """Prefix of the temporary files for a target: its digest, as the target's name may have the maximum length.

    Of a target that is hidden itself, a part of something, it is the target's own name: who removes all parts by the
    beginning of their names removes these too.
    """
    if path.name.startswith(".") and path.suffix == ".part":
        return f"{path.stem}-"
    return f".musepose-{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:12]}-"


def _partial_name(path: Path) -> Path:
    return path.parent / f"{_prefix(path)}{secrets.token_hex(4)}.part"


def _create_partial(path: Path) -> tuple[Path, int | None]:
    """A new temporary file for the target `path`, and the descriptor that holds its lock."""
    while True:
        partial = _partial_name(path)
        os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        try:
            lock = _lock(partial)
        except OSError:  # between creation and lock another run removed it as stale
            continue
        if partial.exists():
            return partial, lock
        _close(lock)


def _lock(path: Path) -> int | None:
    """Lock `path` until the descriptor is closed, at the latest when the process ends."""
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
    except OSError:  # a file system without locks: other runs cannot be detected
        pass
    return descriptor


def _close(descriptor: int | None) -> None:
    if descriptor is not None:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    """Flush the new directory entry to disk, if the system can open folders."""
    if os.name == "posix":
        sync_file(folder)
