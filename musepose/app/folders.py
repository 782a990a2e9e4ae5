"""Folders of jobs: names that nobody can guess, inputs of their own, removal after a day."""

import os
import re
import secrets
import shutil
import time
from collections.abc import Container
from pathlib import Path

LONGEST_NAME = 60  # characters


def new_token() -> str:
    """128 random bits: who knows a job's or a visit's token may see it."""
    return secrets.token_urlsafe(16)


def safe_name(name: str, default: str) -> str:
    """A file name that is one on every system and needs no quotes in a YAML file; `default` gives missing parts."""
    stem, suffix = os.path.splitext(os.path.basename(name.replace("\\", "/")))
    stem = re.sub(r"[^A-Za-z0-9_-]+", "_", stem).strip("_-")[:LONGEST_NAME]
    suffix = re.sub(r"[^a-z0-9.]", "", suffix.lower())[:6]
    return (stem or Path(default).stem) + (suffix or Path(default).suffix)


def take_input(source: Path, folder: Path, default: str) -> Path:
    """Give the job its own name of an uploaded file, which then stays while the job waits, whatever is removed."""
    target = folder / safe_name(source.name, default)
    if target.exists():  # picture and dance have the same name
        target = target.with_name(f"{Path(default).stem}_{target.name}")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        os.link(os.path.realpath(source), target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)
    return target


def remove_old(root: Path, age: float, keep: Container[str] = ()) -> list[str]:
    """Remove folders in `root` that are `age` seconds old, but those named in `keep`. Returns their names."""
    limit, removed = time.time() - age, []
    for path in root.iterdir() if root.is_dir() else ():
        if path.name in keep or path.is_symlink() or not path.is_dir() or path.stat().st_mtime > limit:
            continue
        shutil.rmtree(path, ignore_errors=True)
        removed.append(path.name)
    return removed
