"""One network run by LiteRT on one thread."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from musepose.pose.detectors.blazepose.models import LITERT_HINT, ModelFile, read_model
from musepose.pose.detectors.blazepose.pruning import without_outputs
from musepose.utils.errors import UserError

CHATTER = (b"INFO:", b"VERBOSE:")  # how the lines begin that LiteRT writes to say that all is well


class Network:
    """A network as a function of one picture.

    One thread: these networks are so small that a second one gains nothing, and they run beside each other instead.
    An instance holds one input and one set of outputs, so two threads must not call it at once.

    Raises UserError: LiteRT is not installed, the file is missing or not the published one.
    """

    def __init__(self, folder: str | os.PathLike, file: ModelFile) -> None:
        content = without_outputs(read_model(folder, file), file.unwanted)
        interpreter = import_litert()
        with without_chatter():
            try:
                self._interpreter = interpreter(model_content=content, num_threads=1)
                self._interpreter.allocate_tensors()
            except (RuntimeError, ValueError) as error:  # its hash is right, so LiteRT and the machine do not fit
                raise UserError(
                    f"LiteRT cannot run {Path(folder) / file.file} ({error}): install ai-edge-litert 2.3"
                ) from None
        self.side = file.side
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._outputs = [one["index"] for one in self._interpreter.get_output_details()]

    def __call__(
        self,
        picture: np.ndarray,  # (side, side, 3) uint8 RGB
        low: float = 0.0,  # black and
        high: float = 1.0,  # white, as the network was trained
    ) -> list[np.ndarray]:
        """The network's wanted outputs, float32, in their shapes; they are the caller's to keep."""
        view = self._interpreter.tensor(self._input)()[0]
        np.multiply(picture, np.float32((high - low) / 255), out=view)
        if low:
            view += np.float32(low)
        del view  # LiteRT refuses to run while somebody could write to its memory
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index) for index in self._outputs]


def import_litert() -> type:
    """LiteRT's Interpreter. Raises UserError where it is not installed or does not load."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except (ImportError, OSError) as error:
        raise UserError(f"BlazePose needs LiteRT ({error}): {LITERT_HINT}") from None
    return Interpreter


@contextmanager
def without_chatter() -> Iterator[None]:
    """Keep the lines of LiteRT's C++ side off the error stream that only say that all is well; others come through."""
    try:
        sys.stderr.flush()
        kept = os.dup(2)
    except (OSError, AttributeError, ValueError):  # no error stream: nothing to keep clean
        yield
        return
    with tempfile.TemporaryFile() as spoken:
        os.dup2(spoken.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            spoken.seek(0)
            for line in spoken:
                if not line.startswith(CHATTER):
                    os.write(2, line)
