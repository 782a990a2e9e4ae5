"""Files for torch.save, np.save and safetensors, which hide why a write failed. Needs no torch."""

import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from torch import Tensor

SYSTEM_ERROR = re.compile(r"\(os error (\d+)\)")  # as safetensors words it


@contextmanager
def open_to_save(path: str | os.PathLike) -> Iterator["Writer"]:
    """Open `path` for torch.save or np.save. Raises OSError with the system's reason where a write fails."""
    with open(path, "wb") as file:
        writer = Writer(file)
        try:
            yield writer
        except Exception:
            if writer.error is not None:
                raise writer.error from None
            raise


class Writer:
    """A binary file that remembers why a write failed."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.flush, self.error = file, file.flush, None

    def write(self, data: bytes) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise


def save_tensors(tensors: Mapping[str, "Tensor"], path: str | os.PathLike, metadata: dict | None = None) -> None:
    """Write a safetensors file, with the mode of other files: safetensors alone lets nobody but the owner read it.

    Raises OSError with the system's reason where a write fails.
    """
    from safetensors.torch import save_file

    with open(path, "ab") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata)
    except Exception as error:
        found = SYSTEM_ERROR.search(str(error))
        if found is None or isinstance(error, OSError):
            raise
        raise OSError(int(found[1]), os.strerror(int(found[1]))) from error
    os.chmod(path, mode)
