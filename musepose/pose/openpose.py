"""OpenPose JSON: one frame's people to and from the 133 points of COCO-WholeBody.

The format is OpenPose's (doc/02_output.md there): flat lists of x, y, score; 18 body points (its COCO order) or 25
(BODY_25), 21 a hand, 70 of the face, of which the last two are the pupils. ControlNet's tools add the canvas size,
leave out the pupils, and write null for a hand or a face that was not found.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from musepose.pose.align import TREE
from musepose.pose.types import (
    BODY_JOINTS,
    FACE,
    FACE_POINTS,
    HAND_POINTS,
    HAND_WRISTS,
    HANDS,
    KEYPOINTS,
    LEFT_HAND,
    NECK,
    OPENPOSE_FROM_COCO,
    RIGHT_HAND,
    Pose,
)

VERSION = 1.3
BODY_KEY, FACE_KEY = "pose_keypoints_2d", "face_keypoints_2d"
HAND_KEYS = {LEFT_HAND: "hand_left_keypoints_2d", RIGHT_HAND: "hand_right_keypoints_2d"}
PUPILS = 2
BODY_POINTS = (BODY_JOINTS, 25)
FEET_POINTS = 6
# BODY_25 has the middle of the hips as point 8, and the feet (big toe, small toe, heel; left, right) from 19 on.
_JOINTS_OF_25 = [*range(8), *range(9, 19)]
_FEET_OF_25 = slice(19, 25)
_FEET = slice(17, 23)  # of the 133 points
_UNSET = -1  # both coordinates of a point that was not found, as some editors write; OpenPose writes 0
_SHOULDERS = (2, 5)


@dataclass(frozen=True)
class Frame:
    """The people of one frame, as the file has them: x, y in its own unit, and score; zeros for what is missing."""

    body: np.ndarray  # (n, 24, 3) 18 joints in OpenPose's order, 6 points of the feet
    face: np.ndarray  # (n, 68, 3)
    hands: np.ndarray  # (n, 2, 21, 3) left, right
    canvas: tuple[float, float] | None  # width and height, where the file says them


def frame_to_json(poses: Sequence[Pose], width: int, height: int) -> dict[str, Any]:
    """The poses of one frame as OpenPose has them, in pixels of a canvas of this size.

    A visible point has the score 1, as ControlNet's tools take points below that for not found. Any other has 0, and
    keeps its coordinates: the alignment builds on them where the point lies between two visible ones. Nothing is
    rounded, so that reading gives the same numbers.
    """

    def flat(points: np.ndarray, visible: np.ndarray) -> list[float]:
        return np.column_stack([points * (width, height), visible]).ravel().tolist()

    people = [
        {
            "person_id": [-1],
            BODY_KEY: flat(pose.body, pose.body_visible),
            FACE_KEY: flat(pose.face, pose.face_visible) + [0.0] * 3 * PUPILS,
            **{key: flat(pose.hands[hand], pose.hands_visible[hand]) for hand, key in HAND_KEYS.items()},
        }
        for pose in poses
    ]
    return {"version": VERSION, "people": people, "canvas_width": width, "canvas_height": height}


def frame_from_json(content: Any) -> Frame:
    """One frame's people. Raises ValueError, which says what is wrong."""
    if not isinstance(content, Mapping) or not isinstance(content.get("people"), list):
        raise ValueError('a frame is no {"people": [...]}')
    people = [_person(person, f"people[{i}]") for i, person in enumerate(content["people"])]
    body, face, hands = ([person[part] for person in people] for part in range(3))
    return Frame(
        np.array(body).reshape(-1, BODY_JOINTS + FEET_POINTS, 3),
        np.array(face).reshape(-1, FACE_POINTS, 3),
        np.array(hands).reshape(-1, 2, HAND_POINTS, 3),
        _canvas(content),
    )


def to_wholebody(
    body: np.ndarray,  # (24, 3)
    face: np.ndarray,  # (68, 3)
    hands: np.ndarray,  # (2, 21, 3)
) -> np.ndarray:
    """One person of a Frame, all parts in one unit, as the 133 points of COCO-WholeBody with scores, (133, 3)."""
    joints = _guess_missing(body[:BODY_JOINTS], hands)
    points = np.zeros((KEYPOINTS, 3))
    for joint, point in enumerate(OPENPOSE_FROM_COCO):
        if joint != NECK:  # which is made anew from the shoulders
            points[point] = joints[joint]
    points[_FEET], points[FACE], points[HANDS] = body[BODY_JOINTS:], face, hands.reshape(-1, 3)
    return points


def _canvas(content: Mapping) -> tuple[float, float] | None:
    sides = [content.get(f"canvas_{side}", content.get(side)) for side in ("width", "height")]
    if sides == [None, None]:
        return None
    if not all(_is_number(side) and side >= 1 for side in sides):
        raise ValueError(f"the canvas is {sides[0]} x {sides[1]}")
    return float(sides[0]), float(sides[1])


def _person(person: Any, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Body (24, 3), face (68, 3), hands (2, 21, 3)."""
    if not isinstance(person, Mapping):
        raise ValueError(f"{name} holds no lists of points")
    body = _points(person, BODY_KEY, BODY_POINTS, name)
    with_feet = np.zeros((BODY_JOINTS + FEET_POINTS, 3))
    if len(body) == 25:
        with_feet[BODY_JOINTS:] = body[_FEET_OF_25]
        body = body[_JOINTS_OF_25]
    with_feet[:BODY_JOINTS] = body
    face = _points(person, FACE_KEY, (FACE_POINTS, FACE_POINTS + PUPILS), name)[:FACE_POINTS]
    return with_feet, face, np.stack([_points(person, key, (HAND_POINTS,), name) for key in HAND_KEYS.values()])


def _points(person: Mapping, key: str, counts: tuple[int, ...], name: str) -> np.ndarray:
    """(n, 3) with n in `counts`; zeros where the list is missing, null or empty."""
    numbers = person.get(key) or []
    if not isinstance(numbers, list) or not all(map(_is_number, numbers)):
        raise ValueError(f"{name}.{key} is no list of numbers")
    if not numbers:
        return np.zeros((counts[0], 3))
    if len(numbers) not in [3 * count for count in counts]:
        wanted = " or ".join(str(3 * count) for count in counts)
        raise ValueError(f"{name}.{key} holds {len(numbers)} numbers, not {wanted}: x, y, score for each point")
    points = np.array(numbers, np.float64).reshape(-1, 3)
    points[(points[:, 2] <= 0) & (points[:, :2] == _UNSET).all(axis=1)] = 0
    return points


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9 and math.isfinite(value)


def _guess_missing(body: np.ndarray, hands: np.ndarray) -> np.ndarray:
    """Coordinates for the joints that have none, so that the visible ones beyond them can be aligned.

    A missing joint is put onto the one it hangs on: the limbs behind it then count as one. The 18 joints, (18, 3), in
    OpenPose's order, and (2, 21, 3) hands.
    """
    body = body.copy()
    known = body.any(axis=1)
    if not known.any():
        return body
    if known[NECK]:
        for one, other in (_SHOULDERS, _SHOULDERS[::-1]):
            if not known[one] and known[other]:
                body[one, :2] = 2 * body[NECK, :2] - body[other, :2]  # the neck is the middle of the two
                known[one] = True
                break
    else:
        seen = known[[*_SHOULDERS]]
        body[NECK, :2] = body[[*_SHOULDERS], :2][seen].mean(axis=0) if seen.any() else body[known, :2].mean(axis=0)
    for hand, wrist in HAND_WRISTS.items():
        if not known[wrist] and hands[hand, 0, 2] > 0:
            body[wrist, :2], known[wrist] = hands[hand, 0, :2], True
    for joint, parent, _ in TREE:
        if not known[joint]:
            body[joint, :2] = body[parent, :2]
    return body
