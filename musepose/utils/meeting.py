"""The meeting of a run's processes: a line says who is awaited, signals end it, and it is given up after a while."""

import os
import socket
import sys
import time
from datetime import timedelta

import torch

from musepose.utils import launch
from musepose.utils.errors import UserError, shown

PATIENCE = 600.0  # seconds
FIRST_LINE, NEXT_LINES = 10.0, 60.0  # seconds of waiting, then between two lines
PAUSE = 0.2  # seconds between two looks
NAMED = 8  # processes that a line names
START = "start all processes, by accelerate launch or torchrun, or unset WORLD_SIZE"
_kept: list[object] = []  # the store of process 0 serves the others as long as this process lives


def meet(patience: float = PATIENCE) -> None:
    """Wait for all processes of the launcher's environment. torch.distributed would do so for hours, deaf to signals.

    torch.distributed then uses the same store. Raises UserError: somebody did not come within `patience` seconds.
    """
    count, rank = launch.world_size(), launch.rank()
    if count == 1 or torch.distributed.is_initialized():
        return
    host, port = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT", "")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise UserError(f"WORLD_SIZE is {count}, but MASTER_ADDR and MASTER_PORT name no place to meet: {START}")
    waiting = _Waiting(patience)
    store = _open_store(host, int(port), rank, waiting)
    prefix = f"musepose/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    absent = list(range(count))
    try:
        store.set(f"{prefix}/{rank}", "here")
        while absent := [other for other in absent if not store.check([f"{prefix}/{other}"])]:
            names = ", ".join(map(str, absent[:NAMED])) + (", …" if len(absent) > NAMED else "")
            waiting.pause(f"process {names} of {count}, counted from 0")
    except RuntimeError as error:  # torch's errors of connections
        raise UserError(f"process 0 at {host}:{port} is gone: {START}") from error
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "True"  # the store is there: torch.distributed shall only connect


class _Waiting:
    """Pauses, lines that say for whom, and an end of patience."""

    def __init__(self, patience: float):
        self.patience, self.begin, self.next_line = patience, time.monotonic(), FIRST_LINE

    def pause(self, whom: str) -> None:
        """Wait a little for `whom`. Raises UserError: for too long by now."""
        waited = time.monotonic() - self.begin
        if waited > self.patience:
            raise UserError(f"gave up after {self.patience:.0f} s of waiting for {whom}: {START}")
        if waited > self.next_line:
            print(f"waiting for {whom}", file=sys.stderr, flush=True)
            self.next_line = waited + NEXT_LINES
        time.sleep(PAUSE)


def _open_store(host: str, port: int, rank: int, waiting: _Waiting) -> torch.distributed.Store:
    """The launcher's store, or that of process 0, which opens it. Raises UserError: it cannot be opened or reached."""
    has_agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    is_master = rank == 0 and not has_agent
    if is_master:
        try:
            socket.getaddrinfo(host, port)
        except (OSError, UnicodeError) as error:  # torch would print pages of its own frames for half a minute
            raise UserError(
                f"MASTER_ADDR {shown(host)} cannot be looked up ({error}): give the address of process 0"
            ) from None
    while not is_master:
        try:
            socket.create_connection((host, port), timeout=2).close()
            break
        except (OSError, UnicodeError):
            waiting.pause(f"process 0 at {host}:{port}")
    try:
        store = torch.distributed.TCPStore(
            host, port, is_master=is_master, wait_for_workers=False, timeout=timedelta(seconds=30)
        )
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"MASTER_ADDR {host}, MASTER_PORT {port}: no store there ({reason}): give others") from error
    _kept.append(store)
    return store
