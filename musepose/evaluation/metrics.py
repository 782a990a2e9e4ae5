"""Metrics against ground truth: PSNR, SSIM, frame differences, joint distances. All computed in floating point."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from musepose.pose.types import NECK, Pose

MAX_PSNR = 100.0  # dB, the value for identical pictures, so that a mean over frames is finite
SSIM_WINDOW, SSIM_SIGMA = 11, 1.5  # pixels
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2  # for values from 0 to 1
HIPS = (8, 11)


def to_float(picture: np.ndarray) -> np.ndarray:
    """uint8 → float64 from 0 to 1. Differences of uint8 wrap around at 256, which overrates bad pictures."""
    return picture.astype(np.float64) / 255


def psnr(
    result: np.ndarray,  # (h, w, c) from 0 to 1
    truth: np.ndarray,
    weights: np.ndarray | None = None,  # (h, w), weight of each pixel; uniform by default
) -> float:
    """Peak signal-to-noise ratio in dB, at most MAX_PSNR."""
    errors = np.square(result - truth).mean(axis=-1)
    error = float(np.average(errors, weights=weights))
    return min(MAX_PSNR, -10 * float(np.log10(error))) if error > 0 else MAX_PSNR


def ssim(
    result: np.ndarray,  # (h, w, c) from 0 to 1, both sides at least SSIM_WINDOW
    truth: np.ndarray,
) -> float:
    """Mean structural similarity over pixels and channels (Wang et al. 2004): Gaussian window, no border pixels."""
    if min(truth.shape[:2]) < SSIM_WINDOW:
        raise ValueError(f"pictures of {truth.shape[1]} x {truth.shape[0]}: SSIM needs {SSIM_WINDOW} on each side")
    mean_x, mean_y = _blur(result), _blur(truth)
    variance_x = _blur(result * result) - mean_x * mean_x
    variance_y = _blur(truth * truth) - mean_y * mean_y
    covariance = _blur(result * truth) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + SSIM_C1) / (mean_x * mean_x + mean_y * mean_y + SSIM_C1)
    structure = (2 * covariance + SSIM_C2) / (variance_x + variance_y + SSIM_C2)
    return float((luminance * structure).mean())


def _blur(picture: np.ndarray) -> np.ndarray:
    """Gaussian means of the windows that lie entirely inside the picture."""
    border = SSIM_WINDOW // 2
    blurred = cv2.GaussianBlur(picture, (SSIM_WINDOW, SSIM_WINDOW), SSIM_SIGMA)
    return blurred[border:-border, border:-border]


@dataclass
class FrameDifferences:
    """Frame-to-frame differences of a result and of the ground truth, one entry per transition, in levels of 255."""

    result: list[float] = field(default_factory=list)  # mean |x[t+1] - x[t]| over pixels and channels
    truth: list[float] = field(default_factory=list)
    error: list[float] = field(default_factory=list)  # mean |difference of the result - difference of the ground truth|
    _last: tuple[np.ndarray, np.ndarray] | None = None

    def add(self, result: np.ndarray, truth: np.ndarray) -> None:
        """Add the next frame of both, (h, w, c) from 0 to 1."""
        if self._last is not None:
            change, true_change = result - self._last[0], truth - self._last[1]
            self.result.append(255 * float(np.abs(change).mean()))
            self.truth.append(255 * float(np.abs(true_change).mean()))
            self.error.append(255 * float(np.abs(change - true_change).mean()))
        self._last = result, truth

    @classmethod
    def of(cls, results: Sequence[np.ndarray], truths: Sequence[np.ndarray]) -> "FrameDifferences":
        """All transitions of a short video, uint8 frames."""
        changes = cls()
        for result, truth in zip(results, truths, strict=True):
            changes.add(to_float(result), to_float(truth))
        return changes


def joint_distances(
    pose: Pose | None,
    truth: Pose | None,
    aspect: float,  # width / height of the picture that the coordinates are fractions of
) -> np.ndarray:
    """Distances (18,) of the body joints from the ground truth, in lengths of its torso (neck to mid-hips).

    NaN if the ground truth lacks the joint or part of the torso; infinite if only `pose` lacks the joint.
    """
    distances = np.full(18, np.nan)
    if truth is None or not truth.body_visible[[NECK, *HIPS]].all():
        return distances
    stretch = np.array([aspect, 1.0])
    torso = np.linalg.norm((truth.body[NECK] - truth.body[[*HIPS]].mean(axis=0)) * stretch)
    if torso == 0:
        return distances
    distances[truth.body_visible] = np.inf
    if pose is not None:
        both = truth.body_visible & pose.body_visible
        distances[both] = np.linalg.norm((pose.body - truth.body)[both] * stretch, axis=1) / torso
    return distances


def mean_or_none(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if len(values) else None
