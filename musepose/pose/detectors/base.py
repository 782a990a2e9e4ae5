"""The interface of a pose detector: frames in, People out."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from musepose.pose.types import People


class Detector(Protocol):
    """All people in pictures and videos. Each detector documents its files and the errors of its constructor."""

    def __call__(self, rgb: np.ndarray) -> People:
        """All people in one picture, (h, w, 3) uint8."""

    def find(self, frames: Iterable[np.ndarray], every: int = 1) -> Iterator[People]:
        """All people in each frame of a video, in order. Close or exhaust the iterator. Raises what `frames` raises.

        `every`: search for people in every n-th frame only, if the detector can follow them in between.
        """


class BoxDetector(Protocol):
    """A detector that finds people's boxes first and then the keypoints in them, as box_tracking.py requires."""

    frames_at_once: int

    def __call__(self, rgb: np.ndarray) -> People: ...

    def prepare(self, rgb: np.ndarray) -> Any: ...

    def detect(self, pictures: Sequence[Any]) -> list[People]: ...

    def detect_inside(
        self, pictures: Sequence[Any], boxes: Sequence[np.ndarray], box_scores: Sequence[np.ndarray]
    ) -> list[People]: ...
