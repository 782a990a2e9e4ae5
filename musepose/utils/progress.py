"""Progress bars: in place on a terminal; one line every ten seconds in a log file."""

import sys
from collections.abc import Iterable
from typing import Any, TextIO

from tqdm import tqdm

LOG_INTERVAL = 10  # seconds between two lines of a bar in a log


def progress_bar(items: Iterable | None = None, *, shown: bool = True, **options: Any) -> tqdm:
    """A tqdm bar on stderr; `options` are tqdm's.

    If stderr is not a terminal, the bar writes a line at the start, every LOG_INTERVAL seconds, and at the end.
    """
    if not sys.stderr.isatty():
        options |= {"file": _Lines(sys.stderr), "mininterval": LOG_INTERVAL, "miniters": 1}
    return tqdm(items, disable=not shown, **options)


class _Lines:
    """A text file for tqdm that writes a line only if the bar's count has changed."""

    def __init__(self, file: TextIO) -> None:
        self.encoding = getattr(file, "encoding", None)  # tqdm checks it before it draws Unicode blocks
        self.flush = file.flush
        self._file, self._count = file, ""

    def write(self, text: str) -> None:
        state = text.strip()  # without the leading carriage return and the padding
        count = state.rpartition(" [")[0] or state  # without elapsed time and speed
        if state and count != self._count:
            self._file.write(f"{state}\n")
            self._count = count
