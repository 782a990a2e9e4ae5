"""An iterator that works ahead in a thread of its own, so that reading, computing and writing overlap."""

import queue
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing, nullcontext
from typing import TypeVar

Item = TypeVar("Item")
_END = object()


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
        thread.join()
