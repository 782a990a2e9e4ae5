"""The lock of a folder: one program at a time writes there."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from musepose.utils.errors import UserError
from musepose.utils.files import write_error

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None


@contextmanager
def locked_folder(folder: Path, user: str) -> Iterator[None]:
    """Hold the exclusive lock of `folder`, which is created if needed. `user` names who holds such locks.

    A killed process leaves no lock behind, nor do its children hold it. Raises UserError: another process holds the
    lock, or the folder cannot be created.
    """
    created = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = [] if fcntl is None else [os.open(folder, os.O_RDONLY)]
    except OSError as error:
        raise write_error(folder, error) from error

    def release() -> None:  # in a child it leaves the parent's lock alone
        while held:
            os.close(held.pop())

    try:
        if held:
            _lock(held[0], folder, user)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=release)
        yield
    finally:
        for descriptor in held:
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)
        release()
        with suppress(OSError):  # it is not empty
            for path in created:
                path.rmdir()


def _lock(descriptor: int, folder: Path, user: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"{folder} is in use by another {user}: wait for its end, or choose another folder") from None
    except OSError:  # a file system without locks: others cannot be detected
        pass
