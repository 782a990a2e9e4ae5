"""The demo strip: pictures side by side at one height."""

from collections.abc import Sequence

import cv2
import numpy as np

HEIGHT = 768  # pixels
WIDEST = 3840  # pixels; beyond it many players give up


def panel_layout(sizes: Sequence[tuple[int, int]]) -> tuple[list[int], int]:
    """Widths and the common height of panels with these (width, height); all even, together at most `WIDEST` wide."""
    aspects = [width / height for width, height in sizes]
    height = min(HEIGHT, int(WIDEST / sum(aspects)))
    height = max(2, height // 2 * 2)
    widths = [max(2, int(height * aspect) // 2 * 2) for aspect in aspects]
    return widths, height


def side_by_side(
    pictures: Sequence[np.ndarray],  # RGB uint8, each (h, w, 3)
    widths: Sequence[int],
    height: int,
) -> np.ndarray:
    """The pictures side by side, each `height` high and as wide as `widths` says: (height, sum(widths), 3) uint8."""
    return np.concatenate(
        [fit(picture, width, height) for picture, width in zip(pictures, widths, strict=True)], axis=1
    )


def fit(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resize, averaging areas where the picture shrinks, so that fine patterns do not flicker."""
    if picture.shape[:2] == (height, width):
        return picture
    shrinks = width * height < picture.shape[0] * picture.shape[1]
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
