"""Training checkpoints: atomic writes, rotation, and resuming after a crash. Users know them as training states."""

import logging
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path

import torch
from accelerate import Accelerator

from musepose.training.state_files import StateParts, read_state, write_checksums, write_state
from musepose.utils.distributed import keep_group
from musepose.utils.errors import UserError
from musepose.utils.files import sync_file, write_error

logger = logging.getLogger(__name__)

NAME = "step-{:07d}"
PATTERN = re.compile(r"step-(\d+)")
SPOILT = "spoilt-"  # prefix of the names of states that could not be read


class Checkpoints:
    """The checkpoints of one run in `folder`, one subfolder each, named by the number of finished steps.

    A checkpoint holds the state of all `parts`.
    """

    def __init__(self, accelerator: Accelerator, folder: str | os.PathLike, keep: int, parts: StateParts):
        self.accelerator, self.folder, self.keep, self.parts = accelerator, Path(folder), keep, parts
        keep_group()

    def save(self, step: int) -> None:
        """Write the checkpoint of step `step`, then delete all older ones but `keep` - 1. Every process must call this.

        Raises UserError: the checkpoint cannot be written.
        """
        accelerator, final = self.accelerator, self.folder / NAME.format(step)
        partial = self.folder / f".{final.name}.part"
        if accelerator.is_main_process:
            for stale in self.folder.glob(".step-*.part"):  # left by a killed run
                shutil.rmtree(stale, ignore_errors=True)
        accelerator.wait_for_everyone()
        try:
            write_state(accelerator, partial, self.parts)
            accelerator.wait_for_everyone()
            if accelerator.is_main_process:
                write_checksums(partial)
                _sync_files(partial)
                if final.exists():
                    _remove(final)
                os.replace(partial, final)
                older = [path for path in list_checkpoints(self.folder) if step_of(path) <= step]
                for old in older[: -self.keep]:
                    _remove(old)
        except BaseException as error:
            shutil.rmtree(partial, ignore_errors=True)
            if isinstance(error, OSError):
                raise write_error(final, error) from error
            raise
        accelerator.wait_for_everyone()

    def load(self, which: str | None) -> int:
        """Load the checkpoint `which`: a folder, or "latest" (the newest whole one here, if any). → its finished steps.

        None loads nothing and returns 0. Spoilt checkpoints that are newer than the one loaded are renamed.
        Raises UserError: there is no such checkpoint, it cannot be read, or it does not match the model.
        """
        path = find_checkpoint(self.folder, which)
        if path is None:
            return 0
        candidates = list_checkpoints(self.folder)[::-1] if which == "latest" else [path]
        failures: list[tuple[Path, str]] = []
        for path in candidates:
            reason = self._read(path)
            if reason is None:
                self._set_aside(failures, path)
                return step_of(path)
            failures.append((path, reason))
        path, reason = failures[0]
        others = f", nor can {len(failures) - 1} older ones" if len(failures) > 1 else ""
        remedy = f"resume with the settings it was written with, or remove {path.parent} and start from scratch"
        if which != "latest":
            remedy = "resume with the settings it was written with, or another state: --resume latest"
        raise UserError(f"{path} cannot be resumed ({reason}){others}: {remedy}")

    def _read(self, path: Path) -> str | None:
        """Load one checkpoint. → None, or the reason why a process could not, in all processes."""
        reason = None
        try:
            read_state(self.accelerator, path, self.parts)
            for part in self.parts.others:
                if getattr(part, "last_epoch", step_of(path)) != step_of(path):
                    raise ValueError(f"its schedule is of step {part.last_epoch}")
        except PermissionError as error:
            raise UserError(f"{error.filename} cannot be read ({error.strerror}): check its permissions") from error
        except Exception as error:  # whatever a reader raises on a damaged file
            reason = " ".join(str(error).split())[:200] or type(error).__name__
        if self.accelerator.num_processes > 1:
            failed = torch.tensor(float(reason is not None), device=self.accelerator.device)
            if self.accelerator.reduce(failed).item() and reason is None:
                reason = "another process cannot read it"
        return reason

    def _set_aside(self, failures: list[tuple[Path, str]], loaded: Path) -> None:
        """Rename the spoilt checkpoints that are newer than `loaded`, so that rotation does not keep them instead."""
        self.accelerator.wait_for_everyone()
        if not self.accelerator.is_main_process:
            return
        for path, reason in failures:
            logger.warning("%s cannot be resumed (%s): continuing from %s", path, reason, loaded.name)
            with suppress(OSError):
                shutil.rmtree(path.with_name(SPOILT + path.name), ignore_errors=True)
                os.replace(path, path.with_name(SPOILT + path.name))


def find_checkpoint(folder: Path, which: str | None) -> Path | None:
    """The folder of checkpoint `which`, see `Checkpoints.load`. Raises UserError: there is no such checkpoint."""
    if which is None:
        return None
    if which == "latest":
        return (list_checkpoints(folder) or [None])[-1]
    path = Path(which)
    if not os.path.isdir(path) or not PATTERN.fullmatch(path.name):
        raise UserError(
            f"{path} is not a training state: give latest, or a folder such as {folder / NAME.format(1000)}"
        )
    return path


def list_checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints in `folder`, oldest first. Raises UserError: the folder cannot be read."""
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UserError(f"{folder} cannot be read ({error.strerror}): check its permissions") from error
    return sorted((folder / name for name in names if PATTERN.fullmatch(name)), key=step_of)


def step_of(path: Path) -> int:
    """The number of finished steps of a checkpoint folder."""
    return int(PATTERN.fullmatch(path.name)[1])


def _remove(checkpoint: Path) -> None:
    """Rename, then delete: a run killed in between leaves no incomplete checkpoint under a valid name."""
    renamed = checkpoint.with_name(f".{checkpoint.name}.old.part")
    shutil.rmtree(renamed, ignore_errors=True)
    os.replace(checkpoint, renamed)
    shutil.rmtree(renamed, ignore_errors=True)
    with suppress(OSError):
        renamed.unlink()  # it was no folder


def _sync_files(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            sync_file(path)
