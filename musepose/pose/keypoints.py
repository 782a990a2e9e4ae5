"""From a detector's boxes and whole-body keypoints to one person's pose, and the same person from frame to frame."""

from dataclasses import dataclass, field

import numpy as np

from musepose.pose.skeleton import BODY_JOINTS, FACE_POINTS, HAND_POINTS, Pose

PERSON_LABEL = 0  # of the 80 COCO classes
PERSON_SCORE = 0.5
PERSON_IOU = 0.7
VISIBLE_SCORE = 0.3

# The 133 points of COCO-WholeBody: 17 body, 6 feet, 68 face, 21 left hand, 21 right hand.
KEYPOINTS = 133
_BODY = slice(0, 17)
_FACE = slice(23, 91)
_HANDS = slice(91, 133)
_SHOULDERS = [5, 6]
_NECK = 1  # in OpenPose's order; COCO has none
_OPENPOSE_FROM_COCO = [0, 0, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3]  # entry 1 is filled with the neck


@dataclass(frozen=True)
class People:
    """Everybody found in one picture."""

    boxes: np.ndarray  # (n, 4) x0 y0 x1 y1 in pixels of the picture given
    box_scores: np.ndarray  # (n,)
    keypoints: np.ndarray  # (n, 133, 2) x, y as fractions of the picture's width and height
    scores: np.ndarray  # (n, 133)
    fallback: bool = False  # nobody was found, and the whole picture was taken for a person's box
    size: tuple[int, int] = (1, 1)  # width and height of the picture in pixels


def select_people(
    boxes: np.ndarray,  # (n, 4) x0 y0 x1 y1
    scores: np.ndarray,  # (n,)
    labels: np.ndarray,  # (n,)
) -> np.ndarray:
    """Indices of the persons among a detector's boxes, best first.

    Persons with a score above 0.5; of two whose IoU (in whole pixels, hence the + 1, as in mmpose's `nms`) is above
    0.7 the better one stays.
    """
    waiting = np.flatnonzero((labels == PERSON_LABEL) & (scores > PERSON_SCORE) & np.isfinite(boxes).all(axis=1))
    waiting = waiting[np.argsort(-scores[waiting], kind="stable")]
    boxes = boxes.astype(np.float64)
    area = (boxes[:, 2:] - boxes[:, :2] + 1).prod(axis=1)
    kept = []
    while len(waiting):
        best, rest = waiting[0], waiting[1:]
        sides = np.minimum(boxes[best, 2:], boxes[rest, 2:]) - np.maximum(boxes[best, :2], boxes[rest, :2]) + 1
        shared = np.maximum(sides, 0).prod(axis=1)
        waiting = rest[shared <= PERSON_IOU * (area[best] + area[rest] - shared)]
        kept.append(best)
    return np.array(kept, dtype=int)


def to_pose(
    keypoints: np.ndarray,  # (133, 2) fractions of the picture's width and height
    scores: np.ndarray,  # (133,)
) -> Pose:
    """One person's whole-body keypoints in OpenPose form, after DWPose (Yang et al. 2023).

    The neck is the middle of the shoulders, and visible where both are. A point is visible where its score is above
    0.3.
    """
    keypoints = np.asarray(keypoints, dtype=np.float64)
    visible = np.asarray(scores) > VISIBLE_SCORE
    body, body_visible = keypoints[_OPENPOSE_FROM_COCO], visible[_OPENPOSE_FROM_COCO]
    body[_NECK] = keypoints[_SHOULDERS].mean(axis=0)
    body_visible[_NECK] = visible[_SHOULDERS].all()
    return Pose(
        body=body.reshape(BODY_JOINTS, 2),
        body_visible=body_visible,
        hands=keypoints[_HANDS].reshape(2, HAND_POINTS, 2),
        hands_visible=visible[_HANDS].reshape(2, HAND_POINTS),
        face=keypoints[_FACE].reshape(FACE_POINTS, 2),
        face_visible=visible[_FACE],
    )


def choose_person(people: People) -> int | None:
    """Index of the person with the largest, best-scored body; None where no body joint of anybody is visible.

    The measure is the area of the box inside the picture times the mean score of the 17 body points: somebody small
    in the background loses by the first factor, somebody half out of the picture by the second.
    """
    body = people.scores[:, _BODY]
    corners = np.clip(people.boxes.reshape(-1, 2, 2), 0, people.size if people.size != (1, 1) else np.inf)
    area = (corners[:, 1] - corners[:, 0]).clip(min=0).prod(axis=1)
    measure = np.where((body > VISIBLE_SCORE).any(axis=1), area * body.mean(axis=1), -1)
    return int(measure.argmax()) if (measure > -1).any() else None


# Distances below are in body sizes: the larger side of the rectangle around the visible body points.
_GATE = 0.6  # farther than this from where he was expected, it is somebody else
_GATE_GROWTH = 0.06  # for every frame in which he was not found …
_GATE_LIMIT = 1.5  # … up to this
_SAME_BODY = 0.05  # two detections closer than this are one person
_PATIENCE = 30  # frames after which somebody not found is given up
_COASTING = 8  # frames for which a lost person is expected to move on as he did
_INERTIA = 0.5  # weight of the earlier frames in his speed


@dataclass
class _Track:
    """Somebody who is followed; lengths in pixels."""

    points: np.ndarray  # (17, 2) body points where last seen
    visible: np.ndarray  # (17,) bool
    body_size: float
    since: int  # the frame he was first seen in
    seen: int  # the frame he was last seen in
    speed: np.ndarray = field(default_factory=lambda: np.zeros(2))  # a frame

    def expected(self, frame: int) -> np.ndarray:
        return self.points + self.speed * min(frame - self.seen, _COASTING)

    def update(self, points: np.ndarray, visible: np.ndarray, frame: int) -> None:
        both = visible & self.visible
        if both.any():
            step = np.median(points[both] - self.points[both], axis=0) / (frame - self.seen)
            self.speed = _INERTIA * self.speed + (1 - _INERTIA) * step
        size = _body_size(points, visible)
        # A body that folds up or is half hidden is still as large as it was: the size falls slowly.
        self.body_size = max(size, 0.9 * self.body_size + 0.1 * size)
        self.points = np.where(visible[:, None], points, self.expected(frame))
        self.visible, self.seen = visible, frame


class Follower:
    """Follows one person through the frames of a video, and everybody else so as not to mistake them for him.

    Called with one frame after the other, it returns his index in the frame, or None. Each person known is expected
    where his speed takes him; pairs of persons known and persons found are matched in the order of the median distance
    of their body points, in body sizes, as long as that is plausible. Whoever is not found for a while (he is hidden,
    the detector fails) is waited for. When he is given up for good (a cut), he is chosen anew among those who
    appeared since he was last seen.
    """

    def __init__(self) -> None:
        self._frame = -1
        self._tracks: list[_Track] = []
        self._him: _Track | None = None

    def __call__(self, people: People) -> int | None:
        self._frame += 1
        points = people.keypoints[:, _BODY] * np.asarray(people.size, dtype=np.float64)
        visible = people.scores[:, _BODY] > VISIBLE_SCORE
        found = _distinct(people, points, visible)
        owner = self._match(points, visible, found)
        if self._him is None or self._frame - self._him.seen > _PATIENCE:
            self._him = self._choose(people, owner)
        self._tracks = [t for t in self._tracks if self._frame - t.seen <= _PATIENCE]
        return next((i for i, track in owner.items() if track is self._him), None)

    def _match(self, points: np.ndarray, visible: np.ndarray, found: list[int]) -> dict[int, _Track]:
        """Give each person found to the track that expected him most closely, or to a new one."""
        owner: dict[int, _Track] = {}
        for distance, t, i in sorted(
            (_distance(track, points[i], visible[i], self._frame), t, i)
            for t, track in enumerate(self._tracks)
            for i in found
        ):
            track = self._tracks[t]
            gate = min(_GATE + _GATE_GROWTH * (self._frame - track.seen - 1), _GATE_LIMIT)
            if distance <= gate and i not in owner and track.seen < self._frame:
                track.update(points[i], visible[i], self._frame)
                owner[i] = track
        for i in found:
            if i not in owner:
                size = _body_size(points[i], visible[i])
                owner[i] = _Track(points[i], visible[i], size, self._frame, self._frame)
                self._tracks.append(owner[i])
        return owner

    def _choose(self, people: People, owner: dict[int, _Track]) -> _Track | None:
        """The best person of this frame whom we have not seen beside the one who was lost."""
        free = [i for i, track in owner.items() if self._him is None or track.since > self._him.seen]
        if not free:
            return self._him
        chosen = choose_person(_subset(people, free))
        return self._him if chosen is None else owner[free[chosen]]


def _subset(people: People, indices: list[int]) -> People:
    arrays = (people.boxes, people.box_scores, people.keypoints, people.scores)
    return People(*(array[indices] for array in arrays), people.fallback, people.size)


def _body_size(points: np.ndarray, visible: np.ndarray) -> float:
    seen = points[visible]
    return max(float(np.ptp(seen, axis=0).max()), 1e-6)


def _distance(track: _Track, points: np.ndarray, visible: np.ndarray, frame: int) -> float:
    """Median distance of the body points from where they are expected, in body sizes."""
    both = visible & track.visible
    expected = track.expected(frame)
    size = max(track.body_size, _body_size(points, visible))
    if both.sum() >= 3:
        return float(np.median(np.linalg.norm(points[both] - expected[both], axis=1))) / size
    centres = points[visible].mean(axis=0) - expected[track.visible].mean(axis=0)
    return float(np.linalg.norm(centres)) / size


def _distinct(people: People, points: np.ndarray, visible: np.ndarray) -> list[int]:
    """Indices of the persons who have a visible body, without second detections of the same one, best first."""
    kept: list[int] = []
    for i in np.argsort(-people.scores[:, _BODY].mean(axis=1), kind="stable"):
        if not visible[i].any():
            continue
        as_track = _Track(points[i], visible[i], _body_size(points[i], visible[i]), 0, 0)
        if all(_distance(as_track, points[k], visible[k], 0) > _SAME_BODY for k in kept):
            kept.append(int(i))
    return kept
