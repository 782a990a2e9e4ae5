"""Alignment: a dancer's poses get the body proportions and the place of the person in the reference image.

The method of MusePose (TMElyralab, 2024): the length of each limb in the reference image over its length in the dance
video scales that limb, and the skeleton is rebuilt outwards from the neck. All lengths here are in units of the
picture's height, on both axes.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from musepose.pose.limb_scale import override
from musepose.pose.types import FINGER_ROOTS, HAND_WRISTS, NECK, Pose
from musepose.utils.errors import UserError

# limb, and the joints between whose (mean) positions its length is taken. A limb on several rows has their mean scale.
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

# joint, the joint it hangs on, and the limb that scales the offset between them; outwards from the neck
TREE = (
    (0, 1, "neck"),
    *((2, 1, "shoulders"), (3, 2, "upper arms"), (4, 3, "lower arms")),
    *((5, 1, "shoulders"), (6, 5, "upper arms"), (7, 6, "lower arms")),
    *((8, 1, "trunk"), (9, 8, "upper legs"), (10, 9, "lower legs")),
    *((11, 1, "trunk"), (12, 11, "upper legs"), (13, 12, "lower legs")),
    *((14, 0, "face"), (15, 0, "face"), (16, 0, "face"), (17, 0, "face")),
)

SHORTEST = 1e-4  # heights; below this two joints lie on one another, and their distance says nothing
NOTHING_IN_COMMON = (
    "no limb is visible both in the picture and in the video's align frame: choose another frame with --align_frame, "
    "or a picture that shows the same part of the body"
)
VIDEO_PERCENTILE = 90  # of a limb's lengths over a video: near its true length, but not a single frame's error


@dataclass(frozen=True)
class Alignment:
    """How to align every frame of one video to one reference image. `apply` needs no other frame."""

    scales: dict[str, float]  # limb -> factor
    shift: np.ndarray  # (2,) heights, by which everything moves in the end
    frame_aspect: float  # width / height of the video
    image_aspect: float  # width / height of the reference image

    def apply(self, pose: Pose) -> Pose:
        """The pose of a video frame, normalised to the video, aligned and normalised to the reference image."""
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

    `first`: the pose in the frame that is laid onto the reference. `lengths`: (22,) the limbs' lengths in the video, as
    from `typical_lengths`; by default they are measured in `first`. Raises UserError if no limb can be compared.
    """
    if lengths is None:
        lengths = segment_lengths(first, frame_aspect)
    scales = limb_scales(segment_lengths(reference, image_aspect), lengths)
    scales = override(scales, limb_scale or {})
    target = _stretch(reference, image_aspect)
    start = _rescale(_stretch(first, frame_aspect), scales)
    return Alignment(scales, _shift(target, start), frame_aspect, image_aspect)


def segment_lengths(pose: Pose, aspect: float) -> np.ndarray:
    """Lengths (22,) of the body's and the hands' segments in heights; NaN where one cannot be seen."""
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
    """One length (22,) for each segment from those of many frames, each as from `segment_lengths`.

    A limb looks shorter than it is when it points at the camera, never longer; so a high percentile over the frames in
    which it is seen comes near its true length, and one frame's error does not matter.
    """
    table = np.array(list(lengths)).reshape(-1, len(SEGMENT_LIMBS))
    seen = ~np.isnan(table)
    return np.array(
        [np.percentile(table[rows, i], VIDEO_PERCENTILE) if rows.any() else np.nan for i, rows in enumerate(seen.T)]
    )


def limb_scales(reference: np.ndarray, video: np.ndarray) -> dict[str, float]:
    """The scale of each limb from segment lengths (22,) in the reference and in the video.

    Limbs that cannot be seen in both take the mean of those that can. A hand's scale is pulled towards the arms', as
    its own is measured on few pixels. Raises UserError if no limb of the body can be seen in both.
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
    """Scale x; with a picture's aspect both axes come to the unit of its height."""
    by = np.array([factor, 1.0])
    return replace(pose, body=pose.body * by, hands=pose.hands * by, face=pose.face * by)


def _move(pose: Pose, by: np.ndarray) -> Pose:
    return replace(pose, body=pose.body + by, hands=pose.hands + by, face=pose.face + by)


def _rescale(pose: Pose, scales: dict[str, float]) -> Pose:
    """Rebuild the skeleton outwards from the neck, which stays; the hands follow their wrists, the face points stay."""
    body = pose.body.copy()
    for joint, parent, limb in TREE:
        body[joint] = body[parent] + scales[limb] * (pose.body[joint] - pose.body[parent])
    hands = pose.hands.copy()
    for hand, wrist in HAND_WRISTS.items():
        hands[hand] = body[wrist] + scales["hands"] * (pose.hands[hand] - pose.body[wrist])
    return replace(pose, body=body, hands=hands)


def _shift(target: Pose, start: Pose) -> np.ndarray:
    """From the neck of the rescaled first frame to the reference's.

    Where one of the necks is not visible its coordinates are junk; then the joints visible in both decide.
    """
    common = target.body_visible & start.body_visible
    if not common.any():  # possible where the scales come from other frames
        raise UserError(NOTHING_IN_COMMON)
    if common[NECK]:
        common = np.arange(len(common)) == NECK
    return (target.body[common] - start.body[common]).mean(axis=0)
