"""Keypoints over time: short gaps are filled, jitter is filtered, fast moves and cuts stay as they are.

The filter is Savitzky and Golay's (1964), a cubic through seven frames: no delay, unlike a One-Euro filter, made for
what must be shown at once. From that filter it has that a joint which moves fast is left alone (Casiez et al. 2012).
"""

from dataclasses import replace

import numpy as np

from musepose.pose.keypoint_file import Keypoints
from musepose.pose.types import BODY, VISIBLE_SCORE

WINDOW, ORDER = 7, 3
FAST = 1.5  # torso lengths a second at which a point stays half as it was
LONGEST_GAP = 5  # frames
CUT = 0.6  # of the body's size; a median joint that moves on by more between two frames, or is away, is another shot's


SEEN = 1.0  # score of a point that was interpolated
TORSO_IN_SHOULDERS = 1.65  # where hips cannot be seen
_SHOULDERS, _HIPS = [5, 6], [11, 12]  # COCO's


def smooth_keypoints(keypoints: Keypoints, aspect: float, rate: float) -> Keypoints:
    """A video's keypoints, its width / height being `aspect`, at `rate` frames a second, filled and smoothed."""
    points, visible = keypoints.points * np.array([aspect, 1]), keypoints.scores > VISIBLE_SCORE
    torso = torso_length(points, visible)
    if np.isnan(torso):
        return keypoints
    cuts = find_cuts(points[:, BODY], visible[:, BODY])
    smooth, filled = fill_and_smooth(points, visible, cuts, torso, rate)
    scores = np.where(filled & ~visible, SEEN, keypoints.scores)
    return replace(keypoints, points=smooth / (aspect, 1), scores=scores)


def torso_length(points: np.ndarray, visible: np.ndarray) -> float:
    """Its length, the median over the frames that show it; NaN where none shows shoulders."""
    shoulders = visible[:, _SHOULDERS].all(axis=1)
    whole = shoulders & visible[:, _HIPS].all(axis=1)
    if whole.any():
        middles = points[whole][:, _SHOULDERS].mean(axis=1) - points[whole][:, _HIPS].mean(axis=1)
        return float(np.median(np.linalg.norm(middles, axis=1)))
    if not shoulders.any():
        return np.nan
    widths = np.linalg.norm(points[shoulders][:, 5] - points[shoulders][:, 6], axis=1)
    return TORSO_IN_SHOULDERS * float(np.percentile(widths, 90))


def find_cuts(points: np.ndarray, visible: np.ndarray) -> list[int]:
    """The frames with which a new shot begins, of body joints (n, j, 2) in square units and their visibility (n, j).

    A shot ends where the median joint jumps, or where the person is away for longer than a gap that is filled.
    """
    cuts, last = [], None
    for frame in np.flatnonzero(visible.any(axis=1)):
        if last is not None:
            both = visible[frame] & visible[last]
            size = max(
                np.ptp(points[last][visible[last]], axis=0).max(), np.ptp(points[frame][visible[frame]], axis=0).max()
            )
            step = np.median(np.linalg.norm(points[frame] - points[last], axis=1)[both]) if both.any() else np.inf
            if step > CUT * size or frame - last - 1 > LONGEST_GAP:
                cuts.append(int(frame))
        last = frame
    return cuts


def fill_and_smooth(
    points: np.ndarray,  # (n, j, 2) in any unit
    visible: np.ndarray,  # (n, j) bool
    cuts: list[int],  # frames with which a new shot begins
    torso: float,  # its length in the same unit
    rate: float,  # frames a second
) -> tuple[np.ndarray, np.ndarray]:
    """The same, with gaps of up to 5 frames between visible ones interpolated and jitter filtered, within each shot.

    Where fewer than 7 frames are visible in a row they stay as they are. So do points that are not visible.
    """
    points, visible = points.astype(np.float64, copy=True), visible.copy()
    edges = [0, *cuts, len(points)]
    for start, end in zip(edges, edges[1:], strict=False):
        for joint in range(points.shape[1]):
            shot = points[start:end, joint]
            visible[start:end, joint] = _fill(shot, visible[start:end, joint])
            for first, last in _runs(visible[start:end, joint]):
                if last - first >= WINDOW:
                    shot[first:last] = _smooth(shot[first:last], torso / rate)
    return points, visible


def _smooth(path: np.ndarray, unit: float) -> np.ndarray:
    """A path (n, 2) filtered where it is slow; `unit` is a torso length a second, in its own units a frame."""
    from scipy.signal import savgol_filter  # here, as it takes half a second to import

    smooth = savgol_filter(path, WINDOW, ORDER, axis=0)
    speed = np.linalg.norm(savgol_filter(path, WINDOW, 1, deriv=1, axis=0), axis=1, keepdims=True) / unit
    return smooth + speed**2 / (speed**2 + FAST**2) * (path - smooth)


def _fill(points: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """Interpolate in place, and return what is visible now."""
    seen = np.flatnonzero(visible)
    filled = visible.copy()
    for before, after in zip(seen, seen[1:], strict=False):
        if 1 < after - before <= LONGEST_GAP + 1:
            share = (np.arange(before + 1, after) - before)[:, None] / (after - before)
            points[before + 1 : after] = points[before] + share * (points[after] - points[before])
            filled[before:after] = True
    return filled


def _runs(visible: np.ndarray) -> list[tuple[int, int]]:
    """[first, last) of each run of visible frames."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], visible.astype(int), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
