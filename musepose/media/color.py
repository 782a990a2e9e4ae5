"""Turns decoded video frames into RGB pictures: the one place where a frame becomes an array."""

from __future__ import annotations

import logging
from fractions import Fraction
from functools import cache, partial
from typing import TYPE_CHECKING

import numpy as np

from musepose.media.containers import to_fraction
from musepose.media.lookup_table import PIXEL_FORMAT, LookupTable
from musepose.media.tone_mapping import BT709, BT2020, SRGB, UNSPECIFIED, is_hdr, needs_conversion, to_sdr
from musepose.media.video_writer import exact_scaling

if TYPE_CHECKING:
    import av

logger = logging.getLogger(__name__)

# Matrix codes of ITU-T H.273 that swscale converts.
KNOWN_MATRICES = {BT709, 4, 5, 6, 7, BT2020}
HD_LINES = 720  # untagged video of so many lines is BT.709, as players take it; below, BT.601
MATRIX_NAMES = {0: "RGB", 3: "reserved", 8: "YCgCo", 10: "BT.2020 constant luminance", 11: "SMPTE 2085"}
MATRIX_NAMES |= {12: "from primaries", 13: "from primaries, constant luminance", 14: "ICtCp", 15: "IPT-C2"}
MAX_STRETCH = 4  # sample aspect ratios beyond it are mistakes


class FrameConverter:
    """Decoded frames → RGB uint8 (height, width, 3), in the shape and orientation of the first. Made once a video.

    Square pixels: the side that the sample aspect ratio makes longer is enlarged. A frame of another shape is
    letter-boxed, black. HDR and wide-gamut colours become SDR, see tone_mapping.py; transparency lies on white.
    """

    def __init__(self, first: av.VideoFrame, stream: av.VideoStream, ratio: Fraction | None = None) -> None:
        """`first`: the video's first picture, which decides for all; `stream`: what the container says of it.

        `ratio`: the sample aspect ratio that the coded video states for it.
        """
        self._stream, self._matrix, self._ratio = stream, _display_matrix(first), ratio
        self._stored = (first.width, first.height)
        self._canvas = _square_pixels(self._stored, to_fraction(stream.sample_aspect_ratio))
        height, width = _turn(np.empty(self._canvas[::-1]), self._matrix).shape
        self.size = width, height  # pixels, as shown
        self._tables: dict[tuple[int, int], LookupTable] = {}
        from av.video.reformatter import VideoReformatter

        # Reused: building their tables costs more than converting a frame.
        self._scaler, self._to_table, self._from_table = VideoReformatter(), VideoReformatter(), VideoReformatter()

    def __call__(self, frame: av.VideoFrame, ratio: Fraction | None = None) -> np.ndarray:
        """`ratio`: the sample aspect ratio that the coded video states for this frame; None: that of the first."""
        size, ratio = self._canvas, ratio or self._ratio
        if (frame.width, frame.height) != self._stored or ratio != self._ratio:
            size = self._fitted(frame, ratio)
        picture = self._to_rgb(frame, *size)
        if size != self._canvas:
            picture = _letterbox(picture, *self._canvas)
        return np.ascontiguousarray(_turn(picture, self._matrix))

    def _fitted(self, frame: av.VideoFrame, ratio: Fraction | None) -> tuple[int, int]:
        """The size within the first frame's at which a frame of another shape keeps its own."""
        shown = _square_pixels((frame.width, frame.height), ratio)
        scale = min(Fraction(whole, own) for whole, own in zip(self._canvas, shown, strict=True))
        fitted = tuple(max(1, round(own * scale)) for own in shown)
        # The same shape at another resolution, whose sides were rounded, gets no bars.
        alike = all(abs(a - b) <= 2 for a, b in zip(fitted, self._canvas, strict=True))
        return self._canvas if alike else fitted

    def _to_rgb(self, frame: av.VideoFrame, width: int, height: int) -> np.ndarray:
        matrix, transfer, primaries = self._colours(frame)
        if matrix is not None:
            frame.colorspace = matrix  # PyAV 17 knows no code for BT.2020 among the scaler's options
        convert = partial(self._scaler.reformat, frame, width, height, interpolation=exact_scaling())
        if needs_conversion(transfer, primaries):
            table = self._tables.get((transfer, primaries))
            if table is None:
                target = SRGB if transfer == SRGB else BT709
                table = LookupTable(partial(to_sdr, transfer=transfer, primaries=primaries, target=target))
                self._tables[transfer, primaries] = table
            mapped = table(convert(PIXEL_FORMAT))
            return self._from_table.reformat(mapped, format="rgb24").to_ndarray()
        if has_alpha(frame.format):
            return _on_white(convert("rgba").to_ndarray())
        return convert("rgb24").to_ndarray()

    def _colours(self, frame: av.VideoFrame) -> tuple[int | None, int, int]:
        """Matrix (None: as the frame says), transfer characteristics and primaries, codes of ITU-T H.273."""
        matrix, transfer, primaries = frame.colorspace, frame.color_trc, frame.color_primaries
        if frame.format.is_rgb or frame.format.has_palette or matrix in KNOWN_MATRICES:
            return None, transfer, primaries
        if _is_grey(frame.format):
            return BT709, transfer, primaries  # for its luma all are alike
        if matrix != UNSPECIFIED:
            _warn(self._stream.container.name, matrix)
            return BT709, BT709, BT709
        if is_hdr(transfer) or primaries == BT2020:
            return BT2020, transfer, BT2020 if primaries == UNSPECIFIED else primaries
        return (BT709 if frame.height >= HD_LINES else None), transfer, primaries


def has_alpha(pixel_format: av.VideoFormat) -> bool:
    return any(component.is_alpha for component in pixel_format.components)


def _is_grey(pixel_format: av.VideoFormat) -> bool:
    return sum(not component.is_alpha for component in pixel_format.components) == 1


@cache
def _warn(name: str, matrix: int) -> None:
    """Once a video, which is opened several times."""
    told = f"{matrix}, {MATRIX_NAMES[matrix]}" if matrix in MATRIX_NAMES else str(matrix)
    logger.warning("%s: its colour matrix (%s) is not supported: read as BT.709", name.removeprefix("file:"), told)


def _square_pixels(size: tuple[int, int], ratio: Fraction | None) -> tuple[int, int]:
    """The size of a frame of `size` with square pixels; no side becomes shorter."""
    width, height = size
    if ratio is None or ratio <= 0 or not Fraction(1, MAX_STRETCH) <= ratio <= MAX_STRETCH:
        return size
    return (round(width * ratio), height) if ratio > 1 else (width, round(height / ratio))


def _letterbox(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    """The picture in the middle of a black one."""
    whole = np.zeros((height, width, picture.shape[2]), picture.dtype)
    top, left = (height - picture.shape[0]) // 2, (width - picture.shape[1]) // 2
    whole[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return whole


def _on_white(rgba: np.ndarray) -> np.ndarray:
    alpha = rgba[..., 3:].astype(np.uint16)
    if alpha.min(initial=255) == 255:
        return rgba[..., :3]
    mixed = rgba[..., :3] * alpha + 255 * (255 - alpha)
    return ((mixed + 127) // 255).astype(np.uint8)


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
