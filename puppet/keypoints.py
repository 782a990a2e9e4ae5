"""Ground-truth keypoints of a figure: OpenPose joints and the 133 points of COCO-WholeBody."""

import numpy as np

from musepose.pose.types import Pose
from puppet.kinematics import Skeleton

BODY, FEET, FACE, HANDS = slice(0, 17), slice(17, 23), slice(23, 91), slice(91, 133)
# OpenPose joints 0 and 2-17 as COCO body points; joint 1, the neck, is the middle of the shoulders.
COCO_OF_OPENPOSE = (0, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3)
HIDDEN = -0.5  # a head point is hidden if z of its unit outward direction is below this
SHOULDERS = [5, 6]


def whole_body(skeleton: Skeleton) -> np.ndarray:
    """The 133 points in space (133, 3): 17 body, 6 feet, 68 face, 21 left hand, 21 right hand."""
    pairs = (
        skeleton.eyes,
        skeleton.ears,
        skeleton.shoulders,
        skeleton.elbows,
        skeleton.hands[:, 0],
        skeleton.hips,
        skeleton.knees,
        skeleton.ankles,
    )
    feet = np.stack([skeleton.big_toes, skeleton.small_toes, skeleton.heels], 1).reshape(6, 3)
    nose = skeleton.face[30:31]
    return np.concatenate([nose, *pairs, feet, skeleton.face, *skeleton.hands])


def faces_camera(skeleton: Skeleton) -> np.ndarray:
    """(133,) bool: False for points on the far side of the turned head."""
    seen = np.ones(133, bool)
    for points, which in ((skeleton.face, FACE), (skeleton.ears, slice(3, 5)), (skeleton.eyes, slice(1, 3))):
        away = points - skeleton.head
        away = away - (away @ skeleton.head_axes[:, 1:2]) * skeleton.head_axes[:, 1]
        seen[which] = away[:, 2] > HIDDEN * np.maximum(np.linalg.norm(away, axis=1), 1e-9)
    return seen


def pose_from_whole_body(points: np.ndarray, visible: np.ndarray) -> Pose:
    """The Pose of whole-body points (133, 2), fractions of the image, with visibility (133,)."""
    order = list(COCO_OF_OPENPOSE)
    body = np.insert(points[order], 1, points[SHOULDERS].mean(0), axis=0)
    body_visible = np.insert(visible[order], 1, visible[SHOULDERS].all())
    return Pose(
        body=body,
        body_visible=body_visible,
        hands=points[HANDS].reshape(2, 21, 2),
        hands_visible=visible[HANDS].reshape(2, 21),
        face=points[FACE],
        face_visible=visible[FACE],
    )
