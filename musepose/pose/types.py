"""Types of the pose stage (People, Pose) and tables of joints, limbs and colours."""

import colorsys
from dataclasses import dataclass

import numpy as np

BODY_JOINTS = 18
HAND_POINTS = 21
FACE_POINTS = 68

NOSE, NECK = 0, 1
LEFT_HAND, RIGHT_HAND = 0, 1  # rows of Pose.hands
HAND_WRISTS = {LEFT_HAND: 7, RIGHT_HAND: 4}  # the body joint that each hand is attached to
FINGER_ROOTS = (1, 5, 9, 13, 17)  # thumb to little finger; point 0 is the wrist

VISIBLE_SCORE = 0.3

# The 133 points of COCO-WholeBody: 17 body, 6 feet, 68 face, 21 left hand, 21 right hand.
KEYPOINTS = 133
BODY_AND_FEET = 23  # of them, the first
BODY = slice(0, 17)
FACE = slice(23, 91)
HANDS = slice(91, 133)
_SHOULDERS = [5, 6]
_NECK = 1  # in OpenPose's order; COCO has no neck
OPENPOSE_FROM_COCO = [0, 0, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3]  # entry 1: overwritten by the neck


@dataclass(frozen=True)
class People:
    """All people detected in one picture."""

    boxes: np.ndarray  # (n, 4) x0 y0 x1 y1 in pixels of the original picture
    box_scores: np.ndarray  # (n,)
    keypoints: np.ndarray  # (n, 133, 2) x, y as fractions of the picture's width and height
    scores: np.ndarray  # (n, 133)
    fallback: bool = False  # no person was detected; the box is the whole picture
    size: tuple[int, int] = (1, 1)  # width and height of the picture in pixels
    # Where the detector knows more than the picture's plane:
    depth: np.ndarray | None = None  # (n, 133) from between the hips, in picture widths; smaller is nearer
    metres: np.ndarray | None = None  # (n, 23, 3) body and feet, x right, y down, z away, from between the hips


@dataclass(frozen=True)
class Pose:
    """One person's whole-body pose in OpenPose form.

    Coordinates are (x, y) as fractions of the picture's width and height, float64. Points that are not
    visible have meaningless coordinates; check the masks.
    """

    body: np.ndarray  # (18, 2) nose, neck, right arm 2-4, left 5-7, right leg 8-10, left 11-13, eyes r l, ears r l
    body_visible: np.ndarray  # (18,) bool, score > 0.3
    hands: np.ndarray  # (2, 21, 2) left hand, right hand
    hands_visible: np.ndarray  # (2, 21) bool
    face: np.ndarray  # (68, 2)
    face_visible: np.ndarray  # (68,) bool


def to_pose(
    keypoints: np.ndarray,  # (133, 2) fractions of the picture's width and height
    scores: np.ndarray,  # (133,)
) -> Pose:
    """One person's whole-body keypoints in OpenPose form, after DWPose (Yang et al. 2023).

    The neck is the midpoint of the shoulders, visible if both are. A point is visible if its score is above 0.3.
    """
    keypoints = np.asarray(keypoints, dtype=np.float64)
    visible = np.asarray(scores) > VISIBLE_SCORE
    body, body_visible = keypoints[OPENPOSE_FROM_COCO], visible[OPENPOSE_FROM_COCO]
    body[_NECK] = keypoints[_SHOULDERS].mean(axis=0)
    body_visible[_NECK] = visible[_SHOULDERS].all()
    return Pose(
        body=body.reshape(BODY_JOINTS, 2),
        body_visible=body_visible,
        hands=keypoints[HANDS].reshape(2, HAND_POINTS, 2),
        hands_visible=visible[HANDS].reshape(2, HAND_POINTS),
        face=keypoints[FACE].reshape(FACE_POINTS, 2),
        face_visible=visible[FACE],
    )


# OpenPose's 17 limbs, in drawing order. Limb i has the colour of joint i.
DRAWN_LIMBS = (
    *((1, 2), (1, 5)),  # shoulders
    *((2, 3), (3, 4)),  # right arm
    *((5, 6), (6, 7)),  # left arm
    *((1, 8), (8, 9), (9, 10)),  # right leg
    *((1, 11), (11, 12), (12, 13)),  # left leg
    *((1, 0), (0, 14), (14, 16), (0, 15), (15, 17)),  # head
)

# Each finger is a chain of four edges from the wrist point.
HAND_EDGES = tuple(
    (0 if knuckle == 0 else root + knuckle - 1, root + knuckle) for root in FINGER_ROOTS for knuckle in range(4)
)


def hue_wheel(colours: int) -> tuple[tuple[float, float, float], ...]:
    """`colours` saturated colours at equal hue steps, red first, 0 to 255; not rounded, OpenCV does that."""
    wheel = (colorsys.hsv_to_rgb(step / colours, 1.0, 1.0) for step in range(colours))
    return tuple(tuple(255 * channel for channel in colour) for colour in wheel)


# OpenPose's palette is this wheel as (r, g, b). The released weights were trained with red and blue exchanged, so the
# red channel of these tables and of every drawing here is the blue channel of OpenPose, and the other way round.
JOINT_COLOURS = tuple(colour[::-1] for colour in hue_wheel(BODY_JOINTS))
HAND_EDGE_COLOURS = tuple(colour[::-1] for colour in hue_wheel(len(HAND_EDGES)))
HAND_POINT_COLOUR = (255, 0, 0)
