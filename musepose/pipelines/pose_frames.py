"""Skeleton pictures of a whole video, kept compressed on disk between the windows that look at them."""

import tempfile
import zlib
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from diffusers.image_processor import VaeImageProcessor
from einops import rearrange
from PIL import Image
from torch import Tensor

from musepose.pipelines.images import Picture, rgb_array
from musepose.utils.errors import UserError
from musepose.utils.prefetch import parallel_map

# Skeletons on black: a 25th of the size at zlib's fastest level (72 kB at 768 x 768; 4.4 ms to write, 2.5 ms to read),
# smaller and faster than PNG, so that the temporary folder may lie in memory.
LEVEL = 1


@contextmanager
def _temporary_folder_errors() -> Iterator[None]:
    """A temporary folder that is full or not there as a UserError that names it, not the video being written."""
    try:
        yield
    except OSError as error:
        folder = tempfile.tempdir or "(there is none)"
        raise UserError(
            f"cannot write to the temporary folder {folder} ({error.strerror or error}): free some space, or set TMPDIR"
        ) from error


class PoseFrames:
    """Skeleton pictures at sampling size in a temporary file, so that the video's length costs no memory.

    Indices past the end give the last frame: that is how a video is padded. Only frames in `wanted` (default: all) and
    the last one are kept. Raises ValueError where there is no picture, or one of another form than `rgb_array` takes;
    UserError where the temporary folder cannot hold them.
    """

    def __init__(
        self, pictures: Iterable[Picture], width: int, height: int, wanted: Container[int] | None = None
    ) -> None:
        self.shape = (height, width, 3)
        self.length = 0
        self._places: dict[int, tuple[int, int]] = {}  # frame → where its bytes begin, and how many they are
        self._end = 0
        with _temporary_folder_errors():
            # Unbuffered, so that a full disk shows here and not when the frames are read back.
            self._file = tempfile.TemporaryFile(prefix="musepose-", buffering=0)  # noqa: SIM115 (lives as long as this)
        resizer = VaeImageProcessor()  # the published way to resize, Lanczos on bytes

        def compress(picture: np.ndarray) -> bytes:
            resized = np.asarray(resizer.resize(Image.fromarray(picture), height, width))
            return zlib.compress(resized.tobytes(), LEVEL)

        def prepare(numbered: tuple[int, Picture]) -> tuple[np.ndarray, bytes | None]:
            index, picture = numbered
            picture = rgb_array(picture)
            return picture, compress(picture) if wanted is None or index in wanted else None

        for picture, compressed in parallel_map(prepare, enumerate(pictures)):  # noqa: B007 (the last is used below)
            if compressed is not None:
                self._write(self.length, compressed)
            self.length += 1
        if not self.length:
            raise ValueError("there is no pose frame")
        if compressed is None:
            self._write(self.length - 1, compress(picture))

    def _write(self, index: int, data: bytes) -> None:
        """All of it: an unbuffered file may take a part, and tells of a full disk only at the next attempt."""
        self._places[index] = (self._end, len(data))
        rest = memoryview(data)
        with _temporary_folder_errors():
            while rest:
                rest = rest[self._file.write(rest) :]
        self._end += len(data)

    def read(self, frames: range) -> Tensor:
        """→ uint8 f 3 h w. Raises ValueError for a frame that was not wanted."""
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
