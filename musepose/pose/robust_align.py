"""Alignment that holds for real people: limb lengths over the whole dance, foreshortened limbs not believed.

Real dancers turn, crouch, come nearer, are cut off at the hip. One frame's lengths against one picture's, as in
align.py, then make gorillas and dwarfs. Here the dance's lengths are those over the video, the picture's the most
probable ones (proportions.py), and the dancer's distance is the one of the dance that needs the least change of size.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from musepose.pose.align import TREE
from musepose.pose.measure import (
    LIMB_OF_ROW,
    LIMBS,
    SIZE_WEIGHTS,
    Dance,
    body_points,
    foreshortenings,
    frontality,
    like_postures,
    measure_dance,
    segment_lengths,
    weighted_median,
)
from musepose.pose.placement import place
from musepose.pose.proportions import probable_lengths
from musepose.pose.types import HAND_WRISTS, NOSE, Pose
from musepose.utils.errors import UserError

NOTHING_IN_COMMON = (
    "no limb is visible both in the picture and in the video: choose a picture and a video that show the same part of "
    "the body"
)
_RAISED = [limb in ("neck", "trunk") for limb in LIMBS]  # which raised arms lengthen and shorten
_LIKE_FRAMING = 0.12  # log2; a picture's person is as large as the dancer, give or take, at one of her distances
_ANY_FRAMING = 0.02  # or of any size
_USUAL_DISTANCE = 0.06  # log2; by so much or less a dancer's size below typical is a matter of course
_DISTANCE = 0.85  # of a larger one, so much is taken
_RIGHT_LEG, _LEFT_LEG = (8, 9, 10), (11, 12, 13)


@dataclass(frozen=True)
class RobustAlignment:
    """How to align every frame of one video to one picture. `apply` needs no other frame."""

    scales: dict[str, float]  # limb -> factor; measure.LIMBS and hands
    shift: np.ndarray  # (2,) heights
    frame_aspect: float  # width / height of the video
    image_aspect: float  # width / height of the picture
    frontality: float = 0.0  # 0 to 1, how frontal and upright the picture's person stands
    placed_by: str = "neck"  # or feet, or joints; see placement.place

    def apply(self, pose: Pose) -> Pose:
        """The pose of a video frame, normalised to the video, aligned and normalised to the picture."""
        return _place(pose, self.scales, self.shift, self.frame_aspect, self.image_aspect)


def fit_robust_alignment(
    reference: Pose,
    dance: Sequence[Pose | None],  # None where a frame shows nobody
    image_aspect: float,
    frame_aspect: float,
    reference_world: np.ndarray | None = None,  # (18, 3) the picture's joints in space, third axis towards the camera
) -> RobustAlignment:
    """Find the alignment of a video to a picture from all frames. Raises UserError if no limb can be compared.

    `reference_world`, in any unit, where the detector gives it (BlazePose's world landmarks do).
    """
    poses = [pose for pose in dance if pose is not None]
    picture = body_points([reference], image_aspect)[0]
    measured = measure_dance(body_points(poses, frame_aspect))
    scales, frontal = robust_scales(picture, measured, reference_world)
    moved = [_place(pose, scales, np.zeros(2), frame_aspect, 1) for pose in poses]
    shift, placed_by = place(picture, body_points(moved, 1))
    return RobustAlignment(scales, shift, frame_aspect, image_aspect, frontal, placed_by)


def robust_scales(
    picture: np.ndarray,  # (18, 2) heights
    dance: Dance,
    world: np.ndarray | None = None,  # (18, 3)
) -> tuple[dict[str, float], float]:
    """The factor of each limb, and how frontal the picture's person stands.

    Raises UserError if no limb can be compared.
    """
    seen = segment_lengths(picture)
    if np.isnan(seen - dance.typical[LIMB_OF_ROW]).all():
        raise UserError(NOTHING_IN_COMMON)
    frontal = frontality(picture, seen)
    raised = np.where(np.array(_RAISED)[LIMB_OF_ROW], like_postures(picture, dance), 0)
    short = None if world is None else foreshortenings(world)
    ratios = probable_lengths(seen - raised, dance, frontal, short) - dance.typical
    ratios += distance(weighted_median(ratios, SIZE_WEIGHTS), dance.sizes)
    ratios = np.where(np.isnan(ratios), np.nanmedian(ratios), ratios)
    scales = dict(zip(LIMBS, (2**ratios).tolist(), strict=True))
    scales["hands"] = (scales["upper arms"] * scales["lower arms"]) ** 0.5
    return scales, frontal


def distance(ratio: float, sizes: np.ndarray) -> float:
    """log2 of how much larger than the dancer's typical length makes him the picture's person is to be.

    The picture shows its person at one of the distances at which the video shows the dancer: probably at one where
    both are equally large, so that their size changes least. `ratio`: log2 of the picture's lengths over the dance's
    typical ones, which are those near the camera; `sizes`: (n,) of the dancer, relative to typical.
    """
    sizes = sizes[~np.isnan(sizes)]
    weights = np.exp(-(((ratio - sizes) / _LIKE_FRAMING) ** 2) / 2) + _ANY_FRAMING
    farther = -float(np.average(sizes, weights=weights))
    return min(farther, max(_USUAL_DISTANCE, _DISTANCE * farther))


def _place(pose: Pose, scales: dict[str, float], shift: np.ndarray, aspect: float, image_aspect: float) -> Pose:
    """Rebuild the skeleton outwards from the neck; hands follow their wrists, the face the nose."""
    body, hands, face = (part * (aspect, 1) for part in (pose.body, pose.hands, pose.face))
    placed = body.copy()
    for joint, parent, limb in TREE:
        placed[joint] = placed[parent] + scales[limb] * (body[joint] - body[parent])
    if pose.body_visible[[8, 11]].all():  # the trunk ends in the middle of the hips, which have a width of their own
        half = (body[8] - body[11]) / 2
        wider = (scales["hips"] - scales["trunk"]) * half
        placed[list(_RIGHT_LEG)] += wider
        placed[list(_LEFT_LEG)] -= wider
    placed_hands = np.stack(
        [placed[wrist] + scales["hands"] * (hands[hand] - body[wrist]) for hand, wrist in sorted(HAND_WRISTS.items())]
    )
    face = placed[NOSE] + scales["face"] * (face - body[NOSE])
    body, hands, face = ((part + shift) * (1 / image_aspect, 1) for part in (placed, placed_hands, face))
    return replace(pose, body=body, hands=hands, face=face)
