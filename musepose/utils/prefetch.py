"""Iterators that work ahead in threads, so that reading, computing and writing overlap."""

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
LONGEST_ITEM = 10  # seconds: who takes longer may be waiting for a process that has died, and is left behind


def ahead(items: Iterable[Item], depth: int) -> Iterator[Item]:
    """Yield the same items in the same order, while a thread prepares up to `depth` of the next ones.

    What `items` raises is raised here, in its place in the order. Closing this iterator, or leaving it half-way, stops
    the thread after the item it works on, and closes `items` where it is a generator. Nothing starts before the first
    item is asked for.
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
        except BaseException as error:  # whatever it is, it is for whoever waits for the item
            put((_END, error))
        else:
            put((_END, None))

    thread = threading.Thread(target=work, name="musepose-ahead", daemon=True)
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
        thread.join(LONGEST_ITEM)


def each(function: Callable[[Item], Result], items: Iterable[Item], threads: int | None = None) -> Iterator[Result]:
    """What `function` makes of every item, in order, on several threads (default: see `_processors`).

    At most two items a thread are under way, so that memory does not grow with their number. For functions that let go
    of Python's lock, as those on pictures and arrays do. What `items` or `function` raise is raised here.
    """
    threads = threads or _processors()
    with ThreadPoolExecutor(threads, "musepose-each") as pool:
        under_way: deque = deque()
        try:
            for item in items:
                under_way.append(pool.submit(function, item))
                if len(under_way) == 2 * threads:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        finally:
            for future in under_way:
                future.cancel()


def _processors() -> int:
    """This process's share of the processors that it may use, at most eight: each holds items in memory."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(8, usable // launch.local_processes()))
