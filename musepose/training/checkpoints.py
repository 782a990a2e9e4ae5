"""Training checkpoints: atomic writes, rotation, and resuming after a crash. Users know them as training states."""

import os
import re
import shutil
from pathlib import Path
from pickle import UnpicklingError

from accelerate import Accelerator
from safetensors import SafetensorError

from musepose.utils.errors import UserError
from musepose.utils.files import sync_file, write_error

NAME = "step-{:07d}"
PATTERN = re.compile(r"step-(\d+)")


class Checkpoints:
    """The checkpoints of one run in `folder`, one subfolder each, named by the number of finished steps.

    A checkpoint holds the state of every object that the accelerator prepared or registered.
    """

    def __init__(self, accelerator: Accelerator, folder: str | os.PathLike, keep: int):
        self.accelerator, self.folder, self.keep = accelerator, Path(folder), keep

    def save(self, step: int) -> None:
        """Write the checkpoint of step `step`, then delete all but the last `keep`. Every process must call this.

        Raises UserError: the checkpoint cannot be written.
        """
        accelerator, final = self.accelerator, self.folder / NAME.format(step)
        partial = self.folder / f".{final.name}.part"
        if accelerator.is_main_process:
            for stale in self.folder.glob(".step-*.part"):  # left by a killed run
                shutil.rmtree(stale, ignore_errors=True)
        accelerator.wait_for_everyone()
        try:
            accelerator.save_state(str(partial))
            accelerator.wait_for_everyone()
            if accelerator.is_main_process:
                _sync_files(partial)
                if final.exists():
                    _remove(final)
                os.replace(partial, final)
                for old in list_checkpoints(self.folder)[: -self.keep]:
                    _remove(old)
        except OSError as error:
            if accelerator.is_main_process:
                shutil.rmtree(partial, ignore_errors=True)
            raise write_error(final, error) from error
        accelerator.wait_for_everyone()

    def load(self, which: str | None) -> int:
        """Load the checkpoint `which`: a folder, or "latest" (the newest one here, if any). → its finished steps.

        None loads nothing and returns 0. Raises UserError: there is no such checkpoint, or it does not match the model.
        """
        path = find_checkpoint(self.folder, which)
        if path is None:
            return 0
        try:
            self.accelerator.load_state(str(path))
        except (OSError, RuntimeError, ValueError, KeyError, EOFError, UnpicklingError, SafetensorError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"{path} cannot be resumed ({reason}): start from scratch, or use the settings it was written with"
            ) from error
        self.accelerator.step = 0  # always saved between accumulations; their length may have changed
        return step_of(path)


def find_checkpoint(folder: Path, which: str | None) -> Path | None:
    """The folder of checkpoint `which`, see `Checkpoints.load`. Raises UserError: there is no such checkpoint."""
    if which is None:
        return None
    if which == "latest":
        return (list_checkpoints(folder) or [None])[-1]
    path = Path(which)
    if not path.is_dir() or not PATTERN.fullmatch(path.name):
        raise UserError(
            f"{path} is not a training state: give latest, or a folder such as {folder / NAME.format(1000)}"
        )
    return path


def list_checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints in `folder`, oldest first."""
    return sorted((p for p in folder.glob("step-*") if PATTERN.fullmatch(p.name)), key=step_of)


def step_of(path: Path) -> int:
    """The number of finished steps of a checkpoint folder."""
    return int(PATTERN.fullmatch(path.name)[1])


def _remove(checkpoint: Path) -> None:
    """Rename, then delete: a run killed in between leaves no incomplete checkpoint under a valid name."""
    renamed = checkpoint.with_name(f".{checkpoint.name}.old.part")
    shutil.rmtree(renamed, ignore_errors=True)
    os.replace(checkpoint, renamed)
    shutil.rmtree(renamed, ignore_errors=True)


def _sync_files(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            sync_file(path)
