"""Runs the jobs of test_stage_2.py: streams each into its two files, reports, continues after failures."""

import gc
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from typing import Any

import cv2
import numpy as np
from PIL import Image

from musepose.inference.cases import Job, Plan
from musepose.inference.job_parts import remove_parts
from musepose.inference.options import Settings
from musepose.inference.record import read_record
from musepose.media.damage import describe_damage
from musepose.media.image import read_image
from musepose.media.video_reader import VideoFrames
from musepose.media.video_writer import VideoWriter, even_size
from musepose.pipelines.options import SamplingOptions
from musepose.utils import launch
from musepose.utils.errors import UserError, is_out_of_memory
from musepose.utils.files import CompleteFiles
from musepose.utils.prefetch import prefetch
from musepose.utils.reporter import CONSOLE, Reporter, Stages

MAX_ASPECT_RATIO = 4  # of the reference in the comparison video
POSES_AHEAD = 4  # frames that are decoded while others are encoded


@dataclass
class Summary:
    """Finished, skipped and failed jobs."""

    done: list[Job] = field(default_factory=list)
    skipped: list[Job] = field(default_factory=list)
    failed: list[Job] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{len(self.done)} done, {len(self.skipped)} skipped, {len(self.failed)} failed"


def pending_jobs(plan: Plan) -> list[Job]:
    """The jobs that no earlier run has finished."""
    resumes = plan.settings.output is not None and not plan.settings.overwrite
    return [job for job in plan.jobs if not (resumes and job.finished)]


def run_plan(
    plan: Plan,
    load_pipeline: Callable[[Plan], Any],
    mine: Sequence[Job] | None = None,  # this process's jobs; default: all pending ones
    others: Sequence[Job] = (),  # jobs of other processes
    group: Any = None,  # utils.distributed.ProcessGroup whose processes share every job
) -> int:
    """Render the pending jobs. → exit status, 1 if a job failed.

    `load_pipeline` returns a Pose2VideoPipeline or a stand-in; it is called only if there is a job, and its exceptions
    are not caught. An exception in a job is printed in one line, and the next job starts. With a `group` it is raised
    as UserError instead, because the other processes wait for this one.
    """
    summary = Summary()
    pipeline = None
    is_main, is_writer = launch.rank() == 0, group is None or group.rank == 0
    mine = pending_jobs(plan) if mine is None else mine
    for number, job in enumerate(plan.jobs, 1):
        counter = f"[{number}/{len(plan.jobs)}]"
        if job in others:
            continue
        if job not in mine:
            if is_main:
                doubt = "" if read_record(job.result) else "; it does not tell its settings"
                print(f"{counter} {job.title}: finished before, skipped ({job.result}){doubt}", flush=True)
                summary.skipped.append(job)
            continue
        if pipeline is None:
            pipeline = load_pipeline(plan)
            if group is not None:
                pipeline.group = group
        if is_writer:
            print(f"{counter} {job.title}: {job.frames} frames, {float(job.rate):g} a second", flush=True)
            for line in job.pose.notes:
                print(line, flush=True)
        try:
            if group is None:
                render(job, plan.settings, pipeline)
            else:
                from musepose.inference.shared_job import render_together

                render_together(job, plan, pipeline, group)
        except Exception as error:  # one failed case must not stop the others
            print(f"{counter} {job.title}: failed: {describe_error(error)}", file=sys.stderr, flush=True)
            if group is not None:
                reason = f"{job.title} failed, which ends all processes: run again with --output to continue"
                raise UserError(reason) from error
            summary.failed.append(job)
        else:
            if is_writer:
                print(f"{counter} {job.title}: {job.result}", flush=True)
                if job.damaged:
                    print(describe_damage(job.pose.path, job.damaged), flush=True)
            summary.done.append(job)
        release_memory()
    if is_writer:
        process = f"process {launch.rank()}: " if launch.world_size() > 1 and group is None else ""
        print(f"{process}{summary}")
    return 1 if summary.failed else 0


def render(
    job: Job,
    settings: Settings,
    pipeline: Any,
    reporter: Reporter = CONSOLE,
    **arguments: Any,  # of the pipeline, such as callback_on_step_end
) -> None:
    """Write a job's result and comparison, frame by frame, at the pose video's size, rounded down to even numbers.

    Raises what the pipeline, the writers and the reporter raise; then no file appears.
    """
    poses = VideoFrames(job.pose, settings.skip + 1, job.frames)
    reporter = reporter if launch.rank() == 0 else Reporter(bars=False)
    with Stages({"denoising": settings.steps, "decoding": job.frames}, reporter) as stages:
        picture = read_image(job.reference)
        arguments |= {"num_frames": job.frames, "progress": stages.update}
        frames = pipeline.stream(picture, poses, sampling_of(job, settings), **arguments)
        with closing(frames):  # ends the decoding thread
            write_videos(job, picture, frames, iter(poses))
    remove_parts(job)  # of an interrupted run of several processes


def sampling_of(job: Job, settings: Settings) -> SamplingOptions:
    """The sampling options of a job."""
    return replace(settings.sampling, width=job.size[0], height=job.size[1])


def write_videos(job: Job, picture: Image.Image, frames: Iterable[np.ndarray], poses: Iterable[np.ndarray]) -> None:
    """Write the result, and the comparison of reference, poses and result side by side; both appear together."""
    sizes = video_sizes(job, picture)
    (width, height), (total, _) = sizes
    reference = np.asarray(picture.resize((total - 2 * width, height), Image.Resampling.LANCZOS))
    with CompleteFiles() as files, closing(prefetch(poses, POSES_AHEAD)) as poses, ExitStack() as stack:
        result, comparison = (
            stack.enter_context(
                VideoWriter(path, *size, rate=job.rate, audio_from=job.audio, files=files, comment=job.record)
            )
            for path, size in zip((job.result, job.comparison), sizes, strict=True)
        )
        for pose, frame in zip(poses, frames, strict=True):
            frame = resize(frame, width, height)
            result.write(frame)
            comparison.write(np.hstack([reference, resize(pose, width, height), frame]))


def video_sizes(job: Job, picture: Image.Image) -> tuple[tuple[int, int], tuple[int, int]]:
    """Width and height of a job's result and comparison, whose first column is the picture at an even width.

    A panorama is squeezed to MAX_ASPECT_RATIO, as an H.264 picture cannot be wider than 16384.
    """
    width, height = even_size(job.pose.width, job.pose.height)
    column = min(round(picture.width * height / picture.height), MAX_ASPECT_RATIO * height)
    return (width, height), (even_size(column, height)[0] + 2 * width, height)


def resize(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    """Bilinear without antialiasing, as the published script resizes its videos (torch's `interpolate`)."""
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR)


def describe_error(error: Exception) -> str:
    """One line about an exception in a case, with a remedy if one is known."""
    text = " ".join(str(error).split()) or "no reason given"
    if isinstance(error, UserError):
        return text
    if is_out_of_memory(error):
        return f"out of memory ({text}): lower -W and -H, or -S, or take --vram low"
    return f"{type(error).__name__}: {text}"


def release_memory() -> None:
    """Free the memory of a case, so that the next one does not run out of memory too."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
