"""One guided denoising step of the full-size UNet on a CPU, compared with the naive implementation."""

from collections.abc import Sequence

import torch

from benchmarks.measure import Table, median_times, with_speedups
from benchmarks.models import full_size, naive_unet, step_inputs
from musepose.memory.plan import PLANS, MemoryPlan
from musepose.models.attention import BlockContext
from musepose.models.unet import UNet

FRAMES = 8
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def unet_256() -> Table:
    """A step over 8 frames of 256 x 256, float32 and bfloat16: naive, and each memory plan."""
    return _table(256, 3, [PLANS[0], PLANS[1], PLANS[3], PLANS[4]])


def unet_512() -> Table:
    """The same at 512 x 512, naive and `high`, one round: takes half an hour."""
    return _table(512, 1, [PLANS[0]])


def _table(side: int, repeats: int, plans: Sequence[MemoryPlan]) -> Table:
    rows = []
    for name, dtype in DTYPES.items():
        times = _times(full_size("denoising_unet", dtype), side, repeats, plans)
        rows += [(f"{name}, {variant}", seconds, ratio) for variant, seconds, ratio in with_speedups(times)]
    title = f"A guided UNet step on a CPU, full size, {FRAMES} frames of {side} x {side}"
    return Table(title, ("variant", "seconds", "naive / this"), rows, [f"{torch.get_num_threads()} threads."])


@torch.no_grad()
def _times(unet: UNet, side: int, repeats: int, plans: Sequence[MemoryPlan]) -> dict[str, float]:
    sample, context, pose, token, features = step_inputs(unet, side, FRAMES)
    naive = naive_unet(unet)
    bank = {name: feature[0] for name, feature in zip(unet.spatial_blocks(), features, strict=True)}

    def run_naive() -> None:
        naive.branch(sample, 500.0, torch.zeros_like(token[0]), None, pose)
        naive.branch(sample, 500.0, token[0], bank, pose)

    variants = {"naive": run_naive}
    for plan in plans:
        variants[plan.name] = lambda plan=plan: step(unet, sample, context, pose, plan)
    return median_times(variants, repeats, warm_up=0)


@torch.no_grad()
def step(
    unet: UNet, sample: torch.Tensor, context: list[BlockContext], pose: torch.Tensor, plan: MemoryPlan
) -> torch.Tensor:
    """A guided step as the pipeline runs it."""
    rest = {"pose_features": pose, "frames": len(sample), "chunks": plan.for_device(sample.device).chunks}
    if plan.joint:
        return unet(sample.repeat(2, 1, 1, 1), 500.0, context, **rest)
    return torch.cat([unet(sample, 500.0, [block.row(row) for block in context], **rest) for row in (0, 1)])
