"""Caches of libraries where the home folder cannot be written, or where there is none: a temporary folder."""

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def provide_home() -> Callable[[], None]:
    """Give the libraries a folder for their caches if they have none. → removes it again.

    yapf and Matplotlib, which mmdet imports, fail or warn without one. The user may have no name: torch asks for it.
    """
    if os.name != "posix":
        return lambda: None
    if not any(os.environ.get(name) for name in ("LOGNAME", "USER", "LNAME", "USERNAME")):
        os.environ["LOGNAME"] = f"uid-{os.getuid()}"  # else getpass.getuser() fails where the user has no entry
    home = home_folder()
    cache = os.environ.get("XDG_CACHE_HOME") or (home and home / ".cache")
    if cache and is_usable(Path(cache)):
        return lambda: None
    import shutil
    import tempfile  # slow to import

    try:
        folder = tempfile.mkdtemp(prefix="musepose-")
    except OSError:  # no place at all: what needs one says so
        return lambda: None
    if home is not None and "XDG_CACHE_HOME" not in os.environ:
        os.environ.setdefault("HF_HOME", str(home / ".cache" / "huggingface"))  # may be read
    os.environ["XDG_CACHE_HOME"] = folder
    os.environ.setdefault("MPLCONFIGDIR", folder)
    return lambda: shutil.rmtree(folder, ignore_errors=True)


def use_compile_cache() -> None:
    """Name the folder of torch's compiled layers, which keeps them for the next run; a temporary one, with a line.

    torch's default is in /tmp, which is cleared when the machine starts.
    """
    if "TORCHINDUCTOR_CACHE_DIR" in os.environ:
        return
    home = home_folder()
    folder = home and home / ".cache" / "musepose" / "compiled"
    with suppress(OSError):
        if folder and is_usable(folder):
            folder.mkdir(parents=True, exist_ok=True)
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)
            return
    import tempfile

    temporary = tempfile.mkdtemp(prefix="musepose-compiled-")
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = temporary
    os.environ.setdefault("TRITON_CACHE_DIR", os.path.join(temporary, "triton"))
    where = f"{home} cannot be written" if home else "there is no home folder"
    told = f"{where}: compiled layers go to {temporary} (TORCHINDUCTOR_CACHE_DIR names another folder)"
    print(told, file=sys.stderr, flush=True)


def home_folder() -> Path | None:
    """The user's home folder, which may not exist; None if nobody knows it."""
    try:
        return Path.home() if os.environ.get("HOME", "unset") else None
    except RuntimeError:
        return None


def is_usable(folder: Path) -> bool:
    """Whether files can be written to a folder, or to where it would be created."""
    try:
        existing = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    except (OSError, ValueError, StopIteration):
        return False
    effective = os.access in os.supports_effective_ids
    return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK, effective_ids=effective)
