"""Chooses the main person of a picture, and tracks the main person through a video."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from musepose.pose.person_choice import LARGEST, Choice, place_from_left
from musepose.pose.types import BODY, VISIBLE_SCORE, People


def choose_person(people: People, choice: Choice = LARGEST) -> int | None:
    """Index of the chosen person; None if nobody has a visible body joint.

    "largest" is the person with the largest, best-scored body. Raises TooFew: there is no N-th person.
    """
    if choice != LARGEST:
        points, visible = _body_points(people)
        found = _distinct(people, points, visible)
        centres = [_centre(points[i], visible[i]) for i in found]
        return found[place_from_left(choice, centres)] if found else None
    measures = _measures(people)
    return int(measures.argmax()) if (measures > -1).any() else None


def _measures(people: People) -> np.ndarray:
    """(n,) each box's area inside the picture times the mean score of the 17 body points; -1 without a visible body.

    The area discounts small people in the background, the score people who are partly outside the picture.
    """
    body = people.scores[:, BODY]
    corners = np.clip(people.boxes.reshape(-1, 2, 2), 0, people.size if people.size != (1, 1) else np.inf)
    area = (corners[:, 1] - corners[:, 0]).clip(min=0).prod(axis=1)
    return np.where((body > VISIBLE_SCORE).any(axis=1), area * body.mean(axis=1), -1)


def distinct_people(people: People) -> list[int]:
    """Indices of the people with a visible body, without duplicate detections, highest score first."""
    return _distinct(people, *_body_points(people))


# Distances below are in body sizes: the larger side of the rectangle around the visible body points.
_GATE = 0.6  # a detection farther than this from a track's predicted position is another person
_GATE_GROWTH = 0.06  # added for every frame without a detection …
_GATE_LIMIT = 1.5  # … up to this
_DUPLICATE = 0.05  # two detections closer than this are one person
_MAX_AGE = 30  # frames without a detection after which a track ends
_COASTING = 8  # frames without a detection for which a track keeps its velocity
_UPPER_QUARTILE = 75
_FALLBACK_WEIGHT = 0.01
_STEADY = 0.5  # people seen in fewer frames than this share of the most frequent one's are not counted from the left
_VELOCITY_SMOOTHING = 0.5  # weight of the earlier frames in the velocity


@dataclass(eq=False)
class _Track:
    """The track of one person; lengths in pixels."""

    points: np.ndarray  # (17, 2) body points, each where it was last visible
    visible: np.ndarray  # (17,) bool
    body_size: float
    first_seen: int  # frame of the first detection
    last_seen: int  # frame of the last detection
    velocity: np.ndarray = field(default_factory=lambda: np.zeros(2))  # pixels per frame

    def predict(self, frame: int) -> np.ndarray:
        return self.points + self.velocity * min(frame - self.last_seen, _COASTING)

    def update(self, points: np.ndarray, visible: np.ndarray, frame: int) -> None:
        both = visible & self.visible
        if both.any():
            step = np.median(points[both] - self.points[both], axis=0) / (frame - self.last_seen)
            self.velocity = _VELOCITY_SMOOTHING * self.velocity + (1 - _VELOCITY_SMOOTHING) * step
        size = _body_size(points, visible)
        # A body that crouches or is partly hidden has not become smaller: the size decreases slowly.
        self.body_size = max(size, 0.9 * self.body_size + 0.1 * size)
        self.points = np.where(visible[:, None], points, self.predict(frame))
        self.visible, self.last_seen = visible, frame


@dataclass
class _Frame:
    """A frame in which it is not yet decided which detection is the main person."""

    number: int
    people: People
    tracks: dict[int, _Track]  # index in `people` -> track


def follow(frames: Iterable[People], choice: Choice = LARGEST) -> Iterator[tuple[People, int | None]]:
    """Track the main person through a video: yields each frame's people with the main person's index, or None.

    The main person has the largest, best-scored body over the first frames that show anyone; several frames, because
    the detector may miss a person in one. Everyone else is tracked too, to avoid identity switches. Tracks predict
    positions at constant velocity. Tracks and detections are matched greedily by the median distance of their body
    points, in body sizes, within a gate. A track without a detection (occlusion, detector failure) is kept for
    `_MAX_AGE` frames. If the main person does not return by then (a cut), a new one is chosen among the tracks that
    began since, starting with their first frame. So output may lag input by up to `_MAX_AGE` frames.

    `choice`: instead of the largest, the person at that place from left to right over those first frames, among those
    who are seen in at least half as many of them as the most frequent one. If there are fewer people after a cut, the
    last of them is taken. Raises TooFew: at the start there is no N-th person.
    """
    tracker = _Tracker(choice)
    for people in frames:
        yield from tracker.update(people)
    yield from tracker.decided(at_the_end=True)


class _Tracker:
    """The state of `follow`."""

    def __init__(self, choice: Choice) -> None:
        self._choice = choice
        self._frame = -1
        self._tracks: list[_Track] = []
        self._main: _Track | None = None
        self._undecided: deque[_Frame] = deque()

    def update(self, people: People) -> Iterator[tuple[People, int | None]]:
        self._frame += 1
        points, visible = _body_points(people)
        matched = self._match(points, visible, _distinct(people, points, visible))
        self._tracks = [t for t in self._tracks if self._frame - t.last_seen <= _MAX_AGE]
        self._undecided.append(_Frame(self._frame, people, matched))
        yield from self.decided()

    def decided(self, at_the_end: bool = False) -> Iterator[tuple[People, int | None]]:
        """The frames whose result no later frame can change; at the end of the video, all remaining ones."""
        while self._undecided:
            if self._main_last_seen() < self._undecided[0].number:
                if len(self._undecided) <= _MAX_AGE and not at_the_end:
                    return
                self._choose()
            frame = self._undecided.popleft()
            yield frame.people, next((i for i, track in frame.tracks.items() if track is self._main), None)

    def _main_last_seen(self) -> int:
        return -1 if self._main is None else self._main.last_seen

    def _choose(self) -> None:
        """Choose a new main person from the first undecided frame on, among tracks that began after the loss."""
        lost = self._main_last_seen()
        if all(track.first_seen <= lost for track in self._undecided[0].tracks.values()):
            return
        measures: dict[_Track, np.ndarray] = {}
        centres: dict[_Track, list[float]] = {}
        for n, frame in enumerate(self._undecided):
            # A fallback box is the whole picture: its size says nothing about the body's.
            weights = _measures(frame.people) * (_FALLBACK_WEIGHT if frame.people.fallback else 1)
            points, visible = _body_points(frame.people)
            for i, track in frame.tracks.items():
                if track.first_seen > lost:
                    measures.setdefault(track, np.zeros(len(self._undecided)))[n] = weights[i]
                    if not frame.people.fallback:
                        centres.setdefault(track, []).append(_centre(points[i], visible[i]))
        # A percentile, because crouching or a short occlusion should not rule out the main person, nor should a person
        # who crosses the picture close to the camera win.
        rank = {track: (np.percentile(m, _UPPER_QUARTILE), m.sum()) for track, m in measures.items()}
        chosen = self._by_place(centres) if self._choice != LARGEST and centres else None
        while rank:
            self._main, chosen = chosen or max(rank, key=rank.__getitem__), None
            # An earlier track that ended before this one began may come first (a cut, a jump): look for one.
            rank = {track: value for track, value in rank.items() if track.last_seen < self._main.first_seen}

    def _by_place(self, centres: dict[_Track, list[float]]) -> _Track:
        """The track at the chosen place from left to right, by its positions in the undecided frames."""
        most = max(map(len, centres.values()))
        tracks = [track for track, seen in centres.items() if len(seen) >= _STEADY * most]
        first = self._main is None
        choice = self._choice if first or isinstance(self._choice, str) else min(self._choice, len(tracks))
        return tracks[place_from_left(choice, [float(np.median(centres[track])) for track in tracks])]

    def _match(self, points: np.ndarray, visible: np.ndarray, found: list[int]) -> dict[int, _Track]:
        """Assign each detection to the track whose prediction is closest, or to a new track."""
        matched: dict[int, _Track] = {}
        for distance, t, i in sorted(
            (_distance(track, points[i], visible[i], self._frame), t, i)
            for t, track in enumerate(self._tracks)
            for i in found
        ):
            track = self._tracks[t]
            gate = min(_GATE + _GATE_GROWTH * (self._frame - track.last_seen - 1), _GATE_LIMIT)
            if distance <= gate and i not in matched and track.last_seen < self._frame:
                track.update(points[i], visible[i], self._frame)
                matched[i] = track
        for i in found:
            if i not in matched:
                size = _body_size(points[i], visible[i])
                matched[i] = _Track(points[i], visible[i], size, self._frame, self._frame)
                self._tracks.append(matched[i])
        return matched


def _body_points(people: People) -> tuple[np.ndarray, np.ndarray]:
    """(n, 17, 2) in pixels, and (n, 17) bool, which are visible."""
    return people.keypoints[:, BODY] * np.asarray(people.size, np.float64), people.scores[:, BODY] > VISIBLE_SCORE


def _centre(points: np.ndarray, visible: np.ndarray) -> float:
    """The x of the middle of the visible body points, pixels."""
    return float(np.median(points[visible, 0]))


def _body_size(points: np.ndarray, visible: np.ndarray) -> float:
    seen = points[visible]
    return max(float(np.ptp(seen, axis=0).max()), 1e-6)


def _distance(track: _Track, points: np.ndarray, visible: np.ndarray, frame: int) -> float:
    """Median distance of the body points from their predicted positions, in body sizes."""
    both = visible & track.visible
    predicted = track.predict(frame)
    size = max(track.body_size, _body_size(points, visible))
    if both.sum() >= 3:
        return float(np.median(np.linalg.norm(points[both] - predicted[both], axis=1))) / size
    centres = points[visible].mean(axis=0) - predicted[track.visible].mean(axis=0)
    return float(np.linalg.norm(centres)) / size


def _distinct(people: People, points: np.ndarray, visible: np.ndarray) -> list[int]:
    """Indices of the people with a visible body, without duplicate detections, highest score first."""
    kept: list[int] = []
    for i in np.argsort(-people.scores[:, BODY].mean(axis=1), kind="stable"):
        if not visible[i].any():
            continue
        as_track = _Track(points[i], visible[i], _body_size(points[i], visible[i]), 0, 0)
        if all(_distance(as_track, points[k], visible[k], 0) > _DUPLICATE for k in kept):
            kept.append(int(i))
    return kept
