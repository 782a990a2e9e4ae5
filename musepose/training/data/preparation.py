"""Prepares a data set from a folder of videos: keypoints, pose videos, and the manifest that training reads."""

import hashlib
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path

from musepose.media.video_reader import VIDEO_SUFFIXES
from musepose.pose.detectors.base import Detector
from musepose.pose.detectors.choice import check_detector_files, chosen, detector_files, load_chosen
from musepose.pose.keypoint_file import Source
from musepose.training.data.manifest import PROGRESS_DELAY, save_manifest
from musepose.training.data.options import Settings
from musepose.training.data.video_preparation import Detection, Outcome, Task, finished, prepare_video
from musepose.utils.errors import UserError
from musepose.utils.files import check_writable, complete_file
from musepose.utils.paths import refuse_inputs
from musepose.utils.progress import progress_bar
from musepose.utils.workers import run_jobs

MAX_PRINTED = 20  # excluded videos that are printed; broken.json lists all


def load_detector(settings: Settings, worker: int) -> Detector:
    """The detector as the settings have it, on the worker's device."""
    if chosen(settings) == "dwpose":
        import torch

        torch.set_num_threads(max(1, torch.get_num_threads() // settings.workers))  # else each takes all cores
    devices = settings.device.split(",") if settings.device else [None]
    return load_chosen(settings, devices[worker % len(devices)], settings.detect_resolution)


Load = Callable[[Settings, int], Detector]


def plan(settings: Settings) -> list[Task]:
    """Check all input and list the videos to prepare. Writes nothing, imports no torch.

    Raises UserError: no videos, files that are missing, or an output folder that cannot be used.
    """
    videos = find_videos(settings.video_dir)
    if settings.output.resolve().is_relative_to(settings.video_dir.resolve()):
        raise UserError(f"--output {settings.output} lies in --video_dir, among the videos: choose another folder")
    for kind in ("poses", "keypoints", "records"):
        if (settings.output / kind).resolve().is_relative_to(settings.video_dir.resolve()):
            raise UserError(f"--video_dir {settings.video_dir} is the data set's own folder of {kind}: choose another")
    check_writable(settings.output / "meta.json")
    check_detector_files(settings)
    detection = Detection(_detector_digest(settings), settings.detect_resolution, chosen(settings))
    tasks = [_task(settings, detection, video) for video in videos]
    written = [path for task in tasks for path in (task.keypoints, task.poses, task.record)]
    written += [settings.output / name for name in ("meta.json", "broken.json")]
    refuse_inputs(written, [*videos, *detector_files(settings)])
    return tasks


def find_videos(folder: Path) -> list[Path]:
    """All videos in `folder`, searched recursively, sorted; hidden files and folders are skipped.

    Raises UserError: no such folder, no videos in it, or two videos that differ only in the suffix.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: give the folder of your videos with --video_dir")
    videos = []
    for place, folders, names in os.walk(folder, followlinks=False):
        folders[:] = sorted(name for name in folders if name[0] != ".")
        videos += [Path(place, name) for name in names if name[0] != "." and name.lower().endswith(VIDEO_SUFFIXES)]
    if not videos:
        raise UserError(f"{folder} has no {', '.join(VIDEO_SUFFIXES)} file: check the path")
    videos.sort()
    stems: dict[Path, Path] = {}
    for video in videos:
        other = stems.setdefault(video.with_suffix(""), video)
        if other is not video:
            raise UserError(f"{other} and {video.name} differ only in the suffix: rename one of them")
    return videos


def make_dataset(settings: Settings, tasks: list[Task], load: Load = load_detector) -> int:
    """Prepare the videos that `plan` returned. → exit status. With several workers `load` must be picklable.

    Raises UserError: a file cannot be written, the detector cannot be loaded, or no video can be used.
    """
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        found = threads.map(finished, tasks)
        shown = {"desc": "checking earlier videos", "unit": "video", "delay": PROGRESS_DELAY}
        outcomes = [outcome for outcome in progress_bar(found, total=len(tasks), **shown) if outcome is not None]
    done = {outcome.video for outcome in outcomes}
    todo = [task for task in tasks if task.video not in done]
    if done:
        print(f"{len(done)} of {len(tasks)} videos were done before", flush=True)
    jobs = run_jobs(partial(_worker, settings=settings, load=load), todo, min(settings.workers, max(1, len(todo))))
    outcomes += progress_bar(jobs, total=len(todo), unit="video", desc="preparing", shown=bool(todo))
    return _finish(settings.output, sorted(outcomes, key=lambda outcome: outcome.video))


def _finish(output: Path, outcomes: list[Outcome]) -> int:
    clips = [outcome.clip for outcome in outcomes if outcome.clip is not None]
    broken = [outcome for outcome in outcomes if outcome.clip is None]
    with complete_file(output / "broken.json") as partial_path:
        entries = [{"video_path": str(one.video), "reason": one.left_out} for one in broken]
        partial_path.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
    for one in broken[:MAX_PRINTED]:
        print(f"left out: {one.left_out}")
    if len(broken) > MAX_PRINTED:
        print(f"and {len(broken) - MAX_PRINTED} more")
    for line in (line for one in outcomes for line in one.notes):
        print(line)
    if not clips:
        raise UserError(f"none of the {len(broken)} videos can be used: see {output / 'broken.json'}")
    save_manifest(output / "meta.json", clips)
    frames = sum(clip.frames for clip in clips)
    print(f"{len(clips)} videos with {frames} frames, {len(broken)} left out\nwrote {output / 'meta.json'}", flush=True)
    return 0


def _worker(number: int, settings: Settings, load: Load) -> Callable[[Task], Outcome]:
    # The detector is loaded once, on first use: a run that only redraws needs none.
    return partial(prepare_video, load=cache(partial(load, settings, number)))


def _task(settings: Settings, detection: Detection, video: Path) -> Task:
    name = video.relative_to(settings.video_dir).with_suffix("")

    def output(kind: str, suffix: str) -> Path:
        path = settings.output / kind / name
        return path.with_name(path.name + suffix)  # not with_suffix: `take.2` would lose its .2

    return Task(
        video=video,
        keypoints=output("keypoints", ".npz"),
        poses=output("poses", ".mp4"),
        record=output("records", ".json"),
        detection=detection,
        draw_face=settings.draw_face,
    )


def _detector_digest(settings: Settings) -> str:
    files = detector_files(settings)
    return hashlib.sha256("".join(Source.of(file).sha256 for file in files).encode()).hexdigest()
