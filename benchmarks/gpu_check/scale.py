"""The sizes of a check, its models, and shared measurements: peak memory, FLOP, matrix rate."""

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from diffusers import DDIMScheduler
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu_check.report import Report
from benchmarks.models import full_size, full_size_pipeline, step_inputs
from musepose.memory.plan import GIB
from musepose.models.weights import WeightPaths, scheduler_config
from musepose.pipelines.pose2video import Pose2VideoPipeline


@dataclass(frozen=True)
class Scale:
    """The sizes used by all sections."""

    tiny: bool  # the golden data's models instead of full-size models with random weights
    frames: int  # of a whole video, a step, a training clip
    steps: int
    sides: tuple[int, ...]  # pixels, of whole videos; single steps use the first
    near: tuple[int, int, int]  # side, frames, steps of the videos that compare precisions
    training_side: int
    pairs: int  # batch size of a stage 1 step
    repeats: int  # of timings below a second
    pose_frames: int


FULL = Scale(False, 48, 20, (512, 768), (256, 16, 20), 512, 8, 5, 128)
SCALES = {
    "full": FULL,
    "quick": replace(FULL, steps=4, sides=(512,), near=(256, 16, 4), pairs=2, repeats=3, pose_frames=32),
    "tiny": Scale(True, 2, 3, (32, 40), (32, 2, 2), 32, 1, 1, 2),
}
NOISE = scheduler_config(WeightPaths.published())


class DeviceLost(Exception):
    """The device refuses all further work in this process; a new process may continue."""


@dataclass(frozen=True)
class Check:
    """The argument of every section: report, sizes, device, time limit."""

    report: Report
    scale: Scale
    device: torch.device
    deadline: float  # of time.time()

    @property
    def seconds_left(self) -> float:
        return self.deadline - time.time()

    @property
    def half(self) -> torch.dtype:
        """The usual sampling dtype: float16, or bfloat16 on a CPU."""
        return torch.bfloat16 if self.device.type == "cpu" else torch.float16

    def pipeline(self, dtype: torch.dtype, device: torch.device | str | None = None) -> Pose2VideoPipeline:
        """All models with fixed weights and the published noise schedule, on `device` (default: the check's)."""
        device = device or self.device
        if self.scale.tiny:
            made = Pose2VideoPipeline(**tiny(dtype, device), scheduler=DDIMScheduler(**NOISE))
        else:
            made = full_size_pipeline(dtype, str(device))
            made.scheduler = DDIMScheduler(**NOISE)
        return made

    def denoising_unet(self, dtype: torch.dtype, device: torch.device | str | None = None) -> Any:
        device = device or self.device
        if self.scale.tiny:
            return tiny(dtype, device, "denoising_unet")["denoising_unet"]
        return full_size("denoising_unet", dtype, str(device))

    @contextmanager
    def guarded(self, part: int, what: str) -> Iterator[None]:
        """Report an exception in the block as a line and continue. Raises DeviceLost."""
        failed = None
        try:
            yield
        except DeviceLost:
            raise
        except Exception as error:  # out of memory, a missing package, a failing kernel, ...
            failed = explain(error)  # only the text: the traceback keeps tensors alive
        if failed is not None:
            self.report.add(part, what, False, error=failed)
            self.check_device()
            self.release()

    def check_device(self) -> None:
        """Raises DeviceLost: after some errors a CUDA context is unusable until the process ends."""
        try:
            self.synchronize()
        except Exception as error:
            raise DeviceLost(explain(error)) from error

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def release(self) -> None:
        """Free unreferenced memory and reset the peak."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.reset_peak()

    def reset_peak(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def peak(self) -> float | None:
        """Peak GiB of tensors since `reset_peak`; None on a CPU, which has no such counter."""
        return torch.cuda.max_memory_allocated(self.device) / GIB if self.device.type == "cuda" else None


def explain(error: BaseException) -> str:
    """An exception as one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def tiny(dtype: torch.dtype, device: torch.device | str, *names: str) -> dict[str, nn.Module]:
    """The golden data's models, or those with these names, frozen."""
    from random_models.tiny_weights import tiny_models

    made = tiny_models(*names)
    return {name: nn.Module.to(model, device, dtype).requires_grad_(False) for name, model in made.items()}


@torch.no_grad()
def step_tflop(check: Check, side: int) -> float:
    """TFLOP of a guided denoising step over the check's frames, counted on the meta device."""
    unet = check.denoising_unet(torch.float32, "meta")
    sample, context, pose, *_ = step_inputs(unet, side, check.scale.frames)
    with FlopCounterMode(display=False) as counter:
        unet(sample.repeat(2, 1, 1, 1), 500.0, context, pose, frames=check.scale.frames)
    return counter.get_total_flops() / 1e12


@cache
def matrix_rate(check_device: torch.device, dtype: torch.dtype, side: int) -> float:
    """TFLOP/s of a product of two `side` x `side` matrices, the best of ten."""
    a, b = (torch.randn(side, side, device=check_device, dtype=dtype) for _ in range(2))
    wait = torch.cuda.synchronize if check_device.type == "cuda" else lambda: None
    best = float("inf")
    for _ in range(10):
        wait()
        start = time.perf_counter()
        a @ b
        wait()
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best / 1e12
