"""Finds all people in the frames of a video, in batches with prefetch; YOLOX may run on every n-th frame only.

Between those frames each person's box is derived from the keypoints in the previous frame, as top-down trackers do
(for example MediaPipe's BlazePose, V. Bazarevsky et al. 2020). YOLOX's box extends beyond the bounding rectangle of the
visible keypoints by a margin on each side (hair, clothes, a hidden hand). That margin, in units of the rectangle's
larger side, is measured in frames where YOLOX has run, and kept in between. So the keypoint network sees the same crops
as with YOLOX's boxes.
"""

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np

from musepose.pose.detectors.base import BoxDetector
from musepose.pose.person_tracking import distinct_people
from musepose.pose.types import BODY, VISIBLE_SCORE, People
from musepose.utils.prefetch import prefetch

MIN_VISIBLE = 5  # visible body points required to track a person …
RELIABLE_SCORE = 0.3  # … and required mean score of all 17
MARGINS = (-0.1, 0.5)  # limits of the margin between keypoints and box, in sides of the keypoints' rectangle


def find_people(
    detector: BoxDetector,
    frames: Iterable[np.ndarray],  # RGB, each (h, w, 3) uint8
    every: int = 1,  # YOLOX runs on frames 0, every, 2·every, …
) -> Iterator[People]:
    """All people in each frame, in order. Batches depend on frame numbers only, not on timing.

    A thread prefetches and prepares frames; close or exhaust this iterator to end it. With `every` above 1, a person
    who appears between two YOLOX frames is found in the second. YOLOX runs immediately where a person's keypoints
    become unreliable, where two people's keypoints coincide, or where no person is tracked.

    Raises what `frames` raises; ValueError if `every` is below 1.
    """
    if every < 1:
        raise ValueError(f"every {every} frames")
    largest = detector.frames_at_once
    size = largest if every >= largest else largest // every * every  # of a batch
    tracker = _Tracker(detector, every)
    with closing(prefetch((detector.prepare(frame) for frame in frames), size)) as prepared:
        while batch := list(islice(prepared, size)):
            yield from tracker.process(batch)


@dataclass(frozen=True)
class _Tracked:
    """The people of a frame, and the margins of their boxes when YOLOX last ran."""

    people: People
    margins: np.ndarray  # (n, 4) offsets of x0 y0 x1 y1, in sides of the keypoints' rectangle


class _Tracker:
    """The state of `find_people`."""

    def __init__(self, detector: BoxDetector, every: int) -> None:
        self._detector, self._every = detector, every
        self._number = 0  # of the next frame
        self._last: _Tracked | None = None  # the previous frame

    def process(self, batch: list[Any]) -> list[People]:
        """The people of the next frames. The runs of frames between YOLOX frames advance in parallel, as one batch."""
        done: dict[int, _Tracked] = {} if self._last is None else {-1: self._last}
        starts = [i for i in range(len(batch)) if (self._number + i) % self._every == 0]
        self._detect(batch, starts, done)
        while front := [i for i in range(len(batch)) if i not in done and i - 1 in done]:
            lost = self._track(batch, front, done)
            self._detect(batch, lost, done)
        self._number += len(batch)
        self._last = done[len(batch) - 1]
        return [done[i].people for i in range(len(batch))]

    def _detect(self, batch: list[Any], which: list[int], done: dict[int, _Tracked]) -> None:
        if which:
            for i, people in zip(which, self._detector.detect([batch[i] for i in which]), strict=True):
                done[i] = _Tracked(people, _margins(people))

    def _track(self, batch: list[Any], which: list[int], done: dict[int, _Tracked]) -> list[int]:
        """Detect keypoints in boxes derived from the previous frames. → the frames where tracking failed."""
        before = {i: tracked for i in which if (tracked := _next_boxes(done[i - 1])) is not None}
        if before:
            boxes = [one.people.boxes for one in before.values()]
            scores = [one.people.box_scores for one in before.values()]
            found = self._detector.detect_inside([batch[i] for i in before], boxes, scores)
            for (i, one), people in zip(before.items(), found, strict=True):
                if _reliable(people).all() and len(distinct_people(people)) == len(people.boxes):
                    done[i] = replace(one, people=people)
        return [i for i in which if i not in done]


def _next_boxes(tracked: _Tracked) -> _Tracked | None:
    """A frame's distinct people with their boxes for the next frame; None if there are none or one is unreliable."""
    people = tracked.people
    kept = [] if people.fallback else sorted(distinct_people(people))
    if not kept or not _reliable(people)[kept].all():
        return None
    chosen = {name: getattr(people, name)[kept] for name in ("box_scores", "keypoints", "scores")}
    rectangles, side = _rectangles(people)
    boxes = np.clip(rectangles + tracked.margins * side, 0, np.tile(people.size, 2))[kept]
    if (boxes[:, 2:] - boxes[:, :2] < 1).any():  # the person has left the picture
        return None
    return _Tracked(replace(people, boxes=boxes, **chosen), tracked.margins[kept])


def _reliable(people: People) -> np.ndarray:
    """(n,) bool, whether a person's keypoints are good enough to track."""
    body = people.scores[:, BODY]
    return ((body > VISIBLE_SCORE).sum(axis=1) >= MIN_VISIBLE) & (body.mean(axis=1) >= RELIABLE_SCORE)


def _rectangles(people: People) -> tuple[np.ndarray, np.ndarray]:
    """(n, 4) x0 y0 x1 y1 around each person's visible keypoints, in pixels, and (n, 1) the larger side."""
    hidden = (people.scores <= VISIBLE_SCORE)[..., None]
    points = people.keypoints * people.size
    low = np.where(hidden, np.inf, points).min(axis=1)
    high = np.where(hidden, -np.inf, points).max(axis=1)
    return np.concatenate([low, high], axis=1), (high - low).max(axis=1, keepdims=True).clip(min=1)


def _margins(people: People) -> np.ndarray:
    rectangles, side = _rectangles(people)
    outwards = np.array([-1, -1, 1, 1])
    return np.clip((people.boxes - rectangles) * outwards / side, *MARGINS) * outwards
