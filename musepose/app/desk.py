"""What visitors may do: align, generate, look, stop. The page and the API call these and nothing else."""

import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from musepose.app import alignment, generation
from musepose.app.alignment import Aligned
from musepose.app.folders import remove_old, take_input
from musepose.app.forecast import Forecast, Forecaster
from musepose.app.inputs import check_dance, check_picture
from musepose.app.jobs import DONE, QUEUED, Job, JobQueue, one_line
from musepose.app.options import Settings
from musepose.app.timings import Timings
from musepose.utils.errors import UserError
from musepose.utils.files import project_file

ALIGN, GENERATE = "align", "generate"
EXAMPLE = {"picture": Path("assets/images/ref.png"), "dance": Path("assets/videos/dance.mp4")}
EXAMPLES, TIMINGS = "example", "timings.json"
SWEEP = 600.0  # seconds between two looks for old folders


class Desk:
    """The server's side of the page: one for all visitors."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.root = settings.folder.absolute()
        self.root.mkdir(parents=True, exist_ok=True)
        self.queue = JobQueue(self.root, settings.max_jobs)
        self.timings = Timings(self.root / TIMINGS)
        self._forecaster = Forecaster(self.timings)

    def align(
        self, visit: str, picture: Path, dance: Path, detector: str, knobs: Mapping[str, Any], before: str | None = None
    ) -> Job:
        """Queue an alignment. `before`: an earlier one, whose keypoints are used where they are the same.

        Raises UserError: a file, a setting, or a detector's files; too many jobs.
        """
        self.queue.check_room()
        folder = self.queue.folder()
        for checked in (check_picture(picture, self.settings), check_dance(dance, self.settings)):
            if not checked.good:
                raise UserError(checked.line)
        try:
            mine = [take_input(picture, folder, "picture.png"), take_input(dance, folder, "dance.mp4")]
            settings = alignment.settings_of(folder, *mine, detector, knobs)
            settings = replace(settings, device=self.settings.device)
            work = alignment.make_work(settings, self.settings, self.aligned(before, visit))
        except UserError as error:
            raise UserError(one_line(error, folder)) from None
        return self.queue.submit(Job(visit, ALIGN, folder, work, tuple(mine)))

    def generate(
        self, visit: str, aligned: str | None, model: str, knobs: Mapping[str, Any], multipliers: Mapping[str, float]
    ) -> Job:
        """Queue a sampling of an aligned dance. Raises UserError: a setting, the weights; too many jobs."""
        self.queue.check_room()
        known, folder = self.required(aligned, visit), self.queue.folder()
        try:
            work = generation.make_work(model, known, multipliers, knobs, self.settings.device, self.timings, folder)
        except UserError as error:
            raise UserError(one_line(error, folder)) from None
        return self.queue.submit(Job(visit, GENERATE, folder, work, needs=(aligned,)))

    def forecast(self, visit: str, aligned: str | None, model: str, knobs: Mapping[str, Any]) -> Forecast:
        """What a sampling will take. Raises UserError as `generate` does."""
        known, folder = self.required(aligned, visit), self.root / (aligned or "") / "forecast"
        try:
            pose = known.job.aligned_path
            plan = generation.plan_of(folder, model, known, pose, knobs, self.settings.device)
            return self._forecaster(plan)
        except UserError as error:
            raise UserError(one_line(error, folder.parent)) from None

    def job(self, token: str | None, visit: str | None = None) -> Job | None:
        """A job by its token; None if it is gone, or with `visit` another visitor's."""
        found = self.queue.get(token)
        return found if found is None or visit in (None, found.visit) else None

    def stop(self, token: str | None, visit: str) -> None:
        """Stop a job of this visitor, if there is one."""
        found = self.job(token, visit)
        if found is not None:
            self.queue.stop(found)

    def aligned(self, token: str | None, visit: str) -> Aligned | None:
        """The result of a finished alignment of this visitor."""
        job = self.job(token, visit)
        return job.result if job is not None and job.kind == ALIGN and job.state == DONE else None

    def required(self, token: str | None, visit: str) -> Aligned:
        """Raises UserError: nothing is aligned."""
        known = self.aligned(token, visit)
        if known is None:
            raise UserError("no dance is aligned yet: align one first")
        return known

    def example(self) -> dict[str, Path]:
        """Copies of the example's files in the served folder."""
        folder = self.root / EXAMPLES
        found = {name: folder / path.name for name, path in EXAMPLE.items()}
        for name, path in found.items():
            if not path.exists():
                take_input(project_file(EXAMPLE[name]), folder, EXAMPLE[name].name)
        return found

    def remove_old(self) -> None:
        """Remove uploads and results that are old, but no job's that waits or runs."""
        keep = self.queue.active() | {EXAMPLES}
        self.queue.forget(remove_old(self.root, self.settings.keep_hours * 3600, keep))

    def start_removing(self) -> None:
        """Remove old folders now and from time to time, in a thread."""

        def work() -> None:
            while not stopped.wait(SWEEP):
                self.remove_old()

        stopped = threading.Event()
        self.remove_old()
        threading.Thread(target=work, name="musepose-remove", daemon=True).start()

    def status(self, job: Job) -> dict[str, Any]:
        """How a job is, as plain values."""
        stage = job.stage
        return {
            "id": job.id,
            "state": job.state,
            "place": self.queue.place(job) if job.state == QUEUED else 0,
            "stage": stage.name if stage else "",
            "done": stage.done if stage else 0,
            "total": stage.total if stage else 0,
            "seconds_left": stage.left if stage else None,
            "lines": list(job.lines),
            "error": job.error,
        }
