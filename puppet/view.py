"""From points in space to the picture: a camera far away and a little above the dancer."""

from dataclasses import dataclass

import numpy as np

PITCH = np.deg2rad(7.0)  # how far the camera looks down
CAMERA = np.array([[1.0, 0.0], [0.0, -np.cos(PITCH)], [0.0, np.sin(PITCH)]])  # y of pictures goes down


@dataclass(frozen=True)
class View:
    """Where a figure stands in the picture, in pixels."""

    x: float  # of the world's origin
    floor: float  # y of the world's origin
    unit: float  # pixels to the length 1

    def project(self, points: np.ndarray) -> np.ndarray:
        """Points (..., 3) to pixels (..., 2); pixel centres lie at halves."""
        return points @ (self.unit * CAMERA) + (self.x, self.floor)

    def direction(self, vectors: np.ndarray) -> np.ndarray:
        """Vectors (..., 3) to picture vectors (..., 2) in pixels."""
        return vectors @ (self.unit * CAMERA)


def nearness(points: np.ndarray) -> np.ndarray:
    """How near the camera points (..., 3) are, in body lengths."""
    return points[..., 2] * np.cos(PITCH) + points[..., 1] * np.sin(PITCH)
