"""Jobs over several processes: all are run, failures are raised, dead workers are detected."""

import os
from functools import partial

import pytest

from musepose.utils.errors import UserError
from musepose.utils.workers import run_jobs


def make_square(number: int):
    return partial(_square, number)


def _square(number: int, item: int) -> tuple[int, int, int]:
    return item**2, number, os.getpid()


def make_failing(number: int):
    return _fail_at_three


def _fail_at_three(item: int) -> int:
    if item == 3:
        raise UserError("three: take another number")
    return item


def make_dying(number: int):
    return os._exit


def make_nothing(number: int):
    raise UserError("no detector: get one")


@pytest.mark.parametrize("workers", [1, 2])
def test_every_item_is_done_once(workers: int) -> None:
    results = list(run_jobs(make_square, range(9), workers))
    assert sorted(square for square, _, _ in results) == [n**2 for n in range(9)]
    assert {number for _, number, _ in results} <= set(range(workers))
    assert (os.getpid() in {process for _, _, process in results}) == (workers == 1)


def test_an_exception_in_a_worker_is_raised_in_the_parent() -> None:
    with pytest.raises(UserError, match="three: take another number"):
        list(run_jobs(make_failing, range(9), 2))


def test_an_error_during_worker_setup_is_raised() -> None:
    with pytest.raises(UserError, match="no detector: get one"):
        list(run_jobs(make_nothing, range(9), 2))


def test_a_dead_worker_is_an_error() -> None:
    with pytest.raises(UserError, match=r"a worker process died \(exit status 7\)"):
        list(run_jobs(make_dying, [7, 7, 7], 2))


def test_nothing_to_do_ends_at_once() -> None:
    assert list(run_jobs(make_square, [], 2)) == []
