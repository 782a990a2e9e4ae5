"""`prefetch` and `parallel_map`: the same items in order, prepared in threads; errors are raised in order."""

import threading

import pytest

from musepose.utils.prefetch import parallel_map, prefetch


def test_same_items_in_order():
    assert list(prefetch(iter(range(100)), 3)) == list(range(100))
    assert list(prefetch([], 1)) == []


def test_prefetches_in_another_thread_up_to_the_depth():
    made, threads = [], set()

    def items():
        for number in range(10):
            threads.add(threading.current_thread())
            made.append(number)
            yield number

    for taken, _ in enumerate(prefetch(items(), 2)):
        assert len(made) <= taken + 1 + 2 + 1  # this one, two queued, one in the thread
    assert made == list(range(10))
    assert threading.current_thread() not in threads


def test_nothing_starts_before_the_first_item_is_requested():
    made = []
    prefetch((made.append(number) for number in range(3)), 1)
    assert made == []


def test_an_error_is_raised_after_the_items_before_it():
    def items():
        yield 1
        raise ValueError("broken")

    taken = []
    with pytest.raises(ValueError, match="broken"):
        taken.extend(prefetch(items(), 4))
    assert taken == [1]


def test_leaving_early_stops_the_thread_and_closes_the_source():
    closed = threading.Event()

    def items():
        try:
            number = 0
            while True:
                yield number
                number += 1
        finally:
            closed.set()

    iterator = prefetch(items(), 2)
    assert next(iterator) == 0
    iterator.close()
    assert closed.is_set()
    assert not [thread for thread in threading.enumerate() if thread.name == "musepose-prefetch"]


def test_each_keeps_the_order_and_runs_in_parallel():
    together = threading.Barrier(3, timeout=600)  # opens only where three items are under way at the same time

    def meet(number: int) -> int:
        together.wait()
        return number * number

    assert list(parallel_map(meet, range(9), threads=3)) == [n * n for n in range(9)]
    assert list(parallel_map(str, [], threads=2)) == []


def test_each_reads_no_more_items_than_it_processes():
    taken = []

    def items():
        for number in range(100):
            taken.append(number)
            yield number

    results = parallel_map(lambda number: number, items(), threads=2)
    assert next(results) == 0
    assert len(taken) == 4
    results.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("musepose-map")]


@pytest.mark.parametrize("broken", ["items", "function"])
def test_each_raises_errors_in_order(broken):
    def items():
        yield from range(3)
        if broken == "items":
            raise ValueError("no more")

    def work(number: int) -> int:
        if broken == "function" and number == 2:
            raise ValueError("no more")
        return number

    got = []
    with pytest.raises(ValueError, match="no more"):
        got.extend(parallel_map(work, items(), threads=1))
    assert got == [0, 1]
