"""Alignment: give a dancer's poses the body proportions and the position of the person in the reference image.

The method of MusePose (TMElyralab, 2024): each limb is scaled by the ratio of its length in the reference image to its
length in the dance video, and the skeleton is rebuilt outwards from the neck. All lengths here are in picture heights,
on both axes.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from musepose.pose.limb_scale import override
from musepose.pose.types import FINGER_ROOTS, HAND_WRISTS, NECK, Pose
from musepose.utils.errors import UserError

# limb, and the joints (mean positions) between which its length is measured. A limb on several rows gets their mean
# scale.
SEGMENTS = (
    ("neck", (0,), (1,)),
    ("face", (16,), (17,)),
    ("shoulders", (2,), (5,)),
    ("upper arms", (2,), (3,)),
    ("upper arms", (5,), (6,)),
    ("lower arms", (3,), (4,)),
    ("lower arms", (6,), (7,)),
    ("trunk", (1,), (8, 11)),
    ("upper legs", (8,), (9,)),
    ("upper legs", (11,), (12,)),
    ("lower legs", (9,), (10,)),
    ("lower legs", (12,), (13,)),
)
BODY_LIMBS = tuple(dict.fromkeys(limb for limb, _, _ in SEGMENTS))
HAND_SEGMENTS = tuple((hand, root) for hand in HAND_WRISTS for root in FINGER_ROOTS)  # wrist to root of each finger
SEGMENT_LIMBS = (*(limb for limb, _, _ in SEGMENTS), *("hands" for _ in HAND_SEGMENTS))

# joint, its parent, and the limb whose scale applies to the offset between them; outwards from the neck
TREE = (
    (0, 1, "neck"),
    *((2, 1, "shoulders"), (3, 2, "upper arms"), (4, 3, "lower arms")),
    *((5, 1, "shoulders"), (6, 5, "upper arms"), (7, 6, "lower arms")),
    *((8, 1, "trunk"), (9, 8, "upper legs"), (10, 9, "lower legs")),
    *((11, 1, "trunk"), (12, 11, "upper legs"), (13, 12, "lower legs")),
    *((14, 0, "face"), (15, 0, "face"), (16, 0, "face"), (17, 0, "face")),
)

SHORTEST = 1e-4  # heights; below this two joints coincide, and a ratio of lengths is meaningless
NOTHING_IN_COMMON = (
    "no limb is visible both in the picture and in the video's align frame: choose another frame with --align_frame, "
    "or a picture that shows the same part of the body"
)
VIDEO_PERCENTILE = 90  # of a limb's lengths over a video: close to its true length, robust to errors in single frames


@dataclass(frozen=True)
class Alignment:
    """The alignment of one video to one reference image. `apply` treats each frame independently."""

    scales: dict[str, float]  # limb -> factor
    shift: np.ndarray  # (2,) heights, translation after the scaling
    frame_aspect: float  # width / height of the video
    image_aspect: float  # width / height of the reference image

    def apply(self, pose: Pose) -> Pose:
        """Align the pose of a video frame: input normalised to the video, output to the reference image."""
        rescaled = _rescale(_stretch(pose, self.frame_aspect), self.scales)
        return _stretch(_move(rescaled, self.shift), 1 / self.image_aspect)


def fit_alignment(
    reference: Pose,
    first: Pose,
    image_aspect: float,
    frame_aspect: float,
    lengths: np.ndarray | None = None,
    limb_scale: Mapping[str, float] | None = None,
) -> Alignment:
    """Find the alignment of a video to a reference image.

    `first`: the pose in the align frame, which is placed onto the reference. `lengths`: (22,) segment lengths in the
    video, as from `typical_lengths`; by default they are measured in `first`. Raises UserError if no limb can be
    compared.
    """
    if lengths is None:
        lengths = segment_lengths(first, frame_aspect)
    scales = limb_scales(segment_lengths(reference, image_aspect), lengths)
    scales = override(scales, limb_scale or {})
    target = _stretch(reference, image_aspect)
    start = _rescale(_stretch(first, frame_aspect), scales)
    return Alignment(scales, _shift(target, start), frame_aspect, image_aspect)


def segment_lengths(pose: Pose, aspect: float) -> np.ndarray:
    """Lengths (22,) of the body and hand segments in picture heights; NaN where an end point is not visible."""
    pose = _stretch(pose, aspect)
    lengths = np.full(len(SEGMENT_LIMBS), np.nan)
    for row, (_, start, end) in enumerate(SEGMENTS):
        if pose.body_visible[[*start, *end]].all():
            offset = pose.body[[*start]].mean(axis=0) - pose.body[[*end]].mean(axis=0)
            lengths[row] = np.linalg.norm(offset)
    for row, (hand, root) in enumerate(HAND_SEGMENTS, start=len(SEGMENTS)):
        if pose.hands_visible[hand, [0, root]].all():
            lengths[row] = np.linalg.norm(pose.hands[hand, 0] - pose.hands[hand, root])
    lengths[lengths < SHORTEST] = np.nan
    return lengths


def typical_lengths(lengths: Iterable[np.ndarray]) -> np.ndarray:
    """One length per segment (22,) from those of many frames, each as from `segment_lengths`.

    Foreshortening makes a limb look shorter, never longer. So a high percentile over the frames that show the limb is
    close to its true length, and is robust to errors in single frames.
    """
    table = np.array(list(lengths)).reshape(-1, len(SEGMENT_LIMBS))
    seen = ~np.isnan(table)
    return np.array(
        [np.percentile(table[rows, i], VIDEO_PERCENTILE) if rows.any() else np.nan for i, rows in enumerate(seen.T)]
    )


def limb_scales(reference: np.ndarray, video: np.ndarray) -> dict[str, float]:
    """The scale of each limb from segment lengths (22,) in the reference and in the video.

    A limb that is not visible in both gets the mean scale of the limbs that are. The hands' scale is averaged with the
    arms', because hands are measured on few pixels. Raises UserError if no body limb is visible in both.
    """
    ratios = reference / video
    known = {}
    for limb in (*BODY_LIMBS, "hands"):
        of_limb = ratios[[name == limb for name in SEGMENT_LIMBS]]
        seen = of_limb[~np.isnan(of_limb)]
        if len(seen):
            known[limb] = float(seen.mean())
    if not known.keys() & set(BODY_LIMBS):
        raise UserError(NOTHING_IN_COMMON)
    mean = float(np.mean([scale for limb, scale in known.items() if limb != "hands"]))
    scales = {limb: known.get(limb, mean) for limb in BODY_LIMBS}
    arms = [scales["upper arms"], scales["lower arms"]]
    scales["hands"] = float(np.mean([known["hands"], *arms] if "hands" in known else arms))
    return scales


def _stretch(pose: Pose, factor: float) -> Pose:
    """Scale x. With a picture's aspect as the factor, both axes are in picture heights."""
    by = np.array([factor, 1.0])
    return replace(pose, body=pose.body * by, hands=pose.hands * by, face=pose.face * by)


def _move(pose: Pose, by: np.ndarray) -> Pose:
    return replace(pose, body=pose.body + by, hands=pose.hands + by, face=pose.face + by)


def _rescale(pose: Pose, scales: dict[str, float]) -> Pose:
    """Rebuild the skeleton outwards from the neck, which stays. Hands move with their wrists; face points stay."""
    body = pose.body.copy()
    for joint, parent, limb in TREE:
        body[joint] = body[parent] + scales[limb] * (pose.body[joint] - pose.body[parent])
    hands = pose.hands.copy()
    for hand, wrist in HAND_WRISTS.items():
        hands[hand] = body[wrist] + scales["hands"] * (pose.hands[hand] - pose.body[wrist])
    return replace(pose, body=body, hands=hands)


def _shift(target: Pose, start: Pose) -> np.ndarray:
    """Translation from the neck of the rescaled first frame to the reference's neck.

    Coordinates of an invisible neck are meaningless; then the mean over the joints visible in both is used.
    """
    common = target.body_visible & start.body_visible
    if not common.any():  # possible when the scales come from other frames
        raise UserError(NOTHING_IN_COMMON)
    if common[NECK]:
        common = np.arange(len(common)) == NECK
    return (target.body[common] - start.body[common]).mean(axis=0)
