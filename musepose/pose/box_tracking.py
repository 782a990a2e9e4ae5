"""Everybody in the frames of a video: in batches, read ahead, and YOLOX where wanted only on every n-th frame.

In between, each person's box is taken from his keypoints in the frame before, as trackers built on top-down keypoint
networks do (MediaPipe's BlazePose, V. Bazarevsky et al. 2020, for one). YOLOX's box lies around the rectangle of the
visible keypoints at some distance on each side (hair, clothes, a hand cut off); that distance, in units of the
rectangle's larger side, is measured where YOLOX has run, and kept. So the keypoint network goes on seeing the person
as it would with YOLOX's boxes.
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

LEAST_VISIBLE = 5  # body points that a person must show to be followed …
RELIABLE_SCORE = 0.3  # … and the mean score of all 17 that he must reach
MARGINS = (-0.1, 0.5)  # limits of the distance between box and keypoints, in sides of the keypoints' rectangle


def find_people(
    detector: BoxDetector,
    frames: Iterable[np.ndarray],  # RGB, each (h, w, 3) uint8
    every: int = 1,  # YOLOX runs on frames 0, every, 2·every, …
) -> Iterator[People]:
    """Everybody in each frame, in order. Which frames go together depends on their numbers alone, not on speed.

    A thread takes and prepares the next frames meanwhile; close this iterator, or exhaust it, to end the thread. With
    `every` above 1, whoever appears between two such frames is found at the second. Where a person's keypoints cannot
    be trusted any more, where two people have become one, or where there is nobody, YOLOX runs at once.

    Raises what `frames` raises, and ValueError: `every` is below 1.
    """
    if every < 1:
        raise ValueError(f"every {every} frames")
    most = detector.frames_at_once
    together = most if every >= most else most // every * every
    tracker = _Tracker(detector, every)
    with closing(prefetch((detector.prepare(frame) for frame in frames), together)) as prepared:
        while batch := list(islice(prepared, together)):
            yield from tracker.take(batch)


@dataclass(frozen=True)
class _Seen:
    """The people of a frame, and how far YOLOX's boxes were from the keypoints when it last ran."""

    people: People
    margins: np.ndarray  # (n, 4) in sides of the keypoints' rectangle; those of the box's low corner first


class _Tracker:
    """The state of `find_people`."""

    def __init__(self, detector: BoxDetector, every: int) -> None:
        self._detector, self._every = detector, every
        self._number = 0  # of the next frame
        self._last: _Seen | None = None  # the frame before it

    def take(self, batch: list[Any]) -> list[People]:
        """The people of the next frames. Stretches between frames for YOLOX advance side by side, frame by frame."""
        seen: dict[int, _Seen] = {} if self._last is None else {-1: self._last}
        starts = [i for i in range(len(batch)) if (self._number + i) % self._every == 0]
        self._detect(batch, starts, seen)
        while front := [i for i in range(len(batch)) if i not in seen and i - 1 in seen]:
            lost = self._follow(batch, front, seen)
            self._detect(batch, lost, seen)
        self._number += len(batch)
        self._last = seen[len(batch) - 1]
        return [seen[i].people for i in range(len(batch))]

    def _detect(self, batch: list[Any], which: list[int], seen: dict[int, _Seen]) -> None:
        if which:
            for i, people in zip(which, self._detector.detect([batch[i] for i in which]), strict=True):
                seen[i] = _Seen(people, _margins(people))

    def _follow(self, batch: list[Any], which: list[int], seen: dict[int, _Seen]) -> list[int]:
        """Find the people of the frames before again. → the frames where that fails."""
        before = {i: known for i in which if (known := _to_follow(seen[i - 1])) is not None}
        if before:
            boxes = [one.people.boxes for one in before.values()]
            scores = [one.people.box_scores for one in before.values()]
            found = self._detector.detect_inside([batch[i] for i in before], boxes, scores)
            for (i, one), people in zip(before.items(), found, strict=True):
                if _reliable(people).all() and len(distinct_people(people)) == len(people.boxes):
                    seen[i] = replace(one, people=people)
        return [i for i in which if i not in seen]


def _to_follow(seen: _Seen) -> _Seen | None:
    """Those of a frame's people who are somebody, without second detections, in the boxes for the next frame.

    None where there is nobody, or one of them is not to be trusted.
    """
    people = seen.people
    kept = [] if people.fallback else sorted(distinct_people(people))
    if not kept or not _reliable(people)[kept].all():
        return None
    chosen = {name: getattr(people, name)[kept] for name in ("box_scores", "keypoints", "scores")}
    rectangles, side = _rectangles(people)
    boxes = np.clip(rectangles + seen.margins * side, 0, np.tile(people.size, 2))[kept]
    if (boxes[:, 2:] - boxes[:, :2] < 1).any():  # he has left the picture
        return None
    return _Seen(replace(people, boxes=boxes, **chosen), seen.margins[kept])


def _reliable(people: People) -> np.ndarray:
    """(n,) whose keypoints show where he is."""
    body = people.scores[:, BODY]
    return ((body > VISIBLE_SCORE).sum(axis=1) >= LEAST_VISIBLE) & (body.mean(axis=1) >= RELIABLE_SCORE)


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
