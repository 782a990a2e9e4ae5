"""Ctrl-C, SIGTERM and SIGHUP: quiet while programs are imported and when they end, exceptions in between."""

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

ENDING = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129}  # → exit status, 128 + the signal's number


def leave_at_once() -> None:
    """From now on these signals end the process without a word and without cleanup: there is nothing to clean up."""
    _handle(lambda number, _: os._exit(128 + number))


def raise_them() -> Callable[[], int | None]:
    """From now on Ctrl-C raises KeyboardInterrupt, and the other signals SystemExit, so that cleanup runs.

    → a function that returns the exit status of the first signal, None if none came: what a handler raises while a C
    extension is imported may be dropped there, or become an ImportError.
    """
    statuses: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        statuses.append(128 + number)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        sys.exit(128 + number)

    _handle(interrupt)
    return lambda: statuses[0] if statuses else None


def _handle(handler) -> None:
    for name in ENDING:
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        # Ignored signals stay ignored: nohup and shells' background jobs want that.
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)
