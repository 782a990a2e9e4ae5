"""Skeleton pictures of a whole video, kept on disk between the windows that look at them."""

import tempfile
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from diffusers.image_processor import VaeImageProcessor
from einops import rearrange
from PIL import Image
from torch import Tensor

from musepose.utils.errors import UserError
from musepose.utils.prefetch import each


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
    the last one can be read: the others are gaps in the file, which take neither time nor space. Raises ValueError
    where there is no picture, UserError where the temporary folder cannot hold them.
    """

    def __init__(
        self, pictures: Iterable[np.ndarray], width: int, height: int, wanted: Container[int] | None = None
    ) -> None:
        self.shape = (height, width, 3)
        self.length = 0
        self._kept: set[int] = set()
        with _temporary_folder_errors():
            # Unbuffered, so that a full disk shows here and not when the frames are read back.
            self._file = tempfile.TemporaryFile(prefix="musepose-", buffering=0)  # noqa: SIM115 (lives as long as this)
        resizer = VaeImageProcessor()  # the published way to resize, Lanczos on bytes

        def resize(picture: np.ndarray) -> bytes:
            return np.asarray(resizer.resize(Image.fromarray(picture), height, width)).tobytes()

        def prepare(numbered: tuple[int, np.ndarray]) -> tuple[np.ndarray, bytes | None]:
            index, picture = numbered
            return picture, resize(picture) if wanted is None or index in wanted else None

        for picture, resized in each(prepare, enumerate(pictures)):  # noqa: B007 (the last one is used below)
            if resized is not None:
                self._write(self.length, resized)
            self.length += 1
        if not self.length:
            raise ValueError("there is no pose frame")
        if resized is None:
            self._write(self.length - 1, resize(picture))

    def _write(self, index: int, data: bytes) -> None:
        """All of it: an unbuffered file may take a part, and tells of a full disk only at the next attempt."""
        rest = memoryview(data)
        with _temporary_folder_errors():
            self._file.seek(index * len(data))
            while rest:
                rest = rest[self._file.write(rest) :]
        self._kept.add(index)

    def read(self, frames: range) -> Tensor:
        """→ uint8 f 3 h w. Raises ValueError for a frame that was not wanted."""
        size = int(np.prod(self.shape))
        pictures = []
        for index in (min(frame, self.length - 1) for frame in frames):
            if index not in self._kept:
                raise ValueError(f"pose frame {index} was not wanted when the video was read")
            self._file.seek(index * size)
            pictures.append(np.frombuffer(self._file.read(size), np.uint8).reshape(self.shape))
        return rearrange(torch.from_numpy(np.stack(pictures)), "f h w c -> f c h w")
