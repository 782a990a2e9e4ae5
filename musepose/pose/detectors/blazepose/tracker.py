"""Bodies from frame to frame: each is looked for where it was, and the detector runs only where that is not enough."""

from dataclasses import dataclass, field

import numpy as np

from musepose.pose.detectors.blazepose.body import Body, BodyFilters, body_region, find_body
from musepose.pose.detectors.blazepose.boxes import BoxDetector
from musepose.pose.detectors.blazepose.network import Network
from musepose.pose.detectors.blazepose.regions import whole_picture

MOST_PEOPLE = 6
EVERY = 30  # frames after which the detector looks whether somebody has joined
SAME_PERSON = 0.15  # median distance of two bodies' landmarks, in half regions of the smaller, below which they are one


@dataclass(eq=False)
class Track:
    """Somebody who is followed."""

    body: Body  # where last seen, filtered
    filters: BodyFilters = field(default_factory=BodyFilters)


class BodyFinder:
    """The detector and the landmark network together. It keeps nothing from call to call."""

    def __init__(self, detect: BoxDetector, landmark: Network) -> None:
        self._detect, self.landmark = detect, landmark

    def __call__(
        self,
        picture: np.ndarray,  # (h, w, 3) uint8 RGB
        known: list[Body],
    ) -> list[Body]:
        """Those in the picture who are not known yet, the surest first; at most six in all."""
        found: list[Body] = []
        for points in self._detect(picture, whole_picture(picture)).points:
            if len(known) + len(found) >= MOST_PEOPLE:
                break
            body = find_body(self.landmark, picture, body_region(points[:2]))
            if body is not None and not any(is_same(body, other) for other in (*known, *found)):
                found.append(body)
        return found


class Tracker:
    """Everybody's body in the frames of a video, which come one by one."""

    def __init__(self, find: BodyFinder) -> None:
        self._find = find
        self._tracks: list[Track] = []
        self._frame = 0

    def __call__(
        self,
        picture: np.ndarray,  # (h, w, 3) uint8 RGB
    ) -> list[tuple[Track, Body]]:
        """Who is in the frame, those followed longest first. The same person's track is the same object."""
        before, self._tracks = self._tracks, []
        for track in before:
            body = find_body(self._find.landmark, picture, track.body.region)
            if body is not None and not any(is_same(body, other.body) for other in self._tracks):
                self._add(track, body)
        if len(self._tracks) < max(1, len(before)) or self._frame % EVERY == 0:
            for body in self._find(picture, [track.body for track in self._tracks]):
                self._add(Track(body), body)
        self._frame += 1
        return [(track, track.body) for track in self._tracks]

    def _add(self, track: Track, body: Body) -> None:
        track.body = track.filters(body)
        self._tracks.append(track)


def is_same(one: Body, other: Body) -> bool:
    """Whether two bodies are one person found twice."""
    distance = np.median(np.linalg.norm(one.landmarks[:, :2] - other.landmarks[:, :2], axis=1))
    return distance < SAME_PERSON * min(one.region.width, other.region.width) / 2
