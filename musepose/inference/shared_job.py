"""Renders one job by several processes: they denoise together, each writes stretches of the videos, one joins them."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import Any

import numpy as np
from PIL import Image

from musepose.inference.cases import Job, Plan
from musepose.inference.job_parts import VIDEOS, JobParts, missing_stretches, remove_parts
from musepose.inference.runner import sampling_of, video_sizes, write_videos
from musepose.media.image import read_image
from musepose.media.segments import SegmentJoiner
from musepose.media.video_reader import VideoFrames
from musepose.utils.errors import UserError
from musepose.utils.files import CompleteFiles
from musepose.utils.reporter import Reporter, Stages


def render_together(job: Job, plan: Plan, pipeline: Any, group: Any) -> None:
    """Write a job's result and comparison. Every process of `group` calls this with the same arguments.

    Each process reads the poses of its own windows and stretches only. Finished work stays in hidden files beside the
    result until the job is complete: after an interruption the same command takes over the denoised latents and the
    finished stretches. Raises what `runner.render` raises.
    """
    parts, leads = JobParts(job), group.rank == 0
    finished = group.broadcast(_taken_over(job, parts, plan.settings.overwrite) if leads else None)
    mine = missing_stretches(job.frames, finished, group.count)[group.rank]
    own_frames = max(1, sum(map(len, mine)))
    poses = VideoFrames(job.pose, plan.settings.skip + 1, job.frames)
    picture = read_image(job.reference)
    with Stages({"denoising": plan.settings.steps, "decoding": own_frames}, Reporter(bars=leads)) as stages:
        latents_of = _denoise(job, plan, pipeline, group, parts, picture, poses, stages)
        done = 0
        for stretch in mine:
            with closing(pipeline.decode_stream(latents_of(stretch))) as frames:
                shown = _counted(frames, stages, done, own_frames)
                write_videos(parts.job_of(stretch), picture, shown, poses.read(stretch))
            done += len(stretch)
    group.barrier()
    if leads:
        _join(job, parts, picture)
    group.barrier()  # the result stands before any process starts the next job


def _taken_over(job: Job, parts: JobParts, overwrite: bool) -> list[range]:
    """The finished stretches of an interrupted run of the same job; parts of other settings are removed."""
    remove_parts(job) if overwrite else parts.remove_others()
    return parts.finished()


def _denoise(
    job: Job,
    plan: Plan,
    pipeline: Any,
    group: Any,
    parts: JobParts,
    picture: Image.Image,
    poses: VideoFrames,
    stages: Stages,
) -> Callable[[range], Any]:
    """→ what gives the latents f c h w of some frames: those of an interrupted run, or new ones, which are kept."""
    if group.broadcast(parts.has_latents() if group.rank == 0 else None):
        return parts.load_latents
    latents = pipeline.sample_latents(
        picture, poses, sampling_of(job, plan.settings), num_frames=job.frames, progress=stages.update
    )
    if group.rank == 0:
        parts.save_latents(latents)
    return lambda frames: latents[frames.start : frames.stop]


def _counted(frames: Iterable[np.ndarray], stages: Stages, before: int, total: int) -> Iterator[np.ndarray]:
    for number, frame in enumerate(frames, before + 1):
        yield frame
        stages.update("decoding", number, total)


def _join(job: Job, parts: JobParts, picture: Image.Image) -> None:
    """Join the stretches into the job's two videos, which appear together, and remove all parts."""
    stretches = parts.finished()
    if [frame for one in stretches for frame in one] != list(range(job.frames)):
        raise UserError(f"finished stretches of {job.result} are missing: start the same command again")
    with CompleteFiles() as files:
        for kind, size in zip(VIDEOS, video_sizes(job, picture), strict=True):
            segments = [getattr(parts.job_of(stretch), kind) for stretch in stretches]
            sound = {"rate": job.rate, "audio_from": job.audio, "files": files, "comment": job.record}
            with SegmentJoiner(getattr(job, kind), segments, *size, **sound) as joiner:
                joiner.copy()
    remove_parts(job)
