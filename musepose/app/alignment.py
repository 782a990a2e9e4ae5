"""Alignment for the page: a job of pose_align.py in a folder; its keypoints are kept, and aligned again at once."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from musepose.app.inputs import check_part
from musepose.app.jobs import BUILDING, Job, JobReporter
from musepose.app.options import Settings as Limits
from musepose.pose import job as pose_job
from musepose.pose.detectors.base import Detector
from musepose.pose.detectors.choice import check_detector_files
from musepose.pose.fitting import Fitted, fit_job, problems
from musepose.pose.keypoint_file import KeypointFile
from musepose.pose.limb_scale import format_limb_scale
from musepose.pose.options import Settings
from musepose.pose.runner import load_detector, run_job
from musepose.utils.errors import UserError
from musepose.utils.options import build

PUPPET_WEIGHTS, PUPPET_CONFIGS = "pretrained_weights/puppet/dwpose", "configs/puppet"
# Name on the page → label, flags of pose_align.py.
DETECTORS: Mapping[str, tuple[str, dict[str, str]]] = {
    "blazepose": ("BlazePose: people, fast", {"detector": "blazepose"}),
    "dwpose": ("DWPose: people, more exact", {"detector": "dwpose"}),
    "puppets": (
        "Puppets: the drawn figures of the example",
        {
            "detector": "dwpose",
            "yolox_config": f"{PUPPET_CONFIGS}/yolox.py",
            "dwpose_config": f"{PUPPET_CONFIGS}/dwpose.py",
            "yolox_ckpt": f"{PUPPET_WEIGHTS}/yolox.pth",
            "dwpose_ckpt": f"{PUPPET_WEIGHTS}/dwpose.pth",
        },
    ),
}
SMALLEST, LARGEST = 0.5, 2.0  # factors by hand, times the factor that was found
KEYPOINTS = "keypoints.npz"


@dataclass(frozen=True)
class Aligned:
    """The result of an alignment job."""

    job: pose_job.Job
    found: KeypointFile
    fitted: Fitted  # without factors by hand
    warnings: list[str]
    detected: tuple  # what the dance's keypoints depend on

    @property
    def scales(self) -> dict[str, float]:
        """Limb → factor that was found."""
        return self.fitted.alignment.scales

    @property
    def frames(self) -> range:
        """Frames of the dance that the pose video shows."""
        return range(self.fitted.start, self.job.frames)


def missing(detector: str) -> str:
    """Why a detector cannot be used; empty if it can."""
    try:
        check_detector_files(build(Settings, DETECTORS[detector][1]))
    except UserError as error:
        return str(error)
    return ""


def settings_of(folder: Path, picture: Path, dance: Path, detector: str, knobs: Mapping[str, Any]) -> Settings:
    """The settings of pose_align.py for a job's folder. Raises UserError: a knob's value is invalid."""
    if detector not in DETECTORS:
        raise UserError(f"detector is {detector}: choose from {', '.join(DETECTORS)}")
    outputs = {
        "outfn_align_pose_video": folder / "aligned" / f"{dance.stem}.mp4",
        "outfn": folder / "aligned" / f"{dance.stem}_demo.mp4",
        "preview": folder / "aligned" / f"{dance.stem}_preview.png",
        "save_keypoints": folder / KEYPOINTS,
    }
    fixed = {"imgfn_refer": picture, "vidfn": dance, "max_frame": 0, "limb_scale": "none", **outputs}
    fixed = {name: str(value) for name, value in fixed.items()}
    return build(Settings, {**knobs, **DETECTORS[detector][1], **fixed})


def load_alone(job: pose_job.Job) -> Detector:
    """The detector, while no other thread builds models."""
    with BUILDING:
        return load_detector(job)


def make_work(
    settings: Settings,
    limits: Limits,
    before: Aligned | None = None,  # of the same visitor
) -> Callable[[Job], Aligned]:
    """The work of an alignment job. Raises UserError: a file, or its part, cannot be used."""
    checked = pose_job.prepare(settings)
    check_part(checked.dance, checked.frames, limits)
    detected = (checked.video_source.sha256, checked.detector, settings.yolox_ckpt, settings.person)
    detected += (checked.first, checked.frames)
    if before is not None and before.detected == detected and before.job.settings.save_keypoints.is_file():
        # The file holds the keypoints of the person that was followed: there is nobody else to choose from.
        known = replace(settings, keypoints=before.job.settings.save_keypoints, person="largest")
        checked = pose_job.prepare(known)

    def work(job: Job) -> Aligned:
        result = run_job(checked, load_alone, JobReporter(job))
        return Aligned(checked, result.found, result.fitted, list(result.warnings), detected)

    return work


def by_hand(aligned: Aligned, multipliers: Mapping[str, float]) -> dict[str, float]:
    """Factors of --limb_scale, from multiples of those found. Raises UserError: a multiple is out of range."""
    for limb, times in multipliers.items():
        if limb not in aligned.scales or not SMALLEST <= times <= LARGEST:
            limbs = ", ".join(aligned.scales)
            raise UserError(f"{limb} × {times}: give {SMALLEST} to {LARGEST} for one of {limbs}")
    return {limb: aligned.scales[limb] * times for limb, times in multipliers.items() if times != 1}


def scaled_job(aligned: Aligned, multipliers: Mapping[str, float]) -> pose_job.Job:
    """The job with factors by hand."""
    return replace(aligned.job, limb_scale=by_hand(aligned, multipliers))


def align_again(aligned: Aligned, multipliers: Mapping[str, float]) -> tuple[Fitted, list[str]]:
    """The alignment with limbs scaled by hand, and its warnings; from the kept keypoints, in milliseconds."""
    job = scaled_job(aligned, multipliers)
    if not job.limb_scale:
        return aligned.fitted, aligned.warnings
    fitted = fit_job(job, aligned.found)
    return fitted, problems(job, fitted)


def redraw(aligned: Aligned, multipliers: Mapping[str, float], folder: Path, reporter: JobReporter) -> Path:
    """Draw the pose video with limbs scaled by hand into another folder. → its path."""
    settings = aligned.job.settings
    names = ("outfn_align_pose_video", "outfn", "preview", "save_keypoints")
    outputs = {name: folder / getattr(settings, name).relative_to(settings.save_keypoints.parent) for name in names}
    known = {"keypoints": settings.save_keypoints, "person": "largest"}
    scale = format_limb_scale(by_hand(aligned, multipliers))
    checked = pose_job.prepare(replace(settings, **outputs, **known, limb_scale=scale))
    run_job(checked, load_alone, reporter)
    return checked.aligned_path
