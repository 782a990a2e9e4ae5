"""How long sampling takes on this machine, learned from the jobs that it has done."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from musepose.inference.cases import Plan
from musepose.pipelines.context_windows import context_windows
from musepose.utils.files import complete_file

STAGES = ("loading", "denoising", "decoding")
NEWEST = 0.5  # weight of the newest job against all before


@dataclass(frozen=True)
class Work:
    """What a plan's only job needs, in units that a machine does at a constant rate."""

    windows: int
    window_frames: int  # of all windows together
    frames: int
    denoising: float  # pixels of all steps, windows and CFG branches
    decoding: float  # pixels

    @classmethod
    def of(cls, plan: Plan) -> "Work":
        settings, (_, length) = plan.settings, plan.longest
        windows = list(context_windows(length, settings.context_frames, settings.context_overlap))
        width, height = plan.largest
        pixels, frames = width * height, sum(map(len, windows))
        branches = 2 if settings.cfg > 1 else 1
        denoising = float(settings.steps * frames * branches * pixels)
        return cls(len(windows), frames, plan.jobs[0].frames, denoising, float(plan.jobs[0].frames * pixels))


class Timings:
    """Seconds per unit of work, by model and device; kept in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def seconds(self, key: str, work: Work) -> float | None:
        """None before the first job."""
        known = self._read().get(key)
        return known and sum(known[name] * units for name, units in _units(work).items())

    def record(self, key: str, work: Work, loading: float, denoising: float, decoding: float) -> None:
        """Seconds that a job took."""
        all_known, seconds = self._read(), {"loading": loading, "denoising": denoising, "decoding": decoding}
        new = {name: seconds[name] / units for name, units in _units(work).items()}
        old = all_known.get(key, new)
        mixed = {name: NEWEST * new[name] + (1 - NEWEST) * old[name] for name in new}
        with complete_file(self._path) as partial:
            partial.write_text(json.dumps(all_known | {key: mixed}, indent=1), encoding="utf-8")

    def _read(self) -> dict[str, dict[str, float]]:
        try:
            known = json.loads(self._path.read_text(encoding="utf-8"))
            return {key: {name: float(one[name]) for name in STAGES} for key, one in known.items()}
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return {}


def _units(work: Work) -> dict[str, float]:
    return dict(zip(STAGES, (1.0, work.denoising, work.decoding), strict=True))


def timing_key(plan: Plan, device: Any) -> str:
    """Of what the speed depends on."""
    weights, preset = plan.weights["denoising_unet"], plan.settings.preset
    return " ".join(filter(None, [str(weights), str(device), plan.settings.dtype, preset]))
