"""Shared entry point: a parser that raises UserError, and exit statuses."""

import argparse
import logging
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from musepose.utils import console, interrupts, launch
from musepose.utils.errors import SharedError, UserError, is_out_of_memory, one_line
from musepose.utils.home import provide_home

RANK_0_PRINTS_WITHIN = 60  # seconds


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that raises UserError. `prog` is the script's file name."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}: see python {self.prog} --help")


def run_script(main: Callable[[], int | None]) -> None:
    """Run a script's `main` and exit with its status, 0 for None.

    Other statuses: 2 with one `error: …` line for a UserError, a file that the system refuses, and memory that ran out;
    130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP, 141 for a closed pipe. Any other exception exits with a traceback
    and 1. Only local rank 0 prints input errors, and what all processes raise together.
    """
    console.install()
    clean = provide_home()
    signalled = interrupts.raise_them()
    try:
        logging.basicConfig(format="%(levelname)s: %(message)s")
        launch.check()
        status = main()
    except SystemExit as leaving:
        status = leaving.code
    except KeyboardInterrupt:
        status = 130
    except Exception as error:
        status, line = signalled(), error_line(error)
        if status is not None:
            pass  # the signal's exception was dropped within a library, or became this one
        elif line is None and not _in_group():
            interrupts.leave_at_once()
            clean()
            raise
        elif line is None:
            sys.excepthook(*sys.exc_info())
            status = 1
        else:
            if _prints(error):
                print(f"error: {line}", file=sys.stderr)
            else:
                with suppress(SystemExit):  # the launcher ends all processes with the first: rank 0 must print before
                    time.sleep(RANK_0_PRINTS_WITHIN)
            status = 2
    if status == 130:
        print("interrupted: nothing half-written was kept", file=sys.stderr)
    interrupts.leave_at_once()
    clean()
    try:
        console.finish()
    except SystemExit as leaving:
        status = leaving.code
    if _in_group():
        # Exit without cleanup. After an error NCCL's cleanup waits for the other processes, which wait for the launcher
        # to end them. And gloo's threads may release tensors while Python shuts down, which aborts (pytorch PR 179291).
        os._exit(status if isinstance(status, int) else int(status is not None))
    sys.exit(status)


def error_line(error: Exception) -> str | None:
    """The line for an error that the user can fix; None for a fault of the program, which deserves a traceback."""
    if isinstance(error, UserError):
        return one_line(error)
    if is_out_of_memory(error):
        reason = str(error) or type(error).__name__
        return one_line(f"out of memory ({reason}): end other programs, or raise the limit (ulimit)")
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return one_line(f"{os.fsdecode(error.filename)}: {error.strerror}: check the path and its permissions")
    return None


def _in_group() -> bool:
    try:
        return launch.world_size() > 1
    except UserError:
        return False


def _prints(error: Exception) -> bool:
    """Whether this process tells it: once it has torch, it does work of its own, in which the others may not fail."""
    try:
        return launch.local_rank() == 0 or ("torch" in sys.modules and not isinstance(error, SharedError))
    except UserError:
        return True
