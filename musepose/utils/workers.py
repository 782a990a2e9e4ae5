"""A pool of worker processes with one-time set-up: each worker loads its detector once."""

import multiprocessing
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from musepose.utils.errors import UserError

Item, Result = TypeVar("Item"), TypeVar("Result")


def run_jobs(
    make_job: Callable[[int], Callable[[Item], Result]],  # index of the worker → its function of an item
    items: Iterable[Item],
    workers: int,
) -> Iterator[Result]:
    """Yield the results in order of completion. A single worker runs in this process.

    `make_job` and the items must be picklable. An exception in a job ends all workers and is raised here. A worker that
    dies, for example out of memory, raises UserError. Terminated workers remove their temporary files.
    """
    if workers == 1:
        job = make_job(0)
        yield from map(job, items)
        return
    waiting = iter(items)
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads or a GPU may hang
    connections: dict[Connection, Any] = {}
    try:
        for number in range(workers):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(make_job, number, theirs), daemon=True)
            process.start()
            theirs.close()
            connections[ours] = process
        idle = dict.fromkeys(connections)
        while True:
            for connection in list(idle):
                for item in waiting:
                    connection.send(item)
                    del idle[connection]
                    break
            if len(idle) == len(connections):
                return
            for connection in wait([c for c in connections if c not in idle]):
                yield _receive(connection, connections[connection])
                idle[connection] = None
    finally:
        for connection, process in connections.items():
            process.terminate()
            connection.close()
        for process in connections.values():
            process.join()


def _receive(connection: Connection, process) -> Any:
    try:
        result, error = connection.recv()
    except (EOFError, ConnectionError):
        process.join()
        problem = f"a worker process died (exit status {process.exitcode})"
        raise UserError(f"{problem}: start again, with fewer --workers if memory ran out") from None
    if error is not None:
        raise error
    return result


def _work(make_job: Callable, number: int, connection: Connection) -> None:
    """The worker's loop: receive items, send results or an exception, until it is terminated."""
    # Ctrl-C reaches all processes. The main process then terminates the workers, which remove their temporary files.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with suppress(EOFError, ConnectionError):  # the main process is gone
        try:
            job = make_job(number)
            while True:
                connection.send((job(connection.recv()), None))
        except EOFError:
            raise
        except Exception as error:
            connection.send((None, error))
