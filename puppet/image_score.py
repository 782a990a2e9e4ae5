"""The image stage on held-out puppets: what a model makes of one picture and the true poses, beside the true frames.

Character k is scene HELD_OUT + k: one character, its own dance and place. Its reference picture shows it at another
moment of that dance, at least a second away from the clip.
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

REFERENCE_UNTIL = 0.8  # seconds into a scene: the reference picture's moment lies before
MOMENT = 7  # a stream of random numbers of its own: when the reference picture is taken
FILMSTRIP_ROWS = 10
GRADIENT_SIZE = 192  # pixels a side that gradients are measured at, whatever size was rendered


@dataclass(frozen=True)
class Subject:
    """A scene as the model gets it, and what it should make of it."""

    reference: Image.Image  # RENDERED pixels a side
    poses: list[np.ndarray]  # uint8 RGB, as in an aligned pose video
    truths: list[np.ndarray]  # (size, size, 3) uint8 RGB
    masks: list[np.ndarray]  # (size, size) 0 to 1, how much of each pixel is the figure


def score_character(options: Options, k: int) -> dict[str, Any]:
    """All figures of character k, and a row of the filmstrip if it is one of the first."""
    has_motion = k < options.motion
    count = options.clip_frames
    subject = show(k, max(count, options.long_frames if has_motion else 0), options.size)
    other = show(k + 1, options.baseline_frames, options.size)
    pipeline, seed = load_pipeline(options, options.stage), HELD_OUT + k
    result = animate(pipeline, subject.reference, subject.poses[:count], options, seed)
    reference = to_size(np.asarray(subject.reference), options.size)
    short = options.baseline_frames
    stranger = animate(pipeline, other.reference, subject.poses[:short], options, seed)
    elsewhere = animate(pipeline, subject.reference, other.poses[:short], options, seed)
    autoencoded = [autoencode(pipeline, truth) for truth in subject.truths]
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
        record["filmstrip"] = [reference, pose, result[middle], subject.truths[middle]]
    return record


def show(k: int, frames: int, size: int) -> Subject:
    """Scene HELD_OUT + k: its reference picture and the first frames of its clip."""
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
    """The frames of an aligned pose video, as read back from its file: uint8 RGB (768, 768, 3)."""
    square = RENDERED, RENDERED
    with tempfile.TemporaryDirectory(prefix="musepose-") as folder:
        path = Path(folder) / "poses.mp4"
        with VideoWriter(path, *video_size(*square), RATE) as video:
            for pose in poses:
                video.write(draw_video_frame(pose, square, square))
        return list(read_frames(path))


def picture_figures(results: Sequence[np.ndarray], subject: Subject) -> dict[str, float]:
    """Means over the frames: PSNR, PSNR over the figure's own area, SSIM; and the gradient energy on the figure.

    That is relative to the truth's, both summed over the frames. Below 1 is blurred; above 1 has edges or noise that
    the truth does not have.
    """
    rows, energies = [], []
    for result, truth, mask in zip(results, subject.truths, subject.masks, strict=False):
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
    """Mean squared gradient inside the mask, at GRADIENT_SIZE pixels a side.

    The gradient is half the difference of the two neighbours, down and across; the mean is over the colours too.
    """
    square = GRADIENT_SIZE, GRADIENT_SIZE
    if picture.shape[:2] != square:
        picture, mask = (cv2.resize(array, square, interpolation=cv2.INTER_AREA) for array in (picture, mask))
    energy = sum(np.square(slope).mean(2) for slope in np.gradient(picture, axis=(0, 1)))
    return float((energy * mask).sum() / max(mask.sum(), 1e-9))


def motion_figures(
    results: Sequence[np.ndarray], subject: Subject, seams: np.ndarray | None = None
) -> dict[str, float | None]:
    """Means over the transitions, levels of 255; the error of the change at the seams (frames - 1,) and elsewhere."""
    changes = FrameDifferences.of(results, subject.truths[: len(results)])
    error = np.array(changes.error)
    figures = {"change": float(np.mean(changes.result)), "true_change": float(np.mean(changes.truth))}
    figures["error"] = float(error.mean())
    if seams is not None:
        figures |= {"seam_error": mean_or_none(error[seams]), "rest_error": mean_or_none(error[~seams])}
    return figures


def seam_transitions(frames: int, context_frames: int, context_overlap: int) -> np.ndarray:
    """Which of the frames - 1 transitions touch an overlap of windows, or lead from one window into the next."""
    covering = [
        {i for i, window in enumerate(context_windows(frames, context_frames, context_overlap)) if frame in window}
        for frame in range(frames)
    ]
    return np.array([a != b or len(a) > 1 for a, b in zip(covering, covering[1:], strict=False)])


def to_size(picture: np.ndarray, size: int) -> np.ndarray:
    """As the pipeline resizes its pictures: Lanczos on bytes."""
    return np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.LANCZOS))
