"""Many small jobs over several processes, each of which sets itself up once: a detector is loaded once a process."""

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
    make_job: Callable[[int], Callable[[Item], Result]],  # number of the process, from 0 → what it does with an item
    items: Iterable[Item],
    workers: int,
) -> Iterator[Result]:
    """The result for each item, in the order in which they are done; one worker works in this very process.

    `make_job` and the items must be picklable. An exception in a job ends all processes and is raised here; a process
    that dies, as for want of memory, raises UserError. Processes that are ended clean up after themselves.
    """
    if workers == 1:
        job = make_job(0)
        yield from map(job, items)
        return
    waiting = iter(items)
    context = multiprocessing.get_context("spawn")  # forks of a process with threads or a GPU may hang
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
        told = f"a worker process died (exit status {process.exitcode})"
        raise UserError(f"{told}: start again, with fewer --workers if memory ran out") from None
    if error is not None:
        raise error
    return result


def _work(make_job: Callable, number: int, connection: Connection) -> None:
    """What a process does: items in, results or an exception out, until it is told to end."""
    # Ctrl-C goes to all processes alike; the first one tells the others, whose half-written files then go.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with suppress(EOFError, ConnectionError):  # the first process is gone
        try:
            job = make_job(number)
            while True:
                connection.send((job(connection.recv()), None))
        except EOFError:
            raise
        except Exception as error:
            connection.send((None, error))
