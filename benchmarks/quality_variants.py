"""The variants that benchmarks.quality compares: settings by name."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from musepose.pipelines.options import SamplingOptions


@dataclass(frozen=True)
class Variant:
    """How a clip of a held-out puppet is sampled."""

    options: tuple[tuple[str, Any], ...]  # fields of SamplingOptions
    scheduler: str = "ddim"
    frames: int = 8
    context: tuple[int, int] = (8, 0)
    stage: int = 2
    dtype: str = "float32"

    @property
    def key(self) -> str:
        """Text that tells variants apart in the file of figures."""
        return json.dumps([dict(sorted(self.options)), self.scheduler, self.frames, self.stage, self.dtype])

    @property
    def sampling(self) -> SamplingOptions:
        return SamplingOptions(**dict(self.options))

    def exact(self) -> "Variant":
        """50 steps of ddim from the same noise, nothing approximated."""
        kept = ("guidance_scale", "shared_noise", "context_frames", "context_overlap")
        options = tuple((name, value) for name, value in self.options if name in kept)
        return replace(self, options=(*options, ("num_inference_steps", 50)), scheduler="ddim", dtype="float32")


def variant(
    steps: int,
    scheduler: str = "ddim",
    *,
    cfg: float,
    shared_noise: float = 1.0,  # as the puppets were trained
    context: tuple[int, int] = (8, 0),
    frames: int = 8,
    stage: int = 2,
    dtype: str = "float32",
    **more: Any,
) -> Variant:
    options = {"num_inference_steps": steps, "guidance_scale": cfg, "shared_noise": shared_noise, **more}
    options |= {"context_frames": context[0], "context_overlap": context[1]}
    return Variant(tuple(options.items()), scheduler, frames, context, stage, dtype)


def spaced(steps: int, scheduler: str = "dpm++", **more: Any) -> dict[str, Any]:
    return {"steps": steps, "scheduler": scheduler, "spacing": 2.0, **more}


def cached(interval: int, branch: int) -> dict[str, int]:
    return {"cache_interval": interval, "cache_branch": branch}


GUIDED: dict[str, dict[str, Any]] = {
    "ddim 50": {"steps": 50},
    "ddim 20 (`exact`)": {"steps": 20},
    "ddim 20, bfloat16": {"steps": 20, "dtype": "bfloat16"},
    "ddim 10": {"steps": 10},
    "ddim 6": {"steps": 6},
    "dpm++ 10": {"steps": 10, "scheduler": "dpm++"},
    "unipc 10": {"steps": 10, "scheduler": "unipc"},
    "dpm++ 10, spacing 2": spaced(10),
    "dpm++ 8, spacing 2": spaced(8),
    "dpm++ 6, spacing 2": spaced(6),
    "euler 6, spacing 2": spaced(6, "euler"),
    "euler 4, spacing 2": spaced(4, "euler"),
    "euler 8, spacing 2, cache 2, branch 1": spaced(8, "euler", **cached(2, 1)),
    "euler 6, spacing 2, cache 2, branch 1 (`draft`)": spaced(6, "euler", **cached(2, 1)),
    "ddim 20, guidance 0 to 0.5": {"steps": 20, "guidance_stop": 0.5},
    "ddim 20, guidance 0.2 to 0.8": {"steps": 20, "guidance_start": 0.2, "guidance_stop": 0.8},
    "ddim 20, guidance_every 2": {"steps": 20, "guidance_every": 2},
    "ddim 20, cache 3, branch 0": {"steps": 20, **cached(3, 0)},
    "ddim 20, cache 3, branch 1": {"steps": 20, **cached(3, 1)},
    "dpm++ 10, spacing 2, guidance_every 2": spaced(10, guidance_every=2),
    "dpm++ 10, spacing 2, cache 2, branch 1 (`fast`)": spaced(10, **cached(2, 1)),
    "dpm++ 10, spacing 2, cache 2, branch 0": spaced(10, **cached(2, 0)),
    "dpm++ 12, spacing 2, cache 3, branch 1": spaced(12, **cached(3, 1)),
    "`fast`, bfloat16": spaced(10, dtype="bfloat16", **cached(2, 1)),
}
UNGUIDED = {name: one for name, one in GUIDED.items() if "guidance" not in name}

SPEED: Mapping[str, Mapping[str, Variant]] = {
    "guided, 3.5": {name: variant(cfg=3.5, **one) for name, one in GUIDED.items()},
    "unguided": {name: variant(cfg=1.0, **one) for name, one in UNGUIDED.items()},
}

SEAMS = (16, 4)  # context windows between which errors at seams are measured
THREE_WINDOWS: dict[str, dict[str, Any]] = {
    "as published": {},
    "one window: no seams": {"context": (40, 0)},
    "triangle": {"blend": "triangle"},
    "shift 5": {"shift": 5},
    "triangle, shift 5": {"blend": "triangle", "shift": 5},
    "noise shuffled": {"noise": "shuffled"},
    "noise low_frequency": {"noise": "low_frequency"},
    "smooth_latents 0.1": {"smooth_latents": 0.1},
    "smooth_latents 0.2": {"smooth_latents": 0.2},
    "smooth_latents 0.1, noise low_frequency": {"smooth_latents": 0.1, "noise": "low_frequency"},
    "shared_noise 0.5": {"shared_noise": 0.5},
    "shared_noise 1": {"shared_noise": 1.0},
    "triangle, shift 5, noise shuffled": {"blend": "triangle", "shift": 5, "noise": "shuffled"},
}
WINDOWS: dict[str, Any] = {"steps": 10, "cfg": 1.0, "shared_noise": 0.0, "context": SEAMS, "frames": 40}

STEADY: Mapping[str, Mapping[str, Variant]] = {
    f"stage {stage}": {name: variant(**{**WINDOWS, "stage": stage, **one}) for name, one in THREE_WINDOWS.items()}
    for stage in (2, 1)
}
