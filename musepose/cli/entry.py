"""Shared entry point: a parser that raises UserError, and exit statuses."""

import argparse
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from musepose.utils import launch
from musepose.utils.errors import UserError

RANK_0_PRINTS_WITHIN = 60  # seconds


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that raises UserError. `prog` is the script's file name."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}: see python {self.prog} --help")


def run_script(main: Callable[[], int | None]) -> None:
    """Run a script's `main` and exit: 2 with one `error: …` line for a UserError, 130 for Ctrl-C, 143 for SIGTERM.

    Any other exception exits with a traceback and 1. Only local rank 0 prints input errors.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # an exception, so that temporary files are removed
    logging.basicConfig(format="%(levelname)s: %(message)s")
    try:
        status = main()
    except SystemExit as leaving:
        status = leaving.code
    except UserError as error:
        if launch.local_rank() == 0 or "torch" in sys.modules:
            print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        else:
            with suppress(SystemExit):  # the launcher ends all processes with the first one: rank 0 must print before
                time.sleep(RANK_0_PRINTS_WITHIN)
        status = 2
    except KeyboardInterrupt:
        print("interrupted: nothing half-written was kept", file=sys.stderr)
        status = 130
    except Exception:
        if launch.world_size() == 1:
            raise
        sys.excepthook(*sys.exc_info())
        status = 1
    if launch.world_size() > 1:
        # Exit without cleanup. After an error NCCL's cleanup waits for the other processes, which wait for the launcher
        # to end them. And gloo's threads may release tensors while Python shuts down, which aborts (pytorch PR 179291).
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status if isinstance(status, int) else int(status is not None))
    sys.exit(status)
