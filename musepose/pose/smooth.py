"""Keypoints over time: short gaps are filled, jitter is filtered, cuts stay cuts.

The filter is Savitzky and Golay's (1964): a cubic through seven frames. It has no delay and keeps a fast move's height,
which a One-Euro filter, made for what must be shown at once, does not.
"""

import numpy as np
from scipy.signal import savgol_filter

WINDOW, ORDER = 7, 3
LONGEST_GAP = 5  # frames
CUT = 0.6  # of the body's size; a median joint that moves on by more between two frames, or is away, is another shot's


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
    window: int = WINDOW,
) -> tuple[np.ndarray, np.ndarray]:
    """The same, with gaps of up to 5 frames between visible ones interpolated and jitter filtered, within each shot.

    Where fewer frames than `window` are visible in a row they stay as they are. So do points that are not visible.
    """
    points, visible = points.astype(np.float64, copy=True), visible.copy()
    edges = [0, *cuts, len(points)]
    for start, end in zip(edges, edges[1:], strict=False):
        for joint in range(points.shape[1]):
            shot = points[start:end, joint]
            visible[start:end, joint] = _fill(shot, visible[start:end, joint])
            for first, last in _runs(visible[start:end, joint]):
                if last - first >= window:
                    shot[first:last] = savgol_filter(shot[first:last], window, ORDER, axis=0)
    return points, visible


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
