"""Pose pictures of a whole video, compressed in a temporary file between their uses."""

import tempfile
import zlib
from collections.abc import Iterable, Iterator, Set
from contextlib import contextmanager
from itertools import groupby
from typing import Any

import numpy as np
import torch
from diffusers.image_processor import VaeImageProcessor
from einops import rearrange
from PIL import Image
from torch import Tensor

from musepose.pipelines.images import Picture, rgb_array
from musepose.utils.errors import UserError
from musepose.utils.prefetch import parallel_map

# zlib's fastest level shrinks skeletons on black 25-fold (72 kB at 768 x 768; 4.4 ms to write, 2.5 ms to read), smaller
# and faster than PNG. So the temporary folder may be a tmpfs.
LEVEL = 1


@contextmanager
def _temporary_folder_errors() -> Iterator[None]:
    """Raises UserError that names the temporary folder, not the output video: it is full or missing."""
    try:
        yield
    except OSError as error:
        folder = tempfile.tempdir or "(none found)"
        raise UserError(
            f"cannot write to the temporary folder {folder} ({error.strerror or error}): free some space, or set TMPDIR"
        ) from error


def _read_wanted(pictures: Any, wanted: Set[int]) -> Iterator[tuple[int, Picture]]:
    """The wanted ones of `pictures`, which can `read` parts, with their indices."""
    needed = sorted({min(index, len(pictures) - 1) for index in wanted})
    for _, run in groupby(enumerate(needed), lambda entry: entry[1] - entry[0]):
        run = [index for _, index in run]
        yield from zip(run, pictures.read(range(run[0], run[-1] + 1)), strict=True)


class PoseFrames:
    """Pose pictures at sampling size in a temporary file, so that memory does not grow with the video.

    Indices past the end give the last frame, which pads the video. Only frames in `wanted` (default: all) are kept.
    Raises ValueError: no picture, or one that `rgb_array` refuses; UserError: the temporary folder cannot
    hold them.
    """

    def __init__(self, pictures: Iterable[Picture], width: int, height: int, wanted: Set[int] | None = None) -> None:
        in_parts = wanted is not None and hasattr(pictures, "read")
        self.shape = (height, width, 3)
        self.length = len(pictures) if in_parts else 0
        self._places: dict[int, tuple[int, int]] = {}  # frame → offset and length in the file
        self._end = 0
        with _temporary_folder_errors():
            # Unbuffered: a full disk must raise here, not when frames are read back.
            self._file = tempfile.TemporaryFile(prefix="musepose-", buffering=0)  # noqa: SIM115 (lives as long as this)
        resizer = VaeImageProcessor()  # the published way to resize, Lanczos on bytes

        def compress(picture: np.ndarray) -> bytes:
            resized = np.asarray(resizer.resize(Image.fromarray(picture), height, width))
            return zlib.compress(resized.tobytes(), LEVEL)

        def prepare(numbered: tuple[int, Picture]) -> tuple[int, np.ndarray, bytes | None]:
            index, picture = numbered
            picture = rgb_array(picture)
            return index, picture, compress(picture) if wanted is None or index in wanted else None

        picture = compressed = None
        numbered = _read_wanted(pictures, wanted) if in_parts else enumerate(pictures)
        for index, picture, compressed in parallel_map(prepare, numbered):  # noqa: B007 (used below)
            if compressed is not None:
                self._write(index, compressed)
            self.length = max(self.length, index + 1)
        if not self.length:
            raise ValueError("there is no pose frame")
        if picture is not None and compressed is None:
            self._write(self.length - 1, compress(picture))

    def _write(self, index: int, data: bytes) -> None:
        """Append a frame. An unbuffered write may be partial, and raises for a full disk only at the next call."""
        self._places[index] = (self._end, len(data))
        rest = memoryview(data)
        with _temporary_folder_errors():
            while rest:
                rest = rest[self._file.write(rest) :]
        self._end += len(data)

    @property
    def bytes_on_disk(self) -> int:
        return self._end

    def read(self, frames: range) -> Tensor:
        """→ uint8 f 3 h w. Raises ValueError: a frame was not in `wanted`."""
        pictures = np.stack(list(parallel_map(self._picture, self._compressed(frames))))
        return rearrange(torch.from_numpy(pictures), "f h w c -> f c h w")

    def _compressed(self, frames: range) -> Iterator[bytes]:
        for index in (min(frame, self.length - 1) for frame in frames):
            if index not in self._places:
                raise ValueError(f"pose frame {index} was not wanted when the video was read")
            start, size = self._places[index]
            self._file.seek(start)
            yield self._file.read(size)

    def _picture(self, data: bytes) -> np.ndarray:
        return np.frombuffer(zlib.decompress(data), np.uint8).reshape(self.shape)
