"""The interface of a pose detector: frames in, People out."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from musepose.pose.types import People


class Detector(Protocol):
    """The interface. `musepose.pose.detectors.dwpose.detector.PoseDetector` documents the methods."""

    frames_at_once: int

    def __call__(self, rgb: np.ndarray) -> People: ...

    def prepare(self, rgb: np.ndarray) -> Any: ...

    def detect(self, pictures: Sequence[Any]) -> list[People]: ...

    def detect_inside(
        self, pictures: Sequence[Any], boxes: Sequence[np.ndarray], box_scores: Sequence[np.ndarray]
    ) -> list[People]: ...
