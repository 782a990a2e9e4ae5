"""Side-by-side pictures of equal height, for demo videos."""

from collections.abc import Sequence

import cv2
import numpy as np

HEIGHT = 768  # pixels
MAX_WIDTH = 3840  # pixels; many players fail beyond it


def panel_layout(sizes: Sequence[tuple[int, int]]) -> tuple[list[int], int]:
    """Widths and common height of panels for these (width, height): all even, in total at most `MAX_WIDTH` wide."""
    aspects = [width / height for width, height in sizes]
    height = min(HEIGHT, int(MAX_WIDTH / sum(aspects)))
    height = max(2, height // 2 * 2)
    widths = [max(2, int(height * aspect) // 2 * 2) for aspect in aspects]
    return widths, height


def side_by_side(
    pictures: Sequence[np.ndarray],  # RGB uint8, each (h, w, 3)
    widths: Sequence[int],
    height: int,
) -> np.ndarray:
    """Resize the pictures to `widths` and `height`, and concatenate them: (height, sum(widths), 3) uint8."""
    return np.concatenate(
        [fit(picture, width, height) for picture, width in zip(pictures, widths, strict=True)], axis=1
    )


def fit(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resize: area averaging when shrinking, so that fine patterns do not flicker, else bilinear."""
    if picture.shape[:2] == (height, width):
        return picture
    shrinks = width * height < picture.shape[0] * picture.shape[1]
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
