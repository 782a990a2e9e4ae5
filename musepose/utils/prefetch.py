"""Prefetching in threads, so that reading, computing and writing overlap."""

import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from typing import TypeVar

from musepose.utils import launch

Item = TypeVar("Item")
Result = TypeVar("Result")
_END = object()
JOIN_TIMEOUT = 10  # seconds; beyond it the worker may be blocked on a dead peer, and is abandoned


def prefetch(items: Iterable[Item], depth: int) -> Iterator[Item]:
    """Yield the same items in the same order, while a thread prepares up to `depth` of the next ones.

    An exception of `items` is raised here, in its place in the order. Closing this iterator early stops the thread
    after its current item, and closes `items` if it is a generator. Nothing starts before the first item is asked for.
    """
    waiting: queue.Queue = queue.Queue(maxsize=depth)
    stopped = threading.Event()

    def put(entry: tuple[object, BaseException | None]) -> bool:
        while not stopped.is_set():
            try:
                waiting.put(entry, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        iterator = iter(items)
        try:
            with closing(iterator) if hasattr(iterator, "close") else nullcontext():
                for item in iterator:
                    if not put((item, None)):
                        return
        except BaseException as error:  # the consumer raises it
            put((_END, error))
        else:
            put((_END, None))

    thread = threading.Thread(target=work, name="musepose-prefetch", daemon=True)
    thread.start()
    try:
        while True:
            item, error = waiting.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item
    finally:
        stopped.set()
        thread.join(JOIN_TIMEOUT)


def parallel_map(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int | None = None
) -> Iterator[Result]:
    """`function(item)` for every item, in order, on several threads (default: see `_processors`).

    At most two items a thread are in flight, so that memory does not grow with their number. For functions that release
    Python's global lock, as those on pictures and arrays do. Exceptions of `items` and `function` are raised here.
    """
    threads = threads or _processors()
    with ThreadPoolExecutor(threads, "musepose-map") as pool:
        in_flight: deque = deque()
        try:
            for item in items:
                in_flight.append(pool.submit(function, item))
                if len(in_flight) == 2 * threads:
                    yield in_flight.popleft().result()
            while in_flight:
                yield in_flight.popleft().result()
        finally:
            for future in in_flight:
                future.cancel()


def _processors() -> int:
    """This process's share of the usable processors, at most eight, as each holds items in memory."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(8, usable // launch.local_processes()))
