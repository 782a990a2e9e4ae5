"""Progress bars on a terminal and in a log file."""

import io
import re
import sys
from types import SimpleNamespace

import pytest
import tqdm.std

from musepose.utils.progress import progress_bar


@pytest.fixture
def clock(monkeypatch) -> SimpleNamespace:
    """The time that tqdm sees, in seconds."""
    now = SimpleNamespace(seconds=1000.0)
    monkeypatch.setattr(tqdm.std, "time", lambda: now.seconds)
    return now


def run(monkeypatch, clock, terminal: bool, seconds: int, **options) -> str:
    """What a bar of one step a second writes."""
    written = io.StringIO()
    written.isatty = lambda: terminal
    monkeypatch.setattr(sys, "stderr", written)
    with progress_bar(total=seconds, desc="drawing", **options) as bar:
        for step in range(seconds):
            clock.seconds += 1
            bar.set_postfix(step=step, refresh=False)
            bar.update()
    return written.getvalue()


@pytest.mark.parametrize("seconds", [35, 30])
def test_a_log_gets_a_line_every_ten_seconds(monkeypatch, clock, seconds):
    written = run(monkeypatch, clock, False, seconds)
    assert "\r" not in written and written.endswith("\n")
    lines = written.splitlines()
    assert [int(re.search(r"(\d+)/", line)[1]) for line in lines] == [*range(0, seconds, 10), seconds]
    assert all(line.startswith("drawing: ") for line in lines)


def test_a_terminal_gets_every_step_in_one_line(monkeypatch, clock):
    written = run(monkeypatch, clock, True, 35)
    assert written.count("\n") == 1 and written.count("\r") >= 35


def test_items_are_counted(monkeypatch, clock):
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    assert list(progress_bar("abc", desc="checking")) == ["a", "b", "c"]
    assert "3/3" in written.getvalue().splitlines()[-1]


def test_a_bar_can_be_silent(monkeypatch, clock):
    assert run(monkeypatch, clock, False, 35, shown=False) == ""
