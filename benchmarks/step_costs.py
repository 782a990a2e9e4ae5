"""What a denoising step of the full-size UNet costs by what it computes: FLOPs, and seconds on this processor."""

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.models import full_size, step_inputs
from musepose.models.unet import DeepFeatures
from musepose.pipelines.options import SamplingOptions
from musepose.pipelines.steps import plan_steps

FLOP_SIZE, FLOP_FRAMES = 512, 48
TIMED_SIZE, TIMED_FRAMES = 256, 2
BRANCHES = ("unconditional", "conditional")
SHALLOW = (0, 1, 2)  # cache branches
KINDS = [f"{branch}, {depth}" for branch in BRANCHES for depth in ("whole", *SHALLOW)]


def kinds_of(options: SamplingOptions) -> Counter[str]:
    """The passes through the UNet that one window takes in all steps: kind → number."""
    found: Counter[str] = Counter()
    for step in plan_steps(options, options.context_frames):
        for branch in step.branches:
            which = BRANCHES[branch if options.guided else 1]
            whole = step.refresh[branch] or not options.shallow_layers
            found[f"{which}, {'whole' if whole else options.cache_branch}"] += 1
    return found


def total(kinds: Mapping[str, int], costs: Mapping[str, float]) -> float:
    return sum(costs[kind] * number for kind, number in kinds.items())


@torch.no_grad()
def passes(dtype: str, device: str, side: int, frames: int) -> Iterable[tuple[str, Any]]:
    """(kind, function that runs it) of the full-size UNet with random weights."""
    unet = full_size("denoising_unet", getattr(torch, dtype), device)
    sample, context, pose, *_ = step_inputs(unet, side, frames)
    for row, branch in enumerate(BRANCHES):
        rest = {"context": [block.row(row) for block in context], "pose_features": pose, "frames": frames}
        yield f"{branch}, whole", lambda rest=rest: unet(sample, 500.0, **rest)
        for depth in SHALLOW:
            deep = DeepFeatures(depth + 1)
            unet(sample, 500.0, **rest, deep=deep)
            yield f"{branch}, {depth}", lambda rest=rest, deep=deep: unet(sample, 500.0, **rest, deep=deep)


@torch.no_grad()
def flops() -> dict[str, float]:
    """TFLOP by kind, 48 frames of 512 x 512."""
    counted = {}
    for kind, run in passes("float16", "meta", FLOP_SIZE, FLOP_FRAMES):
        with FlopCounterMode(display=False) as counter:
            run()
        counted[kind] = counter.get_total_flops() / 1e12
    return counted


@torch.no_grad()
def seconds(dtype: str, repeats: int = 2) -> dict[str, float]:
    """Processor seconds by kind, 2 frames of 256 x 256, the least of `repeats`."""
    taken: dict[str, float] = {}
    for kind, run in passes(dtype, "cpu", TIMED_SIZE, TIMED_FRAMES):
        for _ in range(repeats):
            start = time.process_time()
            run()
            taken[kind] = min(taken.get(kind, float("inf")), time.process_time() - start)
    return taken


FLOPS, SECONDS = "TFLOP, 512²", "seconds, {}, 256²"
COSTS = {  # what is measured → how
    FLOPS: flops,
    SECONDS.format("float32"): lambda: seconds("float32"),
    SECONDS.format("bfloat16"): lambda: seconds("bfloat16"),
}
COLUMNS = {"× by FLOPs": FLOPS, "× by seconds": SECONDS}  # of the table → the costs, of the variant's type
