"""Filters that take the jitter off landmarks from frame to frame, as MediaPipe sets them."""

import math

import numpy as np

STEP = 0.033333  # seconds between frames, whatever the video's rate: what MediaPipe's filters were tuned with


class LowPass:
    """First-order low-pass filter: each answer is alpha of the new value and the rest of the answer before."""

    def __init__(self, alpha: float) -> None:
        self._alpha = alpha
        self._value: np.ndarray | None = None

    def __call__(self, value: np.ndarray) -> np.ndarray:
        self._value = value if self._value is None else self._alpha * value + (1 - self._alpha) * self._value
        return self._value


class OneEuro:
    """The 1 € filter (G. Casiez, N. Roussel, D. Vogel, CHI 2012): strong on what rests, weak on what moves fast.

    Every number of the array is filtered on its own.
    """

    def __init__(
        self,
        least_cutoff: float,  # Hz, of what rests
        beta: float,  # Hz more for each unit of speed
        speed_cutoff: float = 1.0,  # Hz, of the speed's own filter
    ) -> None:
        self._least_cutoff, self._beta = least_cutoff, beta
        self._speed = LowPass(_alpha(speed_cutoff))
        self._raw: np.ndarray | None = None
        self._value: np.ndarray | None = None

    def __call__(
        self,
        value: np.ndarray,
        size: float = 1.0,  # what speeds are measured in, a second
    ) -> np.ndarray:
        before = value if self._raw is None else self._raw
        speed = self._speed((value - before) / (STEP * size))
        alpha = _alpha(self._least_cutoff + self._beta * np.abs(speed))
        self._raw = value
        self._value = value if self._value is None else alpha * value + (1 - alpha) * self._value
        return self._value


def _alpha(cutoff: float | np.ndarray) -> float | np.ndarray:
    """The low-pass weight of the new value for a cut-off frequency in Hz."""
    return 1 / (1 + 1 / (2 * math.pi * cutoff * STEP))
