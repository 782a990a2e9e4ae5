"""Ctrl-C, SIGTERM and SIGHUP: quiet while programs are imported and when they end, exceptions in between."""

import os
import signal
import sys
from types import FrameType

ENDING = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129}  # → exit status, 128 + the signal's number


def leave_at_once() -> None:
    """From now on these signals end the process without a word and without cleanup: there is nothing to clean up."""
    _handle(lambda number, _: os._exit(128 + number))


def raise_them() -> None:
    """From now on Ctrl-C raises KeyboardInterrupt, and the other signals SystemExit, so that cleanup runs."""
    _handle(_raise)


def _handle(handler) -> None:
    for name in ENDING:
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        # Ignored signals stay ignored: nohup and shells' background jobs want that.
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def _raise(number: int, frame: FrameType | None) -> None:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    sys.exit(128 + number)
