"""Test cases of test_stage_2.py: YAML and settings → a checked list of jobs. Needs no torch."""

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from musepose.inference.options import SETTINGS, Settings, merge_settings
from musepose.media.image import IMAGE_SUFFIXES, read_image
from musepose.media.video_reader import VIDEO_SUFFIXES, VideoInfo, list_media, probe
from musepose.pipelines.context_windows import padded_length
from musepose.utils.errors import UserError
from musepose.utils.files import DOWNLOAD_HINT, check_writable, require_file

# Key in the YAML → field of models.weights.WeightPaths, and the file under it whose absence can be told at once.
WEIGHT_KEYS = {
    "pretrained_base_model_path": ("base_model", "unet/config.json"),
    "pretrained_vae_path": ("vae", "config.json"),
    "image_encoder_path": ("image_encoder", "config.json"),
    "denoising_unet_path": ("denoising_unet", ""),
    "reference_unet_path": ("reference_unet", ""),
    "pose_guider_path": ("pose_guider", ""),
    "motion_module_path": ("motion_module", ""),
    "inference_config": ("inference_config", ""),
}


@dataclass(frozen=True)
class Job:
    """One picture and one pose video, and what becomes of them."""

    reference: Path
    pose: VideoInfo
    frames: int  # of the result
    rate: Fraction  # of the result, frames a second
    audio: Path | None  # where the sound comes from
    result: Path

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
    """All that a run needs to know."""

    settings: Settings
    weights: dict[str, Path]  # by the fields of models.weights.WeightPaths
    jobs: tuple[Job, ...]

    @property
    def longest(self) -> tuple[int, int]:
        """Most frames that any job denoises together, and in all."""
        settings = self.settings
        lengths = [
            job.frames
            if settings.tail == "flush"
            else padded_length(job.frames, settings.context_frames, settings.context_overlap)
            for job in self.jobs
        ]
        return min(settings.context_frames, max(lengths)), max(lengths)


def make_plan(config_path: Path, flags: Mapping[str, Any], now: datetime) -> Plan:
    """Read and check everything that can be checked without torch; create nothing.

    `flags` holds the settings given on the command line by name, None where one was not given.
    Raises UserError: a setting, the YAML, a picture, a video, the output folder or a weight file is not as it must be.
    """
    config = read_config(config_path)
    settings = merge_settings(flags, config, config_path)
    weights = {field: Path(config[key]) for key, (field, _) in WEIGHT_KEYS.items()}
    jobs = make_jobs(config["test_cases"], settings, result_folder(settings, weights, now))
    for job in jobs:
        check_writable(job.result)
        check_writable(job.comparison)
    check_present(weights)
    return Plan(settings, weights, tuple(jobs))


def read_config(path: Path) -> dict[str, Any]:
    """Read the YAML. Raises UserError: unreadable, unknown or missing keys, values of the wrong kind."""
    if not path.is_file():
        raise UserError(f"{path} is missing: give the test cases with --config FILE.yaml")
    try:
        config = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except Exception as error:  # OmegaConf passes on whatever its YAML reader raises
        raise UserError(f"{path} cannot be read as YAML ({error}): mend it") from error
    if not isinstance(config, dict):
        raise UserError(f"{path} holds no `key: value` pairs: compare it with configs/test_stage_2.yaml")
    known = [*WEIGHT_KEYS, "test_cases", *(setting.key or setting.name for setting in SETTINGS)]
    for key in config:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, 1)
            raise UserError(f"{path}: unknown key {key}: " + (f"is it {close[0]}?" if close else "remove it"))
    for key in (*WEIGHT_KEYS, "test_cases"):
        if key not in config:
            raise UserError(f"{path}: the key {key} is missing: compare it with configs/test_stage_2.yaml")
    for key in WEIGHT_KEYS:
        if not isinstance(config[key], str) or not config[key]:
            raise UserError(f"{path}: {key} is {config[key]!r}: give a path")
    _check_cases(config["test_cases"], path)
    return config


def _check_cases(cases: Any, path: Path) -> None:
    example = "write `test_cases: {image.png: [pose.mp4]}`"
    if not isinstance(cases, dict):
        raise UserError(f"{path}: test_cases is {cases!r}, not pictures with their pose videos: {example}")
    if not cases:
        raise UserError(f"{path}: test_cases is empty: {example}")
    for image, poses in cases.items():
        if not isinstance(image, str):
            raise UserError(f"{path}: test_cases has the picture {image!r}, which is no path: put it in quotes")
        if not isinstance(poses, list) or not poses or not all(isinstance(pose, str) and pose for pose in poses):
            raise UserError(f"{path}: test_cases has {poses!r} for {image}, not a list of pose videos: {example}")


def result_folder(settings: Settings, weights: Mapping[str, Path], now: datetime) -> Path:
    """--output, else the published ./output/video-<date>/<time>-<cfg>-<pose guider>-<motion module>."""
    if settings.output is not None:
        return Path(settings.output)
    name = f"{now:%H%M%S}-{settings.cfg}-{weights['pose_guider'].stem}-{weights['motion_module'].stem}"
    return Path("output", f"video-{now:%Y%m%d}", name)


def make_jobs(cases: Mapping[str, list[str]], settings: Settings, folder: Path) -> list[Job]:
    """Unfold folders, look into every picture and video. Raises UserError: one is no good, or two jobs share a file."""
    pairs = [
        (image, pose)
        for images, poses in cases.items()
        for image in list_media(images, IMAGE_SUFFIXES)
        for entry in poses
        for pose in list_media(entry, VIDEO_SUFFIXES)
    ]
    for image in dict.fromkeys(image for image, _ in pairs):
        read_image(image)
    infos = {pose: probe(pose) for pose in dict.fromkeys(pose for _, pose in pairs)}
    jobs: dict[str, Job] = {}
    for image, pose in pairs:
        job = make_job(image, infos[pose], settings, folder)
        other = jobs.setdefault(os.path.normcase(job.result), job)
        if other is not job:
            raise UserError(
                f"{other.reference} + {other.pose.path} and {image} + {pose} would both write {job.result}: "
                "rename one, or remove it from test_cases"
            )
    return list(jobs.values())


def make_job(reference: Path, pose: VideoInfo, settings: Settings, folder: Path) -> Job:
    """The published arithmetic: of the first L frames every (skip+1)-th, ⌊L / (skip+1)⌋ of them; rate / (skip+1).

    A video too short for even one is used by its first frame. The sound goes along where it keeps in step with the
    frames: not with an --fps that changes the tempo by more than a percent.
    """
    stride = settings.skip + 1
    natural = pose.rate / stride
    rate = settings.fps or natural
    in_step = abs(rate / natural - 1) <= Fraction(1, 100)
    name = f"{reference.stem}_{pose.path.stem}_{settings.cfg}_{settings.steps}_{settings.skip}.mp4"
    return Job(
        reference=reference,
        pose=pose,
        frames=max(1, min(settings.length, pose.frames) // stride),
        rate=rate,
        audio=pose.path if pose.has_audio and in_step and not settings.no_audio else None,
        result=folder / name,
    )


def check_present(weights: Mapping[str, Path]) -> None:
    """Raises UserError: a weight file or model config is not there, or empty."""
    for field, file in WEIGHT_KEYS.values():
        hint = "restore it from the repository" if field == "inference_config" else DOWNLOAD_HINT
        require_file(weights[field] / file, hint)
