"""Prefetching and parallel maps in threads, so that reading, computing and writing overlap."""

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
JOIN_TIMEOUT = 10  # seconds; the thread may be blocked on a dead peer: then it is abandoned


def prefetch(items: Iterable[Item], depth: int) -> Iterator[Item]:
    """Yield the items in order, while a thread prefetches up to `depth` of them.

    An exception of `items` is raised here, after the items before it. Closing this iterator early stops the thread
    after its current item, and closes `items` if it is a generator. The thread starts with the first `next`.
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
        except BaseException as error:  # raised in the consumer
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
    """`function(item)` for every item, in order, on several threads (default: `_cpu_share`).

    At most two items a thread are in flight, so memory does not grow with the number of items. Worthwhile for functions
    that release the GIL, such as image codecs. Exceptions of `items` and `function` are raised here.
    """
    threads = threads or _cpu_share()
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


def _cpu_share() -> int:
    """This process's share of the usable CPUs, at most eight, as every thread holds items in memory."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(8, usable // launch.local_world_size()))
