"""The image stage on held-out puppets: generated from a reference and ground-truth poses, compared with ground truth.

Character k is scene HELD_OUT + k: a character, its dance and its background. Its reference image shows another moment
of that dance, at least a second before the clip.
"""

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from musepose.evaluation.metrics import FrameDifferences, mean_or_none, psnr, ssim, to_float
from musepose.media.video_reader import read_frames
from musepose.media.video_writer import VideoWriter
from musepose.pipelines.context_windows import context_windows
from musepose.pose.draw import draw_video_frame, video_size
from musepose.pose.types import Pose
from puppet.options import Options
from puppet.scenes import make_scene
from puppet.score_options import CLIP_START, RATE, RENDERED, animate, autoencode, load_pipeline, stages
from puppet.world import HELD_OUT

REFERENCE_UNTIL = 0.8  # seconds into a scene: the latest moment of the reference image
MOMENT = 7  # RNG stream of the reference image's moment
FILMSTRIP_ROWS = 10
GRADIENT_SIZE = 192  # pixels, width and height at which gradients are measured, for any rendered size


@dataclass(frozen=True)
class Subject:
    """A scene: the model's inputs, and the ground truth."""

    reference: Image.Image  # RENDERED x RENDERED pixels
    poses: list[np.ndarray]  # uint8 RGB, as in an aligned pose video
    ground_truth: list[np.ndarray]  # (size, size, 3) uint8 RGB
    masks: list[np.ndarray]  # (size, size) 0 to 1, the figure's coverage of each pixel


def score_character(options: Options, k: int) -> dict[str, Any]:
    """All metrics of character k, and its row of the filmstrip if k < FILMSTRIP_ROWS."""
    has_motion = k < options.motion
    count = options.clip_frames
    subject = make_subject(k, max(count, options.long_frames if has_motion else 0), options.size)
    other = make_subject(k + 1, options.baseline_frames, options.size)
    pipeline, seed = load_pipeline(options, options.stage), HELD_OUT + k
    result = animate(pipeline, subject.reference, subject.poses[:count], options, seed)
    reference = to_size(np.asarray(subject.reference), options.size)
    short = options.baseline_frames
    stranger = animate(pipeline, other.reference, subject.poses[:short], options, seed)
    elsewhere = animate(pipeline, subject.reference, other.poses[:short], options, seed)
    autoencoded = [autoencode(pipeline, truth) for truth in subject.ground_truth]
    record = {
        "kind": "character",
        "number": k,
        "image": {
            "vae": picture_figures(autoencoded[:count], subject),
            "model": picture_figures(result, subject),
            "reference": picture_figures([reference] * count, subject),
            "model_short": picture_figures(result[:short], subject),
            "other_reference": picture_figures(stranger, subject),
            "other_poses": picture_figures(elsewhere, subject),
        },
    }
    if has_motion:
        clips = {f"stage_{options.stage}": result, "vae": autoencoded[:count]}
        long_clips = {"vae": autoencoded[: options.long_frames]}
        for stage in stages(options):
            model = load_pipeline(options, stage)
            if stage != options.stage:
                clips[f"stage_{stage}"] = animate(model, subject.reference, subject.poses[:count], options, seed)
            poses = subject.poses[: options.long_frames]
            long_clips[f"stage_{stage}"] = animate(model, subject.reference, poses, options, seed, long=True)
        seams = seam_transitions(options.long_frames, options.context_frames, options.context_overlap)
        record["one_window"] = {name: motion_figures(clip, subject) for name, clip in clips.items()}
        record["three_windows"] = {name: motion_figures(clip, subject, seams) for name, clip in long_clips.items()}
    if k < FILMSTRIP_ROWS:
        middle = count // 2
        pose = to_size(subject.poses[middle], options.size)
        record["filmstrip"] = [reference, pose, result[middle], subject.ground_truth[middle]]
    return record


def make_subject(k: int, frames: int, size: int) -> Subject:
    """Scene HELD_OUT + k: its reference image and the first frames of its clip."""
    scene = make_scene(HELD_OUT + k, RENDERED)
    moment = np.random.default_rng([MOMENT, HELD_OUT + k]).uniform(0, REFERENCE_UNTIL)
    pictures = scene.at_all(CLIP_START + frame / RATE for frame in range(frames))
    people = [picture.people[0] for picture in pictures]
    return Subject(
        Image.fromarray(scene.at(moment).image),
        pose_video([person.pose for person in people]),
        [to_size(picture.image, size) for picture in pictures],
        [to_float(to_size(person.mask, size)) for person in people],
    )


def pose_video(poses: Iterable[Pose]) -> list[np.ndarray]:
    """Frames of an aligned pose video, encoded and decoded: uint8 RGB (768, 768, 3)."""
    square = RENDERED, RENDERED
    with tempfile.TemporaryDirectory(prefix="musepose-") as folder:
        path = Path(folder) / "poses.mp4"
        with VideoWriter(path, *video_size(*square), RATE) as video:
            for pose in poses:
                video.write(draw_video_frame(pose, square, square))
        return list(read_frames(path))


def picture_figures(results: Sequence[np.ndarray], subject: Subject) -> dict[str, float]:
    """Means over the frames: PSNR, PSNR on the figure, SSIM; and the relative gradient energy on the figure.

    The latter is the ratio to the ground truth's, both summed over the frames: below 1 is blurred, above 1 has
    additional edges or noise.
    """
    rows, energies = [], []
    for result, truth, mask in zip(results, subject.ground_truth, subject.masks, strict=False):
        x, y = to_float(result), to_float(truth)
        rows.append((psnr(x, y), psnr(x, y, mask), ssim(x, y)))
        energies.append([gradient_energy(picture, mask) for picture in (x, y)])
    figures = dict(zip(("psnr", "figure", "ssim"), np.mean(rows, axis=0).tolist(), strict=True))
    ours, true = np.sum(energies, axis=0).tolist()
    return figures | {"gradient_energy": ours / true}


def gradient_energy(
    picture: np.ndarray,  # (h, w, 3) from 0 to 1
    mask: np.ndarray,  # (h, w) from 0 to 1
) -> float:
    """Mean squared gradient inside the mask, over channels too, at GRADIENT_SIZE x GRADIENT_SIZE pixels.

    The gradient is the central difference, half that of the two neighbours, vertical and horizontal.
    """
    square = GRADIENT_SIZE, GRADIENT_SIZE
    if picture.shape[:2] != square:
        picture, mask = (cv2.resize(array, square, interpolation=cv2.INTER_AREA) for array in (picture, mask))
    energy = sum(np.square(slope).mean(2) for slope in np.gradient(picture, axis=(0, 1)))
    return float((energy * mask).sum() / max(mask.sum(), 1e-9))


def motion_figures(
    results: Sequence[np.ndarray], subject: Subject, seams: np.ndarray | None = None
) -> dict[str, float | None]:
    """Means over frame transitions, in levels of 255; errors of the change at `seams` (frames - 1,) and elsewhere."""
    changes = FrameDifferences.of(results, subject.ground_truth[: len(results)])
    error = np.array(changes.error)
    figures = {"change": float(np.mean(changes.result)), "true_change": float(np.mean(changes.truth))}
    figures["error"] = float(error.mean())
    if seams is not None:
        figures |= {"seam_error": mean_or_none(error[seams]), "rest_error": mean_or_none(error[~seams])}
    return figures


def seam_transitions(frames: int, context_frames: int, context_overlap: int) -> np.ndarray:
    """(frames - 1,) bool: transitions that touch an overlap of context windows, or lead from one window to the next."""
    covering = [
        {i for i, window in enumerate(context_windows(frames, context_frames, context_overlap)) if frame in window}
        for frame in range(frames)
    ]
    return np.array([a != b or len(a) > 1 for a, b in zip(covering, covering[1:], strict=False)])


def to_size(picture: np.ndarray, size: int) -> np.ndarray:
    """Resize as the pipeline does: Lanczos on uint8."""
    return np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.LANCZOS))
