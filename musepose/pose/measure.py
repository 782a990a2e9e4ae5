"""What keypoints of a picture and of a dance say about limb lengths: lengths over time, how frontal a figure stands.

All lengths are base-2 logarithms of picture heights: 0.14 is a tenth longer. Not visible is NaN.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from musepose.pose.align import SEGMENTS as BODY_SEGMENTS
from musepose.pose.align import SHORTEST
from musepose.pose.types import NECK, NOSE, Pose

# The alignment's segments, and the hips; paired limbs have a row for each side.
_TRUNK = [limb for limb, _, _ in BODY_SEGMENTS].index("trunk")
SEGMENTS = (*BODY_SEGMENTS[: _TRUNK + 1], ("hips", (8,), (11,)), *BODY_SEGMENTS[_TRUNK + 1 :])
LIMBS = tuple(dict.fromkeys(limb for limb, _, _ in SEGMENTS))
ROWS = {limb: [row for row, (name, _, _) in enumerate(SEGMENTS) if name == limb] for limb in LIMBS}
LIMB_OF_ROW = np.array([LIMBS.index(limb) for limb, _, _ in SEGMENTS])

# How much each limb says about a figure's size: long and seldom foreshortened ones more.
SIZE_WEIGHTS = np.array(
    [{"trunk": 3, "upper legs": 2, "lower legs": 2, "shoulders": 2, "face": 0.5}.get(limb, 1) for limb in LIMBS]
)
_ROUNDS = 5  # of sizes from lengths and lengths from sizes
TYPICAL = 90  # percentile of a limb's lengths over a video: near its true length, but not a single frame's error

_SHOULDERS, _HIPS, _EARS, _EYES = (2, 5), (8, 11), (16, 17), (14, 15)
_POSTURE = (
    (2, 3),
    (3, 4),
    (5, 6),
    (6, 7),
    (8, 9),
    (9, 10),
    (11, 12),
    (12, 13),
    (2, 5),
)  # directions that tell postures
_MIRRORED = (0, 1, 5, 6, 7, 2, 3, 4, 11, 12, 13, 8, 9, 10, 15, 14, 17, 16)  # which joint each becomes in a mirror
_MIRRORED_ROWS = (0, 1, 2, 4, 3, 6, 5, 7, 8, 10, 9, 12, 11)
_LIKE = 0.12  # root mean square difference of unit directions at which a posture counts as another one

# What differs by so much from a figure that stands upright and frontal, with arms and legs alike, tells of another one.
_NOSE_OFF_EARS = 0.12  # of the distance between the ears
_NOSE_OFF_NECK = 0.05  # of the trunk
_TRUNK_TILT, _SHOULDER_TILT = 4.0, 5.0  # degrees
_LEGS_APART, _ARMS_APART = 0.12, 0.25  # log2 of one side's length over the other's
_SHALLOW, _SHORTEST_SEEN = 0.15, 0.3  # foreshortening by depth: log2 from which it counts, and the most it can be
_DEEP_LIMBS = ("shoulders", "hips", "upper legs", "lower legs")

_UNKNOWN = 1.5  # what cannot be seen counts as this many of the above
_TRUNK_IN_SHOULDERS = 1.65


@dataclass(frozen=True)
class Dance:
    """The measures of a dance's frames."""

    points: np.ndarray  # (n, 18, 2) picture heights
    lengths: np.ndarray  # (n, 13) of SEGMENTS
    typical: np.ndarray  # (9,) of LIMBS, over the video
    sizes: np.ndarray  # (n,) of the dancer in each frame, relative to `typical`; it falls as she moves away


def body_points(poses: Sequence[Pose], aspect: float) -> np.ndarray:
    """Body joints (n, 18, 2) in picture heights, of poses normalised to a picture of this width / height."""
    points = np.array([pose.body for pose in poses], np.float64).reshape(-1, 18, 2) * (aspect, 1)
    points[~np.array([pose.body_visible for pose in poses], bool).reshape(-1, 18)] = np.nan
    return points


def segment_lengths(points: np.ndarray) -> np.ndarray:
    """Lengths (..., 13) of SEGMENTS between joints (..., 18, 2)."""
    offsets = [points[..., list(a), :].mean(axis=-2) - points[..., list(b), :].mean(axis=-2) for _, a, b in SEGMENTS]
    lengths = np.linalg.norm(np.stack(offsets, axis=-2), axis=-1)
    return np.log2(np.where(lengths < SHORTEST, np.nan, lengths))


def longer_sides(lengths: np.ndarray) -> np.ndarray:
    """(..., 13) to (..., 9): of each limb the longer side, as foreshortening only shortens."""
    sides = [lengths[..., rows] for rows in ROWS.values()]
    return np.stack([np.fmax.reduce(side, axis=-1) for side in sides], axis=-1)


def measure_dance(points: np.ndarray) -> Dance:
    """Measure the joints (n, 18, 2) of a dance.

    Legs that leave the picture when the dancer comes near are seen only when she is far. So each limb's typical length
    is brought to the sizes of all frames from those of the frames that show it.
    """
    lengths = segment_lengths(points)
    longer = longer_sides(lengths)
    measured = np.array([_percentile(lengths[:, rows], TYPICAL) for rows in ROWS.values()])
    typical = measured
    for _ in range(_ROUNDS):
        sizes = np.array([weighted_median(frame, SIZE_WEIGHTS) for frame in longer - typical])
        shown = [_percentile(sizes[seen], TYPICAL) for seen in ~np.isnan(longer.T)]
        typical = measured + _percentile(sizes, TYPICAL) - shown
    return Dance(points, lengths, typical, sizes)


def frontality(points: np.ndarray, lengths: np.ndarray) -> float:
    """How sure it is that a figure, joints (18, 2), faces the camera upright, arms and legs alike: 0 to 1, Gaussian.

    The symmetry and uprightness by which One-to-All (2025) chooses frames, as a weight instead of a threshold.
    """
    signs = [
        _head_turn(points) / _NOSE_OFF_EARS,
        _nose_off_neck(points) / _NOSE_OFF_NECK,
        tilt(points[NECK], points[list(_HIPS)].mean(axis=0), axis=1) / _TRUNK_TILT,
        tilt(points[2], points[5], axis=0) / _SHOULDER_TILT,
        sides_apart(lengths, "upper legs", "lower legs") / _LEGS_APART,
        sides_apart(lengths, "upper arms", "lower arms") / _ARMS_APART,
    ]
    return float(np.exp(-sum((_UNKNOWN if np.isnan(sign) else min(sign, 10)) ** 2 for sign in signs) / 2))


def foreshortenings(world: np.ndarray) -> np.ndarray:
    """(13,) log2 of how much shorter the segments between joints (18, 3) look along the third axis; 0 where unknown.

    Of shoulders, hips and legs only, and only where it is much: small angles, arms and the head gain nothing by a
    detector's depth.
    """
    offsets = np.stack([world[list(a)].mean(axis=0) - world[list(b)].mean(axis=0) for _, a, b in SEGMENTS])
    flat, full = (np.linalg.norm(part, axis=1) for part in (offsets[:, :2], offsets))
    short = -np.log2(np.maximum(flat / np.maximum(full, SHORTEST), _SHORTEST_SEEN))
    deep = np.array([limb in _DEEP_LIMBS for limb, _, _ in SEGMENTS])
    return np.where(deep & (short > _SHALLOW), short, 0)


def like_postures(points: np.ndarray, dance: Dance) -> np.ndarray:
    """(13,) how much longer the segments are than typical where the dancer stands as the figure, joints (18, 2), does.

    Raised arms lift the shoulders, and with them the neck's end of trunk and neck. Mirrored frames count too. The fewer
    frames are alike, the nearer to 0.
    """
    relative = dance.lengths - dance.typical[LIMB_OF_ROW] - dance.sizes[:, None]
    frames = np.concatenate([dance.points, dance.points[:, _MIRRORED] * (-1, 1)])
    relative = np.concatenate([relative, relative[:, _MIRRORED_ROWS]])
    apart = posture_apart(points, frames)
    alike = np.where(np.isnan(apart), 0, np.exp(-apart / (2 * _LIKE**2)))[:, None]
    seen = ~np.isnan(relative)
    return (alike * np.where(seen, relative, 0)).sum(axis=0) / ((alike * seen).sum(axis=0) + 1)


def posture_apart(points: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """(n,) mean square difference of the limbs' unit directions, 0 to 4, of joints (18, 2) from those (n, 18, 2).

    NaN where no limb is visible in both.
    """
    return _mean(((_directions(frames) - _directions(points)) ** 2).sum(axis=-1))


def weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    """The median of the values that are not NaN, with linear interpolation; NaN where there is none."""
    seen = ~np.isnan(values)
    if not seen.any():
        return np.nan
    order = np.argsort(values[seen])
    values, weights = values[seen][order], weights[seen][order]
    return float(np.interp(0.5, (np.cumsum(weights) - weights / 2) / weights.sum(), values))


def _percentile(values: np.ndarray, percentile: float) -> float:
    seen = values[~np.isnan(values)]
    return float(np.percentile(seen, percentile)) if len(seen) else np.nan


def _mean(values: np.ndarray) -> np.ndarray:
    """Over the last axis, of what is not NaN; NaN where nothing is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanmean(values, axis=-1)


def _directions(points: np.ndarray) -> np.ndarray:
    offsets = np.stack([points[..., b, :] - points[..., a, :] for a, b in _POSTURE], axis=-2)
    return offsets / np.maximum(np.linalg.norm(offsets, axis=-1, keepdims=True), SHORTEST)


def _head_turn(points: np.ndarray) -> float:
    """How far the nose is from the middle of the ears, or of the eyes, of which the same turn moves it by more."""
    for pair, factor, offset in ((_EARS, 1.0, 0.0), (_EYES, 1.5, 0.1)):
        x = points[[NOSE, *pair], 0]
        if not np.isnan(x).any():
            return abs(x[0] - x[1:].mean()) / max(abs(x[1] - x[2]), 10 * SHORTEST) / factor + offset
    return 0.3


def _nose_off_neck(points: np.ndarray) -> float:
    shoulders = np.linalg.norm(points[2] - points[5]) * _TRUNK_IN_SHOULDERS
    trunk = np.linalg.norm(points[list(_HIPS)].mean(axis=0) - points[NECK])
    return abs(points[NOSE, 0] - points[NECK, 0]) / np.fmax(shoulders, trunk)


def tilt(start: np.ndarray, end: np.ndarray, axis: int) -> float:
    """Degrees between a line and an axis of the picture; a figure upside down is far from upright."""
    offset = end - start if axis else np.abs(end - start)
    return float(np.degrees(np.arctan2(abs(offset[1 - axis]), offset[axis])))


def sides_apart(lengths: np.ndarray, *limbs: str) -> float:
    """The largest log2 of one side's length over the other's, of lengths (13,); NaN without two visible sides."""
    return float(np.fmax.reduce([abs(lengths[ROWS[limb][0]] - lengths[ROWS[limb][1]]) for limb in limbs]))
