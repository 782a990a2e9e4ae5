"""Progress bars: redrawn in place on a terminal, a line every ten seconds in a log."""

import sys
from collections.abc import Iterable
from typing import Any, TextIO

from tqdm import tqdm

LOG_INTERVAL = 10  # seconds between two lines of a bar in a log


def progress_bar(items: Iterable | None = None, *, shown: bool = True, **options: Any) -> tqdm:
    """A tqdm bar on stderr; `options` are tqdm's.

    Where stderr is no terminal, it writes a line when it starts, one every LOG_INTERVAL seconds, and one at the end.
    """
    if not sys.stderr.isatty():
        options |= {"file": _Lines(sys.stderr), "mininterval": LOG_INTERVAL, "miniters": 1}
    return tqdm(items, disable=not shown, **options)


class _Lines:
    """A text file for tqdm, in which a line is written each time a bar is drawn at another count."""

    def __init__(self, file: TextIO) -> None:
        self.encoding = getattr(file, "encoding", None)  # tells tqdm whether it may draw blocks
        self.flush = file.flush
        self._file, self._count = file, ""

    def write(self, text: str) -> None:
        state = text.strip()  # without the carriage return in front and the blanks that overwrite a longer state
        count = state.rpartition(" [")[0] or state  # without times and speed
        if state and count != self._count:
            self._file.write(f"{state}\n")
            self._count = count
