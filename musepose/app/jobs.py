"""Jobs: one at a time in a thread of its own, the others wait in a queue; each can be stopped."""

import ctypes
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from musepose.app.folders import new_token
from musepose.inference.runner import describe_error, release_memory
from musepose.utils.errors import Stopped, UserError
from musepose.utils.reporter import Reporter, Update

# Held while models are built: accelerate's `init_empty_weights`, of the memory estimate too, replaces methods of all of
# torch's modules meanwhile, so that another thread's models would come without their weights.
BUILDING = threading.Lock()
CLOSING = 20.0  # seconds that the running job may take to stop when the server ends
QUEUED, RUNNING, DONE, FAILED, STOPPED = "queued", "running", "done", "failed", "stopped"


@dataclass
class Stage:
    """How far a stage is."""

    name: str
    total: int
    done: int = 0
    started: float = field(default_factory=time.monotonic)
    seconds: float = 0.0  # until `done`

    @property
    def left(self) -> float | None:
        """Seconds that it still takes, None before its first item is done."""
        if not self.done:
            return None
        since = time.monotonic() - self.started - self.seconds
        return max(self.seconds / self.done * (self.total - self.done) - since, 0)


@dataclass(eq=False)
class Job:
    """What one visitor asked for. `work` runs in the queue's thread, and its value becomes `result`."""

    visit: str
    kind: str
    folder: Path  # its own; named by the token, which is its id
    work: Callable[["Job"], Any]
    inputs: tuple[Path, ...] = ()  # its files that the visitor gave
    needs: tuple[str, ...] = ()  # ids of jobs whose files it reads
    state: str = QUEUED
    error: str = ""  # one line
    result: Any = None
    stages: dict[str, Stage] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    preview: Path | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    created: float = field(default_factory=time.time)
    seconds: float = 0.0  # that it ran

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def finished(self) -> bool:
        return self.state in (DONE, FAILED, STOPPED)

    @property
    def stage(self) -> Stage | None:
        """The current one."""
        return next(reversed(self.stages.values()), None)


class JobReporter(Reporter):
    """Reports into a job, and ends the run when the job is to stop."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def say(self, line: str) -> None:
        self.check()
        self._job.lines.append(line)

    warn = say

    def check(self) -> None:
        """Raises Stopped."""
        if self._job.stop.is_set():
            raise Stopped

    @contextmanager
    def stage(self, name: str, total: int, unit: str = "it") -> Iterator[Update]:
        stage = self._job.stages[name] = Stage(name, total)

        def update(done: int) -> None:
            stage.done, stage.seconds = done, time.monotonic() - stage.started
            self.check()

        self.check()
        yield update


class JobQueue:
    """All jobs, waiting ones in order. The thread starts with the first job."""

    def __init__(self, root: Path, most: int) -> None:
        self.root, self._most = root, most
        self._jobs: dict[str, Job] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def folder(self) -> Path:
        """A new folder for a job, which does not exist yet."""
        return self.root / new_token()

    def check_room(self) -> None:
        """Raises UserError: too many jobs wait."""
        if len(self._waiting()) >= self._most:
            raise UserError(f"{self._most} jobs are waiting already: try again when some are done")

    def submit(self, job: Job) -> Job:
        """Raises UserError as `check_room` does."""
        with self._changed:
            self.check_room()
            self._jobs[job.id] = job
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="musepose-jobs", daemon=True)
                self._thread.start()
            self._changed.notify()
        return job

    def get(self, token: str | None) -> Job | None:
        return self._jobs.get(token or "")

    def of_visit(self, visit: str, kind: str) -> list[Job]:
        """The oldest first."""
        return [job for job in self._all() if job.visit == visit and job.kind == kind]

    def place(self, job: Job) -> int:
        """How many jobs are done before this one."""
        waiting = self._waiting()
        return waiting.index(job) if job in waiting else 0

    def stop(self, job: Job) -> None:
        """A waiting job ends at once, a running one within one step or frame."""
        with self._changed:
            job.stop.set()
            if job.state == QUEUED:
                job.state = STOPPED

    def close(self) -> None:
        """Stop all jobs, and wait for the running one, so that Python does not end in the middle of its work."""
        for job in self._waiting():
            self.stop(job)
        end = time.monotonic() + CLOSING
        while self._waiting() and time.monotonic() < end:
            time.sleep(0.05)

    def active(self) -> set[str]:
        """Ids of the jobs that wait or run, and of those whose files they read."""
        return {token for job in self._waiting() for token in (job.id, *job.needs)}

    def forget(self, ids: list[str]) -> None:
        """Those whose folders were removed."""
        for token in ids:
            self._jobs.pop(token, None)

    def _all(self) -> list[Job]:
        return list(self._jobs.values())

    def _waiting(self) -> list[Job]:
        return [job for job in self._all() if not job.finished]

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (ready := [job for job in self._all() if job.state == QUEUED]):
                    self._changed.wait()
                ready[0].state = RUNNING
            run(ready[0])
            del ready


def run(job: Job) -> None:
    """Run a job to its end; what it held is freed, after an error and a stop too."""
    started = time.monotonic()
    try:
        job.folder.mkdir(parents=True, exist_ok=True)
        job.result = job.work(job)
        state = DONE
    except Stopped:
        state = STOPPED
    except Exception as error:
        if not isinstance(error, UserError):
            logging.getLogger(__name__).exception("a job failed")
        state, job.error = FAILED, one_line(error, job.folder)
    job.seconds = time.monotonic() - started
    job.work = lambda job: None  # what it referred to
    release_memory()
    trim_memory()
    job.state = state


def trim_memory() -> None:
    """Give freed memory back to the system, which glibc else keeps for later."""
    with suppress(OSError, AttributeError, TypeError):  # another C library, or Windows
        ctypes.CDLL(None).malloc_trim(0)


def one_line(error: Exception, folder: Path) -> str:
    """An error without the paths of this machine: a visitor knows his files by their names."""
    return describe_error(error).replace(f"{folder}/", "")
