"""A stick figure: 133 whole-body keypoints from a few joint angles, in place of a detector's results."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from musepose.pose.box_tracking import find_people
from musepose.pose.types import People, Pose

GOLDEN = Path(__file__).parent / "golden"
POSE_CASES = ("pose_full", "pose_hands_missing", "pose_align_frame", "pose_landscape_ref")
DWPOSE_CASES = ("dwpose_people", "dwpose_nobody")


def golden_case(name: str) -> tuple[dict, dict[str, np.ndarray]]:
    """A golden case and its drawings."""
    case = json.loads((GOLDEN / name / "case.json").read_text(encoding="utf-8"))
    with np.load(GOLDEN / name / "rendered.npz") as drawings:
        return case, dict(drawings)


def golden_pose(entry: dict) -> Pose:
    """The first person of a golden entry; hidden points are -1 there, hidden joints -1 in `subset`."""
    hands, face = np.array(entry["hands"][:2]), np.array(entry["faces"][0])
    return Pose(
        body=np.array(entry["candidate"][:18]),
        body_visible=np.array(entry["subset"][0]) >= 0,
        hands=hands,
        hands_visible=(hands != -1).all(axis=-1),
        face=face,
        face_visible=(face != -1).all(axis=-1),
    )


def dancer(
    time: float = 0,  # turns of the arms
    height: float = 0.7,  # of the picture's height
    aspect: float = 0.75,  # width / height of the picture
    arms: float = 0.16,  # length of the upper and of the lower arm, in body heights
) -> np.ndarray:
    """Keypoints (133, 2) of one person as fractions of the picture, COCO-WholeBody order."""
    points = np.zeros((133, 2))
    points[0] = 0, -0.36  # nose
    points[1:5] = [(0.02, -0.38), (-0.02, -0.38), (0.05, -0.37), (-0.05, -0.37)]  # eyes, ears: left, right
    hand_shape = np.array([(0, 0)] + [(0.012 * f - 0.024, 0.012 * k) for f in range(5) for k in range(1, 5)])
    for side, sign in enumerate((1, -1)):  # left, right
        swing = 2 * np.pi * time * sign
        shoulder, hip = np.array([sign * 0.1, -0.28]), np.array([sign * 0.06, 0.0])
        elbow = shoulder + arms * np.array([sign * np.cos(0.6 * np.sin(swing)), np.sin(0.6 * np.sin(swing))])
        wrist = elbow + arms * np.array([sign * np.cos(np.sin(swing)), -np.sin(0.3 + np.sin(swing))])
        knee, ankle = hip + (sign * 0.04, 0.22), hip + (sign * 0.04, 0.44)
        points[5 + side : 17 : 2] = shoulder, elbow, wrist, hip, knee, ankle
        points[91 + 21 * side : 112 + 21 * side] = wrist + hand_shape
    angles = np.linspace(0, 2 * np.pi, 68)
    points[23:91] = points[0] + 0.05 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return points * (height / aspect, height) + (0.5, 0.5)


def dance(frames: int, missing: tuple[int, ...] = (), **build) -> tuple[np.ndarray, np.ndarray]:
    """Keypoints (n, 133, 2) and scores (n, 133) of a dance; zeros in the frames without a person."""
    points = np.stack([dancer(time=frame / 12, **build) for frame in range(frames)]).astype(np.float32)
    scores = np.ones(points.shape[:2], np.float32)
    points[list(missing)] = 0
    scores[list(missing)] = 0
    return points, scores


class OneByOne:
    """Turns a function of one image into a detector of batches."""

    frames_at_once = 3

    def find(self, frames: Iterable[np.ndarray], every: int = 1) -> Iterator[People]:
        return find_people(self, frames, every)

    def prepare(self, rgb: np.ndarray) -> np.ndarray:
        return rgb

    def detect(self, pictures: Sequence[np.ndarray]) -> list[People]:
        return [self(rgb) for rgb in pictures]

    def detect_inside(self, pictures: Sequence[np.ndarray], boxes, box_scores) -> list[People]:
        raise AssertionError("boxes are followed though that was not asked for")


class Detector(OneByOne):
    """Returns given results: the first call is for the reference image, the others for the frames of the dance."""

    def __init__(self, *found: tuple[np.ndarray, np.ndarray]) -> None:
        self.found = list(found)
        self.calls = 0

    def __call__(self, rgb: np.ndarray) -> People:
        points, scores = self.found[self.calls]
        self.calls += 1
        height, width = rgb.shape[:2]
        box = np.array([[0, 0, width, height]], float)
        return People(box, np.ones(1), points[None].astype(float), scores[None].astype(float), size=(width, height))
