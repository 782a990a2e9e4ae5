"""What a long run reports while it works: lines and the progress of its stages. A page may also stop the run."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TypeVar

from musepose.utils.progress import progress_bar

Item = TypeVar("Item")
Update = Callable[[int], None]  # how many items of a stage are done


class Reporter:
    """Reports to a console: lines on stdout, warnings on stderr, a progress bar a stage.

    Subclasses report elsewhere. Their methods may raise `Stopped` to end the run: a run calls the stage's update after
    each denoising step and each frame.
    """

    def __init__(self, bars: bool = True) -> None:
        self._bars = bars

    def say(self, line: str) -> None:
        print(line, flush=True)

    def warn(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    @contextmanager
    def stage(self, name: str, total: int, unit: str = "it") -> Iterator[Update]:
        """A stage of the run, from its start to its end."""
        with progress_bar(total=total, desc=name, unit=unit, shown=self._bars) as bar:
            yield lambda done: bar.update(done - bar.n)


CONSOLE = Reporter()


def watch(items: Iterable[Item], reporter: Reporter, name: str, total: int, unit: str = "it") -> Iterator[Item]:
    """Yield the items, and report each as done when the next one is asked for."""
    with reporter.stage(name, total, unit) as update:
        for done, item in enumerate(items, 1):
            yield item
            update(done)


class Stages:
    """Several stages one after the other, for the `progress` callback of `Pose2VideoPipeline`."""

    def __init__(self, totals: dict[str, int], reporter: Reporter = CONSOLE) -> None:
        self._reporter, self._pending = reporter, list(totals.items())
        self._name = ""
        self._stack = ExitStack()
        self._update: Update

    def __enter__(self) -> "Stages":
        self._next()  # start now, so that the first step's time counts
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def update(self, stage: str, done: int, total: int) -> None:
        """`done` of `total` items of a stage are finished."""
        while stage != self._name and self._pending:
            self._next()
        self._update(done)
        if done == total and self._pending:
            self._next()

    def _next(self) -> None:
        self._stack.close()
        self._name, total = self._pending.pop(0)
        self._update = self._stack.enter_context(self._reporter.stage(self._name, total))
