"""Joints, limbs and colours as tables, and the Pose type that the pose stage passes around."""

from dataclasses import dataclass

import numpy as np

BODY_JOINTS = 18
HAND_POINTS = 21
FACE_POINTS = 68


@dataclass(frozen=True)
class Pose:
    """One person's whole-body pose in OpenPose form.

    Coordinates are (x, y) as fractions of the picture's width and height, float64. Points that are not
    visible keep whatever coordinates they have; the masks say which ones to trust.
    """

    body: np.ndarray  # (18, 2) OpenPose joints: nose, neck, right arm 2-4, left arm 5-7, right leg 8-10, left leg 11-13, eyes, ears
    body_visible: np.ndarray  # (18,) bool, score > 0.3
    hands: np.ndarray  # (2, 21, 2) left hand, right hand
    hands_visible: np.ndarray  # (2, 21) bool
    face: np.ndarray  # (68, 2)
    face_visible: np.ndarray  # (68,) bool
