"""A 3D lookup table for the colours of a video's frames, applied by FFmpeg."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import av

LEVEL = 8  # of the Hald image: 64 nodes a channel in 512 x 512 pixels
PIXEL_FORMAT = "rgb48le"  # in planar formats FFmpeg 8.1's haldclut exchanges the channels
TIME_BASE = Fraction(1, 30)  # of no meaning, but the filter wants frames in order


class LookupTable:
    """Maps R'G'B' of frames through a function that is evaluated at 64³ nodes, interpolated between them."""

    def __init__(
        self,
        function: Callable[[np.ndarray], np.ndarray],  # (…, 3) → (…, 3), 0 to 1
    ) -> None:
        ramp = np.linspace(0, 1, LEVEL**2)
        blue, green, red = np.meshgrid(ramp, ramp, ramp, indexing="ij")
        nodes = np.stack([red, green, blue], axis=-1).reshape(LEVEL**3, LEVEL**3, 3)
        self._image = np.rint(function(nodes) * 65535).astype("<u2")
        self._size: tuple[int, int] | None = None
        self._frames = 0

    def __call__(self, frame: av.VideoFrame) -> av.VideoFrame:
        """A frame in `PIXEL_FORMAT`, mapped. A change of size takes a few milliseconds."""
        if self._size != (frame.width, frame.height):
            self._build(frame.width, frame.height)
        frame.pts, frame.time_base = self._frames, TIME_BASE
        self._frames += 1
        self._source.push(frame)
        return self._sink.pull()

    def _build(self, width: int, height: int) -> None:
        import av
        from av.filter import Graph

        self._size, self._frames = (width, height), 0
        graph, side = Graph(), LEVEL**3
        pixel_format = av.VideoFormat(PIXEL_FORMAT)
        self._source, table = (
            graph.add_buffer(width=w, height=h, format=pixel_format, time_base=TIME_BASE)
            for w, h in ((width, height), (side, side))
        )
        lookup = graph.add("haldclut", "interp=tetrahedral:clut=first")
        self._sink = graph.add("buffersink")
        self._source.link_to(lookup, 0, 0)
        table.link_to(lookup, 0, 1)
        lookup.link_to(self._sink)
        graph.configure()
        image = av.VideoFrame.from_ndarray(self._image, PIXEL_FORMAT)
        image.pts, image.time_base = 0, TIME_BASE
        table.push(image)
        table.push(None)
        self._graph = graph  # keeps the filters alive
