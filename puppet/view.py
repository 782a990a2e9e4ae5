"""Projection of 3-D points to the image: an orthographic camera a little above the dancer."""

from dataclasses import dataclass

import numpy as np

PITCH = np.deg2rad(7.0)  # how far the camera looks down
CAMERA = np.array([[1.0, 0.0], [0.0, -np.cos(PITCH)], [0.0, np.sin(PITCH)]])  # y points down in images


@dataclass(frozen=True)
class View:
    """Position and scale of a figure in the image, in pixels."""

    x: float  # of the world's origin
    floor: float  # y of the world's origin
    unit: float  # pixels per unit length

    def project(self, points: np.ndarray) -> np.ndarray:
        """Points (..., 3) → pixels (..., 2); pixel centres lie at halves."""
        return points @ (self.unit * CAMERA) + (self.x, self.floor)

    def direction(self, vectors: np.ndarray) -> np.ndarray:
        """Vectors (..., 3) → image vectors (..., 2) in pixels."""
        return vectors @ (self.unit * CAMERA)


def nearness(points: np.ndarray) -> np.ndarray:
    """Negative depth of points (..., 3): larger is nearer to the camera; body lengths."""
    return points[..., 2] * np.cos(PITCH) + points[..., 1] * np.sin(PITCH)
