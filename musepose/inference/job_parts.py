"""Hidden files of an unfinished job that several processes share: denoised latents, finished stretches of video."""

import hashlib
import os
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from musepose.inference.cases import Job
from musepose.inference.record import pictures_digest
from musepose.media.segments import SEGMENT_FRAMES
from musepose.utils.errors import UserError
from musepose.utils.files import complete_file
from musepose.utils.saving import save_tensors

if TYPE_CHECKING:
    from torch import Tensor

VIDEOS = ("result", "comparison")  # fields of Job


@dataclass(frozen=True, kw_only=True)
class PartJob(Job):
    """A stretch of a job, whose comparison has a name of its own."""

    comparison_path: Path

    @property
    def comparison(self) -> Path:
        return self.comparison_path


class JobParts:
    """The parts of one job, beside its result. Their names hold a digest of everything that the pictures depend on.

    So a run with other settings, weights or inputs does not use them. A part appears only when it is complete.
    `job` has its record.
    """

    def __init__(self, job: Job) -> None:
        self._job, self._folder = job, job.result.parent
        self._own = f"{_prefix(job)}{pictures_digest(job.record)}-"

    @property
    def latents(self) -> Path:
        return self._folder / f"{self._own}latents.part"

    def job_of(self, frames: range) -> "PartJob":
        """The job that makes a stretch of the two videos, without sound."""
        name = f"{frames.start}-{frames.stop}.part"
        paths = [self._folder / f"{self._own}{kind}-{name}" for kind in VIDEOS]
        changes = {"audio": None, "record": "", "result": paths[0], "comparison_path": paths[1]}
        return PartJob(**(vars(self._job) | changes))

    def finished(self) -> list[range]:
        """The stretches of which both videos are complete, in order."""
        pattern = re.compile(re.escape(f"{self._own}result-") + r"(\d+)-(\d+)\.part")
        found = [pattern.fullmatch(path.name) for path in self._folder.glob(f"{self._own}*")]
        stretches = [range(int(match[1]), int(match[2])) for match in found if match]
        return sorted((one for one in stretches if self.job_of(one).finished), key=lambda one: one.start)

    def save_latents(self, latents: "Tensor") -> None:
        """Write f c h w. Raises UserError: it cannot be written."""
        with complete_file(self.latents) as partial:
            save_tensors({"latents": latents}, partial)

    def has_latents(self) -> bool:
        """Whether there are whole latents, by the file's header and length. Spoilt ones are removed."""
        try:
            self.load_latents(range(0))
        except UserError:
            self.latents.unlink(missing_ok=True)
            return False
        return True

    def load_latents(self, frames: range) -> "Tensor":
        """→ f c h w of consecutive frames on the CPU. Raises UserError: the latents are missing or spoilt."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.latents, "pt") as file:
                return file.get_slice("latents")[frames.start : frames.stop]
        except (OSError, SafetensorError) as error:
            raise UserError(f"{self.latents} cannot be read ({error}): delete it and start again") from error

    def remove_others(self) -> None:
        """Remove the parts of this job that were made with other settings."""
        for path in _parts_of(self._job):
            if not path.name.startswith(self._own):
                path.unlink(missing_ok=True)


def remove_parts(job: Job) -> None:
    """Remove all parts of a job."""
    for path in _parts_of(job):
        with suppress(OSError):
            path.unlink()


def _parts_of(job: Job) -> list[Path]:
    return list(job.result.parent.glob(f"{_prefix(job)}*.part"))


def _prefix(job: Job) -> str:
    return f".job-{hashlib.sha256(os.fsencode(job.result.name)).hexdigest()[:12]}-"


def missing_stretches(frames: int, finished: Iterable[range], count: int) -> list[list[range]]:
    """Divide the frames in no finished stretch over `count` processes: for each its stretches, in order.

    Every process gets about the same number of consecutive missing frames, in stretches of at most SEGMENT_FRAMES.
    """
    covered = {frame for one in finished for frame in one}
    missing = [frame for frame in range(frames) if frame not in covered]
    shares = []
    for rank in range(count):
        share = missing[len(missing) * rank // count : len(missing) * (rank + 1) // count]
        stretches: list[range] = []
        for frame in share:
            last = stretches[-1] if stretches else range(0)
            if stretches and last.stop == frame and len(last) < SEGMENT_FRAMES:
                stretches[-1] = range(last.start, frame + 1)
            else:
                stretches.append(range(frame, frame + 1))
        shares.append(stretches)
    return shares
