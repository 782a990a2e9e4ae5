"""Training states on disk: written whole or not at all, the last few kept, found again after a crash."""

import os
import re
import shutil
from pathlib import Path
from pickle import UnpicklingError

import torch
from accelerate import Accelerator
from safetensors import SafetensorError

from musepose.utils.errors import UserError
from musepose.utils.files import sync_file, write_error

NAME = "step-{:07d}"
PATTERN = re.compile(r"step-(\d+)")


class States:
    """The states of one training in `folder`, one subfolder each, named by the number of steps done.

    What is saved is what the accelerator knows: everything prepared by it or registered with it.
    """

    def __init__(self, accelerator: Accelerator, folder: str | os.PathLike, keep: int):
        self.accelerator, self.folder, self.keep = accelerator, Path(folder), keep

    def save(self, step: int) -> None:
        """Write the state after `step` steps, then drop all but the last `keep`. Called by every process."""
        accelerator, final = self.accelerator, self.folder / NAME.format(step)
        partial = self.folder / f".{final.name}.part"
        if accelerator.is_main_process:
            for stale in self.folder.glob(".step-*.part"):  # of a run that was killed, or half-removed
                shutil.rmtree(stale, ignore_errors=True)
        accelerator.wait_for_everyone()
        try:
            accelerator.save_state(str(partial))
            accelerator.wait_for_everyone()
            if accelerator.is_main_process:
                _synchronise(partial)
                if final.exists():
                    _remove(final)
                os.replace(partial, final)
                for old in list_states(self.folder)[: -self.keep]:
                    _remove(old)
        except OSError as error:
            if accelerator.is_main_process:
                shutil.rmtree(partial, ignore_errors=True)
            raise write_error(final, error) from error
        accelerator.wait_for_everyone()

    def load(self, which: str | None) -> int:
        """Take up the state `which`: a folder, or "latest" (the newest here, if there is one). → the steps done in it.

        None starts from nothing. Raises UserError: there is no such state, or it belongs to another training.
        """
        path = find_state(self.folder, which)
        if path is None:
            return 0
        try:
            self.accelerator.load_state(str(path))
        except (OSError, RuntimeError, ValueError, KeyError, EOFError, UnpicklingError, SafetensorError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"{path} cannot be taken up ({reason}): start anew, or use the settings it was written with"
            ) from error
        self.accelerator.step = 0  # states are saved between accumulations, whose length may be another one now
        return step_of(path)


def find_state(folder: Path, which: str | None) -> Path | None:
    """The folder of the state `which`, as `States.load` understands it. Raises UserError: there is no such state."""
    if which is None:
        return None
    if which == "latest":
        return (list_states(folder) or [None])[-1]
    path = Path(which)
    if not path.is_dir() or not PATTERN.fullmatch(path.name):
        raise UserError(f"{path} is no training state: give latest, or a folder such as {folder / NAME.format(1000)}")
    return path


def list_states(folder: Path) -> list[Path]:
    """The whole states in `folder`, oldest first."""
    return sorted((p for p in folder.glob("step-*") if PATTERN.fullmatch(p.name)), key=step_of)


def step_of(path: Path) -> int:
    return int(PATTERN.fullmatch(path.name)[1])


def _remove(state: Path) -> None:
    """Under another name first, so that a run killed meanwhile leaves no half of a state behind."""
    doomed = state.with_name(f".{state.name}.old.part")
    shutil.rmtree(doomed, ignore_errors=True)
    os.replace(state, doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def _synchronise(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            sync_file(path)


def seeded(*numbers: int) -> torch.Generator:
    """A generator for one purpose: the same numbers give the same draws, on any machine and after any restart."""
    state = torch.Generator("cpu")
    mixed = 0
    for number in numbers:
        mixed = (mixed * 6364136223846793005 + number + 1442695040888963407) % (1 << 63)
    return state.manual_seed(mixed)
