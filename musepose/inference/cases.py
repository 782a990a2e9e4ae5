"""Test cases of test_stage_2.py: YAML and settings → a checked list of jobs. Needs no torch."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

from musepose.inference.options import EXAMPLE, Inputs, Settings, merge_settings
from musepose.inference.record import check_results, with_records
from musepose.media.damage import damaged_frames
from musepose.media.image import IMAGE_SUFFIXES, read_image
from musepose.media.video_reader import VIDEO_SUFFIXES, VideoInfo, list_media, probe
from musepose.models.configs import check_configs
from musepose.pipelines.context_windows import padded_length
from musepose.utils.config_file import Config, read_config_file
from musepose.utils.errors import UserError
from musepose.utils.files import check_writable, project_file, require_file, write_error
from musepose.utils.options import build, check_keys, option_specs
from musepose.utils.paths import refuse_inputs

# Field of models.weights.WeightPaths → a file that its folder must contain.
REQUIRED_FILES = {"base_model": "unet/config.json", "vae": "config.json", "image_encoder": "config.json"}
# YAML key → that field and that file.
WEIGHT_KEYS = {
    one.key: (one.name, REQUIRED_FILES.get(one.name, "")) for one in option_specs(Inputs) if one.name != "test_cases"
}
SIZE_STEP = 64  # pixels: the UNet halves latents three times without a remainder


@dataclass(frozen=True)
class Job:
    """A reference picture and a pose video, and the videos to render from them."""

    reference: Path
    pose: VideoInfo
    frames: int  # of the result
    rate: Fraction  # of the result, frames a second
    audio: Path | None  # source of the sound
    result: Path
    size: tuple[int, int]  # width and height of the sampling
    damaged: tuple[int, ...] = ()  # frames of the pose video up to the last used one that show the one before
    record: str = ""  # all that the result depends on, for its metadata, see record.py

    @property
    def comparison(self) -> Path:
        """Reference | pose | result, side by side."""
        return self.result.with_name(f"{self.result.stem}_cmp.mp4")

    @property
    def finished(self) -> bool:
        return self.result.is_file() and self.comparison.is_file()

    @property
    def title(self) -> str:
        return f"{self.reference.name} + {self.pose.path.name}"


@dataclass(frozen=True)
class Plan:
    """Everything that a run needs: settings, weight files, jobs."""

    settings: Settings
    weights: dict[str, Path]  # by the fields of models.weights.WeightPaths
    jobs: tuple[Job, ...]

    @property
    def longest(self) -> tuple[int, int]:
        """Of all jobs: the most frames in a context window, and the most frames in total, padding included."""
        settings = self.settings
        lengths = [
            job.frames
            if settings.tail == "flush"
            else padded_length(job.frames, settings.context_frames, settings.context_overlap)
            for job in self.jobs
        ]
        return min(settings.context_frames, max(lengths)), max(lengths)

    @property
    def largest(self) -> tuple[int, int]:
        """Of all jobs: the largest sampling size, width and height."""
        return max((job.size for job in self.jobs), key=math.prod)


def make_plan(config_path: Path, flags: Mapping[str, Any], now: datetime, find_damage: bool = True) -> Plan:
    """Read and check all input without torch; create nothing.

    `flags` are the command line's settings by name; None means not given. Without `find_damage` the pose videos are not
    decoded, see `distributed_runner.find_damage`.
    Raises UserError: a setting, the YAML, a picture, a video, the output folder or a weight file is invalid, or the
    result of other settings or inputs has the name of a job's.
    """
    config = read_config(config_path)
    settings = merge_settings(flags, config.values, config_path)
    weights = vars(build(Inputs, config=config)).copy()
    cases = weights.pop("test_cases")
    jobs = make_jobs(cases, settings, result_folder(settings, weights, now), find_damage)
    for job in jobs:
        check_writable(job.result)
        check_writable(job.comparison)
    check_weight_files(weights)
    read = [config_path, *weights.values(), *(path for job in jobs for path in (job.reference, job.pose.path))]
    refuse_inputs([path for job in jobs for path in (job.result, job.comparison)], read)
    _refuse_pose_folders(cases, jobs[0].result.parent)
    jobs = with_records(jobs, settings, weights)
    if not settings.overwrite:
        check_results(jobs)
    return Plan(settings, weights, tuple(jobs))


def _refuse_pose_folders(cases: Mapping[str, list[str]], folder: Path) -> None:
    """Raises UserError: results would lie in a folder of pose videos, and the next run would take them for such."""
    for given in dict.fromkeys(entry for poses in cases.values() for entry in poses):
        if os.path.realpath(project_file(given)) == os.path.realpath(folder):
            raise UserError(
                f"--output {folder} is also a folder of pose videos: the next run would take the results for pose "
                "videos: choose another folder"
            )


def read_config(path: Path) -> Config:
    """Read the YAML. Raises UserError: unreadable, unknown keys, or malformed test cases."""
    config = read_config_file(path, EXAMPLE)
    check_keys(config, [Inputs, Settings])
    if config.values.get("test_cases") is not None:
        _check_cases(config.values["test_cases"], path)
    return config


def _check_cases(cases: Any, path: Path) -> None:
    example = "write `test_cases: {image.png: [pose.mp4]}`"
    if not isinstance(cases, dict):
        raise UserError(f"{path}: test_cases is {cases!r}, not pictures with their pose videos: {example}")
    if not cases:
        raise UserError(f"{path}: test_cases is empty: {example}")
    for image, poses in cases.items():
        if not isinstance(image, str):
            raise UserError(f"{path}: test_cases has the picture {image!r}, which is not a path: put it in quotes")
        if not isinstance(poses, list) or not poses or not all(isinstance(pose, str) and pose for pose in poses):
            raise UserError(f"{path}: test_cases has {poses!r} for {image}, not a list of pose videos: {example}")


def result_folder(settings: Settings, weights: Mapping[str, Path], now: datetime) -> Path:
    """--output, else the published ./output/video-<date>/<time>-<cfg>-<pose guider>-<motion module>."""
    if settings.output is not None:
        return settings.output
    name = f"{now:%H%M%S}-{settings.cfg}-{weights['pose_guider'].stem}-{weights['motion_module'].stem}"
    return Path("output", f"video-{now:%Y%m%d}", name)


def claim_folder(plan: Plan) -> Plan:
    """Create the run's own default folder; where another run of the same second has it, one of the next name.

    Raises UserError: it cannot be created.
    """
    if plan.settings.output is not None or not plan.jobs:
        return plan
    wanted = plan.jobs[0].result.parent
    for number in range(1, 1000):
        folder = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir()
        except FileExistsError:
            continue
        except OSError as error:
            raise write_error(folder, error) from error
        return replace(plan, jobs=tuple(replace(job, result=folder / job.result.name) for job in plan.jobs))
    raise UserError(f"{wanted} and 999 more folders exist: give another with --output")


def make_jobs(cases: Mapping[str, list[str]], settings: Settings, folder: Path, find_damage: bool) -> list[Job]:
    """Expand folders, check all pictures and videos. Raises UserError: one is broken, or two jobs share a result."""
    pairs = [
        (image, pose)
        for images, poses in cases.items()
        for image in list_media(project_file(images), IMAGE_SUFFIXES)
        for entry in poses
        for pose in list_media(project_file(entry), VIDEO_SUFFIXES)
    ]
    for image in dict.fromkeys(image for image, _ in pairs):
        read_image(image)
    infos = {pose: probe(pose) for pose in dict.fromkeys(pose for _, pose in pairs)}
    checked = infos if find_damage else {}
    damaged = {pose: tuple(damaged_frames(info, settings.length)) for pose, info in checked.items()}
    jobs: dict[str, Job] = {}
    for image, pose in pairs:
        job = replace(make_job(image, infos[pose], settings, folder), damaged=damaged.get(pose, ()))
        other = jobs.setdefault(os.path.normcase(job.result), job)
        if other is not job:
            raise UserError(
                f"{other.reference} + {other.pose.path} and {image} + {pose} would both write {job.result}: "
                "rename one, or remove it from test_cases"
            )
    return list(jobs.values())


def make_job(reference: Path, pose: VideoInfo, settings: Settings, folder: Path) -> Job:
    """A job by the published arithmetic: every (skip+1)-th of the first L frames, ⌊L / (skip+1)⌋; rate / (skip+1).

    A video that is too short for one frame gives its first frame. The sound is kept if it stays in sync: if --fps
    changes the tempo by at most one percent.
    """
    stride = settings.skip + 1
    natural = pose.rate / stride
    rate = settings.fps or natural
    in_step = abs(rate / natural - 1) <= Fraction(1, 100)
    scheduler = "" if settings.scheduler == "ddim" else f"_{settings.scheduler}"  # the published names are ddim's
    name = f"{reference.stem}_{pose.path.stem}_{settings.cfg}_{settings.steps}_{settings.skip}{scheduler}.mp4"
    frames = max(1, min(settings.length, pose.frames) // stride)
    return Job(
        reference=reference,
        pose=pose,
        frames=frames,
        rate=rate,
        audio=pose.path if pose.has_audio and in_step and not settings.no_audio else None,
        result=folder / name,
        size=sampling_size(settings, pose),
    )


def sampling_size(settings: Settings, pose: VideoInfo) -> tuple[int, int]:
    """Width and height: --width and --height, or with --size N about N x N pixels in the pose video's aspect ratio."""
    if settings.size is None:
        return settings.width, settings.height
    ratio = math.sqrt(pose.width / pose.height)
    return tuple(
        max(SIZE_STEP, round(side / SIZE_STEP) * SIZE_STEP) for side in (settings.size * ratio, settings.size / ratio)
    )


def check_weight_files(weights: Mapping[str, Path]) -> None:
    """Raises UserError: a weight file or model config is missing or empty, or a config is wrong, or they do not fit."""
    for field, file in WEIGHT_KEYS.values():
        hint = "restore it from the repository" if field == "inference_config" else ""
        require_file(weights[field] / file, hint)
    check_configs(*(weights[field] for field in ("base_model", "vae", "image_encoder", "inference_config")))
