"""Made-up bodies for BlazePose's tests."""

import numpy as np

from musepose.pose.detectors.blazepose.body import Body


def body_at(x: float, y: float, size: float = 100.0, presence: float = 0.9, visible: float = 1.0) -> Body:
    """A body whose hips' centre is at (x, y), upright, as high as `size` pixels above it and below it."""
    across, down = np.meshgrid(np.linspace(-0.3, 0.3, 3), np.linspace(-1, 1, 11))
    spread = np.stack([across.ravel(), down.ravel()], axis=-1) * size
    landmarks = np.concatenate([spread + [x, y], np.arange(33.0)[:, None]], axis=1)
    metres = np.arange(99.0).reshape(33, 3) / 100
    return Body(landmarks, np.full(33, visible), metres, np.array([[x, y], [x, y - size]]), presence)
