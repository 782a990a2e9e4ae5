"""Runs the jobs of test_stage_2.py: streams each into its two files, reports, goes on after failures."""

import gc
import sys
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from musepose.inference.cases import Job, Plan
from musepose.inference.options import Settings
from musepose.media.image import read_image
from musepose.media.video_reader import read_frames
from musepose.media.video_writer import VideoWriter, even_size
from musepose.utils import launch
from musepose.utils.errors import UserError, is_out_of_memory
from musepose.utils.files import CompleteFiles
from musepose.utils.progress import progress_bar

WIDEST_REFERENCE = 4  # heights, in the comparison


@dataclass
class Summary:
    """What became of the jobs."""

    done: list[Job] = field(default_factory=list)
    skipped: list[Job] = field(default_factory=list)
    failed: list[Job] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{len(self.done)} done, {len(self.skipped)} skipped, {len(self.failed)} failed"


def waiting_jobs(plan: Plan) -> list[Job]:
    """Those that are not finished by an earlier run."""
    resumes = plan.settings.output is not None and not plan.settings.overwrite
    return [job for job in plan.jobs if not (resumes and job.finished)]


def run_plan(
    plan: Plan,
    load_pipeline: Callable[[Plan], Any],
    mine: Sequence[Job] | None = None,  # default: all that are not finished
    others: Sequence[Job] = (),  # that other processes do
    group: Any = None,  # utils.distributed.ProcessGroup whose processes work on every job together
) -> int:
    """Render what is not finished yet; the pipeline is loaded only for that. → exit status, 1 where a job failed.

    `load_pipeline` returns an object with the `stream` of Pose2VideoPipeline. What it raises goes up: without it no job
    can be done. What a job raises is reported in one line, and the next job starts; where several processes work on it
    it goes up, because the others wait in vain.
    """
    summary = Summary()
    pipeline = None
    first, writes = launch.rank() == 0, group is None or group.rank == 0
    mine = waiting_jobs(plan) if mine is None else mine
    for number, job in enumerate(plan.jobs, 1):
        counter = f"[{number}/{len(plan.jobs)}]"
        if job in others:
            continue
        if job not in mine:
            if first:
                print(f"{counter} {job.title}: finished before, skipped ({job.result})", flush=True)
                summary.skipped.append(job)
            continue
        if pipeline is None:
            pipeline = load_pipeline(plan)
            if group is not None:
                pipeline.group = group
        if writes:
            print(f"{counter} {job.title}: {job.frames} frames, {float(job.rate):g} a second", flush=True)
        try:
            render(job, plan.settings, pipeline, writes)
        except Exception as error:  # whatever one case meets, the others may be fine
            print(f"{counter} {job.title}: failed: {explain(error)}", file=sys.stderr, flush=True)
            if group is not None:
                told = f"{job.title} failed, and with it the run of all processes: with --output the next one goes on"
                raise UserError(told) from error
            summary.failed.append(job)
        else:
            if writes:
                print(f"{counter} {job.title}: {job.result}", flush=True)
            summary.done.append(job)
        release_memory()
    if writes:
        who = f"process {launch.rank()}: " if launch.processes() > 1 and group is None else ""
        print(f"{who}{summary}")
    return 1 if summary.failed else 0


def render(job: Job, settings: Settings, pipeline: Any, writes: bool = True) -> None:
    """Write a job's result and comparison, frame by frame, at the pose video's size (the next even one below).

    Without `writes`, only help to make the frames.
    """
    stride = settings.skip + 1
    with Bars({"denoising": settings.steps, "decoding": job.frames}, launch.rank() == 0) as bars:
        picture = read_image(job.reference)
        frames = pipeline.stream(
            picture,
            read_frames(job.pose.path, stride, job.frames),
            settings.sampling,
            num_frames=job.frames,
            progress=bars.update,
        )
        with closing(frames):  # the thread that decodes ends with it
            if writes:
                write_videos(job, picture, frames, read_frames(job.pose.path, stride, job.frames))
            else:
                deque(frames, maxlen=0)


def write_videos(job: Job, picture: Image.Image, frames: Iterable[np.ndarray], poses: Iterable[np.ndarray]) -> None:
    """The result from its frames, and the comparison of reference, poses and result; both appear together."""
    width, height = even_size(job.pose.width, job.pose.height)
    reference = reference_column(picture, height)
    with CompleteFiles() as files:
        common = {"rate": job.rate, "audio_from": job.audio, "files": files}
        with (
            VideoWriter(job.result, width, height, **common) as result,
            VideoWriter(job.comparison, reference.shape[1] + 2 * width, height, **common) as comparison,
        ):
            for pose, frame in zip(poses, frames, strict=True):
                frame = resize(frame, width, height)
                result.write(frame)
                comparison.write(np.hstack([reference, resize(pose, width, height), frame]))


def reference_column(picture: Image.Image, height: int) -> np.ndarray:
    """The picture at a given height, of even width: RGB uint8 (height, width, 3). A panorama is squeezed.

    An H.264 picture cannot be wider than 16384.
    """
    width = min(round(picture.width * height / picture.height), WIDEST_REFERENCE * height)
    size = even_size(width, height)
    return np.asarray(picture.resize(size, Image.Resampling.LANCZOS))


def resize(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    """Bilinear without antialiasing, as the published script resizes its videos (torch's `interpolate`)."""
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR)


class Bars:
    """A progress bar for each stage of the pipeline, one after the other; `stages`: name → how many steps it has."""

    def __init__(self, stages: Mapping[str, int], shown: bool = True) -> None:
        self._shown = shown
        self._waiting = list(stages.items())
        self._name = ""
        self._bar: tqdm | None = None

    def __enter__(self) -> "Bars":
        self._next()  # at once, so that the first step's time counts
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def update(self, stage: str, done: int, total: int) -> None:
        """The pipeline's `progress`: `done` of `total` steps of a stage are done."""
        while stage != self._name and self._waiting:
            self._next()
        self._bar.update(done - self._bar.n)
        if done == total and self._waiting:
            self._next()

    def _next(self) -> None:
        self.__exit__()
        self._name, total = self._waiting.pop(0)
        self._bar = progress_bar(total=total, desc=self._name, shown=self._shown)


def explain(error: Exception) -> str:
    """One line for what went wrong with a case, with a remedy where one is known."""
    text = " ".join(str(error).split()) or "no reason given"
    if isinstance(error, UserError):
        return text
    if is_out_of_memory(error):
        return f"out of memory ({text}): lower -W and -H, or -S, or take --vram low"
    return f"{type(error).__name__}: {text}"


def release_memory() -> None:
    """Give back what a case held, so that one too large for the device does not take the next ones down with it."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
