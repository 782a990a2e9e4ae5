"""Turns decoded video frames into RGB pictures: the one place where a frame becomes an array."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from musepose.media.video_writer import exact_scaling

if TYPE_CHECKING:
    import av


class FrameConverter:
    """Decoded frames → RGB uint8 (height, width, 3), in the size and orientation of the first. Made once a video."""

    def __init__(self, first: av.VideoFrame, stream: av.VideoStream) -> None:
        """`first`: the video's first picture, which decides for all; `stream`: what the container says of it."""
        self._stored, self._matrix = (first.width, first.height), _display_matrix(first)
        height, width = _turn(np.empty((first.height, first.width)), self._matrix).shape
        self.size = width, height  # pixels, as shown
        from av.video.reformatter import VideoReformatter

        self._scaler = VideoReformatter()  # reused: building its tables costs more than converting a frame

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        rgb = self._scaler.reformat(frame, *self._stored, "rgb24", interpolation=exact_scaling())
        return np.ascontiguousarray(_turn(rgb.to_ndarray(), self._matrix))


def _display_matrix(frame: av.VideoFrame) -> tuple[int, int, int, int] | None:
    """a, b, c, d of the video's display matrix (ISO/IEC 14496-12, 6.2.2): x' = a·x + c·y, y' = b·x + d·y.

    It is equal on all frames. Reading `side_data` puts a frame into a reference cycle, and frames pile up in memory.
    """
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return None
    a, b, _, c, d = np.frombuffer(bytes(data), np.int32)[:5].tolist()
    return a, b, c, d


def _turn(picture: np.ndarray, matrix: tuple[int, int, int, int] | None) -> np.ndarray:
    """Apply a display matrix of quarter turns and reflections to (h, w, …); returns a view."""
    if matrix is None:
        return picture
    a, b, c, d = matrix
    if abs(b) > abs(a):
        picture, a, d = picture.swapaxes(0, 1), c, b
    return picture[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
