"""What a sampling will take, told before it starts: frames, windows, memory plan, time."""

import time
from dataclasses import dataclass, replace

from musepose.app.jobs import BUILDING
from musepose.app.timings import Timings, Work, timing_key
from musepose.inference.cases import Plan
from musepose.inference.load import Loading, plan_loading

KEPT, MOST_KEPT = 60, 32  # seconds that a memory plan is kept, as the free memory changes; and how many are


@dataclass(frozen=True)
class Forecast:
    work: Work
    rate: float  # frames a second
    window: int  # frames
    memory: str  # line about the memory plan
    seconds: float | None  # None: not known before the first job


class Forecaster:
    """Keeps memory plans, whose dry run takes a second, while only other settings change."""

    def __init__(self, timings: Timings) -> None:
        self._timings = timings
        self._kept: dict[tuple, Loading] = {}

    def __call__(self, plan: Plan) -> Forecast:
        """Raises UserError as loading would: weights, settings or memory."""
        work, (window, _) = Work.of(plan), plan.longest
        loading = self._loading(plan)
        seconds = self._timings.seconds(timing_key(plan, loading.device), work)
        return Forecast(work, float(plan.jobs[0].rate), window, loading.message, seconds)

    def _loading(self, plan: Plan) -> Loading:
        pose, settings = plan.jobs[0].pose, replace(plan.settings, seed=0, output=None)
        key = (settings, *plan.longest, pose.width, pose.height, *plan.weights.values(), time.monotonic() // KEPT)
        with BUILDING:
            if key not in self._kept:
                self._kept[key] = plan_loading(plan)
                while len(self._kept) > MOST_KEPT:
                    del self._kept[next(iter(self._kept))]
            return self._kept[key]
