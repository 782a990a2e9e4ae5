"""The 68 face points (iBUG order) of a face with an expression, on the front of an ellipsoid.

Axes as the head's: x to the person's left (the image's right when frontal), y up, z forward, in half-heads.
"""

import numpy as np

from puppet.character import Face

EYE_Y = -0.10
DEPTH = 0.86  # of the head


def surface(x: np.ndarray, y: np.ndarray, width: float) -> np.ndarray:
    """z of the face's surface at (x, y)."""
    return DEPTH * np.sqrt(np.maximum(1 - 0.80 * (x / width) ** 2 - 0.42 * (y / 1.05) ** 2, 0.02))


def jaw_line(face: Face) -> np.ndarray:
    """From the right ear round the chin to the left ear, (17, 2)."""
    t = np.linspace(-1, 1, 17)
    x = np.sign(t) * face.width * np.sin(np.abs(t) * np.pi / 2) ** face.jaw
    return np.stack([x, -1 + 1.08 * (1 - np.cos(t * np.pi / 2)) ** 1.15], 1)


def _eye(middle: float, face: Face, closed: float) -> np.ndarray:
    """Six points from the corner at smaller x over the upper lid and back, (6, 2)."""
    half = 0.17 * face.eye_size
    up, down = 0.15 * face.eye_size * (1 - closed), 0.095 * face.eye_size * (1 - closed)
    x = np.array([-1, -0.42, 0.42, 1, 0.42, -0.42]) * half + middle
    return np.stack([x, EYE_Y + np.array([0, up, up, 0, -down, -down]) - 0.05 * closed], 1)


def _mouth(face: Face, smile: float, opening: float) -> np.ndarray:
    """Outer lips (12) and inner lips (8), (20, 2)."""
    w = face.mouth * (1 + 0.14 * smile - 0.22 * opening)
    gap, lip, y = 0.20 * opening, 0.050, -0.56
    corner = 0.12 * smile
    across = np.array([-1, -0.66, -0.25, 0, 0.25, 0.66, 1])
    bow = corner * np.abs(across) ** 1.6
    upper = y + bow + 0.3 * gap * (1 - across**2) + lip * np.array([0, 0.75, 1.0, 0.8, 1.0, 0.75, 0])
    low = across[1:-1][::-1]
    lower = y + corner * np.abs(low) ** 1.6 - (gap + 1.25 * lip) * (1 - low**2) ** 0.7
    outer = np.concatenate([np.stack([across * w, upper], 1), np.stack([low * w, lower], 1)])
    inner_x = np.array([-0.86, -0.4, 0, 0.4, 0.86])
    inner_bow = corner * np.abs(inner_x) ** 1.6
    top = np.stack([inner_x * w, y + inner_bow + 0.3 * gap * (1 - inner_x**2)], 1)
    bottom_x = inner_x[1:-1][::-1]
    bottom = y + corner * np.abs(bottom_x) ** 1.6 - gap * (1 - bottom_x**2) ** 0.7
    return np.concatenate([outer, top, np.stack([bottom_x * w, bottom], 1)])


def face_points(face: Face, expression: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """68 points (68, 3) and the ears, left and right (2, 3), for (smile, open, brows, closed, gaze)."""
    smile, opening, brows, closed, _ = expression
    jaw = jaw_line(face)
    jaw[:, 1] -= 0.09 * opening * np.cos(np.linspace(-1, 1, 17) * np.pi / 2) ** 2

    t = np.linspace(-1, 1, 5)
    arch = EYE_Y + 0.29 + 0.03 * face.eye_size + 0.045 * (1 - t**2) + 0.05 * brows
    brow = [np.stack([s * face.eye_gap + 0.21 * t, arch + s * -0.035 * t], 1) for s in (-1, 1)]
    bridge = np.stack([np.zeros(4), np.linspace(-0.06, -0.34, 4)], 1)
    base = np.stack([face.nose * t, -0.41 - 0.02 * (1 - t**2)], 1)
    eyes = [_eye(s * face.eye_gap, face, closed) for s in (-1, 1)]

    flat = np.concatenate([jaw, *brow, bridge, base, *eyes, _mouth(face, smile, opening)])
    z = surface(flat[:, 0], flat[:, 1], face.width)
    z[:17] = 0.62 * np.cos(np.linspace(-1, 1, 17) * np.pi / 2) ** 0.8 - 0.02
    z[27:31] += np.linspace(0.02, 0.22, 4)
    z[31:36] += 0.08
    ears = np.array([[face.width * 1.02, -0.12, -0.06], [-face.width * 1.02, -0.12, -0.06]])
    return np.concatenate([flat, z[:, None]], 1), ears
