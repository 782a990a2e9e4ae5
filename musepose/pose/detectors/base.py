"""The interface of a pose detector: frames in, People out."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from musepose.pose.types import People


class Detector(Protocol):
    """Everybody in pictures and videos. What each needs, and raises when it is made, is its own."""

    def __call__(self, rgb: np.ndarray) -> People:
        """Everybody in one picture, (h, w, 3) uint8."""

    def find(self, frames: Iterable[np.ndarray], every: int = 1) -> Iterator[People]:
        """Everybody in each frame of a video, in order; close the iterator, or exhaust it. Raises what `frames` raises.

        `every`: people need to be looked for in every n-th frame only, where the detector can follow them in between.
        """


class BoxDetector(Protocol):
    """A detector that finds people's boxes first and then the points in them, for box_tracking.py to follow."""

    frames_at_once: int

    def __call__(self, rgb: np.ndarray) -> People: ...

    def prepare(self, rgb: np.ndarray) -> Any: ...

    def detect(self, pictures: Sequence[Any]) -> list[People]: ...

    def detect_inside(
        self, pictures: Sequence[Any], boxes: Sequence[np.ndarray], box_scores: Sequence[np.ndarray]
    ) -> list[People]: ...
