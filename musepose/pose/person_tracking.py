"""The same person from frame to frame, and who of several people in a picture is meant."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from musepose.pose.person_choice import LARGEST, Choice, place_from_left
from musepose.pose.types import BODY, VISIBLE_SCORE, People


def choose_person(people: People, choice: Choice = LARGEST) -> int | None:
    """Index of the person who is meant; None where no body joint of anybody is visible.

    The largest is the one with the largest, best-scored body. Raises TooFew: there is no N-th person.
    """
    if choice != LARGEST:
        points, visible = _body_points(people)
        found = _distinct(people, points, visible)
        centres = [_centre(points[i], visible[i]) for i in found]
        return found[place_from_left(choice, centres)] if found else None
    measures = _measures(people)
    return int(measures.argmax()) if (measures > -1).any() else None


def _measures(people: People) -> np.ndarray:
    """(n,) the area of each box inside the picture times the mean score of the 17 body points; -1 without a body.

    Somebody small in the background loses by the first factor, somebody half out of the picture by the second.
    """
    body = people.scores[:, BODY]
    corners = np.clip(people.boxes.reshape(-1, 2, 2), 0, people.size if people.size != (1, 1) else np.inf)
    area = (corners[:, 1] - corners[:, 0]).clip(min=0).prod(axis=1)
    return np.where((body > VISIBLE_SCORE).any(axis=1), area * body.mean(axis=1), -1)


def distinct_people(people: People) -> list[int]:
    """Indices of those who have a visible body, without second detections of the same one, best first."""
    return _distinct(people, *_body_points(people))


# Distances below are in body sizes: the larger side of the rectangle around the visible body points.
_GATE = 0.6  # farther than this from where he was expected, it is somebody else
_GATE_GROWTH = 0.06  # for every frame in which he was not found …
_GATE_LIMIT = 1.5  # … up to this
_SAME_BODY = 0.05  # two detections closer than this are one person
_PATIENCE = 30  # frames after which somebody not found is given up
_COASTING = 8  # frames for which a lost person is expected to move on as he did
_UPPER_QUARTILE = 75
_FALLBACK_WEIGHT = 0.01
_STEADY = 0.5  # who is seen in fewer frames than this portion of the most seen one's has no place from left to right
_INERTIA = 0.5  # weight of the earlier frames in his speed


@dataclass(eq=False)
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


@dataclass
class _Frame:
    """A frame in which it is not decided yet who of those found is the one to follow."""

    number: int
    people: People
    owner: dict[int, _Track]  # index among the people found -> whose track it is


def follow(frames: Iterable[People], choice: Choice = LARGEST) -> Iterator[tuple[People, int | None]]:
    """Follow one person through the frames of a video: each frame again, with his index in it, or None.

    He is the one with the largest, best-scored body over the first frames that show somebody; in a single one the
    detector may have missed him. Everybody else is followed too, so as not to be mistaken for him. Each person known is
    expected where his speed takes him; persons known and persons found are paired in the order of the median distance
    of their body points, in body sizes, as long as that is plausible. Whoever is not found for a while (he is hidden,
    the detector fails) is waited for. When he does not come back (a cut), he is chosen anew among those who appeared
    since, from the frame on in which they did. So a frame may come out up to `_PATIENCE` frames late.

    `choice`: instead of the largest, the one at that place from left to right over those first frames, among those who
    are seen in at least half as many of them as the one who is seen most. When there are fewer people after a cut, the
    last of them is taken. Raises TooFew: at the start there is no N-th person.
    """
    follower = _Follower(choice)
    for people in frames:
        yield from follower.take(people)
    yield from follower.decided(at_the_end=True)


class _Follower:
    """The state of `follow`."""

    def __init__(self, choice: Choice) -> None:
        self._choice = choice
        self._frame = -1
        self._tracks: list[_Track] = []
        self._him: _Track | None = None
        self._waiting: deque[_Frame] = deque()

    def take(self, people: People) -> Iterator[tuple[People, int | None]]:
        self._frame += 1
        points, visible = _body_points(people)
        owner = self._match(points, visible, _distinct(people, points, visible))
        self._tracks = [t for t in self._tracks if self._frame - t.seen <= _PATIENCE]
        self._waiting.append(_Frame(self._frame, people, owner))
        yield from self.decided()

    def decided(self, at_the_end: bool = False) -> Iterator[tuple[People, int | None]]:
        """The frames for which no later one can change the answer; at the end of the video all that are left."""
        while self._waiting:
            if self._lost_since() < self._waiting[0].number:
                if len(self._waiting) <= _PATIENCE and not at_the_end:
                    return
                self._choose()
            frame = self._waiting.popleft()
            yield frame.people, next((i for i, track in frame.owner.items() if track is self._him), None)

    def _lost_since(self) -> int:
        return -1 if self._him is None else self._him.seen

    def _choose(self) -> None:
        """Who is followed from the first waiting frame on, among those not seen beside the one who was lost."""
        lost = self._lost_since()
        if all(track.since <= lost for track in self._waiting[0].owner.values()):
            return
        measures: dict[_Track, np.ndarray] = {}
        centres: dict[_Track, list[float]] = {}
        for n, frame in enumerate(self._waiting):
            # A box that is the whole picture, for want of a better one, is no sign of a large body.
            weights = _measures(frame.people) * (_FALLBACK_WEIGHT if frame.people.fallback else 1)
            points, visible = _body_points(frame.people)
            for i, track in frame.owner.items():
                if track.since > lost:
                    measures.setdefault(track, np.zeros(len(self._waiting)))[n] = weights[i]
                    if not frame.people.fallback:
                        centres.setdefault(track, []).append(_centre(points[i], visible[i]))
        # Neither a crouch nor a moment out of sight counts against him, nor for somebody who crosses the picture.
        rank = {track: (np.percentile(m, _UPPER_QUARTILE), m.sum()) for track, m in measures.items()}
        chosen = self._by_place(centres) if self._choice != LARGEST and centres else None
        while rank:
            self._him, chosen = chosen or max(rank, key=rank.__getitem__), None
            # He may be the end of a chain: before him, another track that ended before his began (a cut, a leap).
            rank = {track: value for track, value in rank.items() if track.seen < self._him.since}

    def _by_place(self, centres: dict[_Track, list[float]]) -> _Track:
        """The track at the chosen place from left to right, from where each was seen in the waiting frames."""
        most = max(map(len, centres.values()))
        tracks = [track for track, seen in centres.items() if len(seen) >= _STEADY * most]
        first = self._him is None
        choice = self._choice if first or isinstance(self._choice, str) else min(self._choice, len(tracks))
        return tracks[place_from_left(choice, [float(np.median(centres[track])) for track in tracks])]

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


def _body_points(people: People) -> tuple[np.ndarray, np.ndarray]:
    """(n, 17, 2) in pixels, and (n, 17) which of them are visible."""
    return people.keypoints[:, BODY] * np.asarray(people.size, np.float64), people.scores[:, BODY] > VISIBLE_SCORE


def _centre(points: np.ndarray, visible: np.ndarray) -> float:
    """The x of the middle of the visible body points, pixels."""
    return float(np.median(points[visible, 0]))


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
    for i in np.argsort(-people.scores[:, BODY].mean(axis=1), kind="stable"):
        if not visible[i].any():
            continue
        as_track = _Track(points[i], visible[i], _body_size(points[i], visible[i]), 0, 0)
        if all(_distance(as_track, points[k], visible[k], 0) > _SAME_BODY for k in kept):
            kept.append(int(i))
    return kept
