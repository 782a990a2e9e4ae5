"""How large the work of a check is, the models that go with it, and what is measured around it."""

import copy
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
    """The figures of one size of check."""

    tiny: bool  # the golden data's models, instead of the published sizes with random weights
    frames: int  # of whole videos, of a step, of a training clip
    steps: int
    sides: tuple[int, ...]  # pixels, of whole videos; the first one is also that of a step
    near: tuple[int, int, int]  # side, frames and steps of the videos that are compared between precisions
    training_side: int
    pairs: int  # of a stage 1 step
    repeats: int  # of what takes less than a second
    pose_frames: int


FULL = Scale(False, 48, 20, (512, 768), (256, 16, 20), 512, 8, 5, 128)
SCALES = {
    "full": FULL,
    "quick": replace(FULL, steps=4, sides=(512,), near=(256, 16, 4), pairs=2, repeats=3, pose_frames=32),
    "tiny": Scale(True, 2, 3, (32, 40), (32, 2, 2), 32, 1, 1, 2),
}
NOISE = scheduler_config(WeightPaths.published())


class DeviceLost(Exception):
    """Only another process can go on."""


@dataclass(frozen=True)
class Check:
    """What every section is given."""

    report: Report
    scale: Scale
    device: torch.device
    deadline: float  # of time.time()

    @property
    def seconds_left(self) -> float:
        return self.deadline - time.time()

    @property
    def half(self) -> torch.dtype:
        """The type that users sample in: float16, where it is fit for the device."""
        return torch.bfloat16 if self.device.type == "cpu" else torch.float16

    def pipeline(self, dtype: torch.dtype, device: torch.device | str | None = None) -> Pose2VideoPipeline:
        """All models, the same numbers each time, with the published noise schedule; on `device`, or the check's."""
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
            return tiny(dtype, device)["denoising_unet"]
        return full_size("denoising_unet", dtype, str(device))

    @contextmanager
    def guarded(self, part: int, what: str) -> Iterator[None]:
        """What goes wrong inside is a line of the report, and the next thing goes on."""
        failed = None
        try:
            yield
        except DeviceLost:
            raise
        except Exception as error:  # out of memory, a package that is missing, a kernel that fails, ...
            failed = explain(error)  # the text alone: the error holds on to what was being computed
        if failed is not None:
            self.report.say(part, what, False, error=failed)
            self.check_device()
            self.release()

    def check_device(self) -> None:
        """Raises DeviceLost: after some errors a CUDA device refuses everything until the process ends."""
        try:
            self.synchronize()
        except Exception as error:
            raise DeviceLost(explain(error)) from error

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def release(self) -> None:
        """Give back what nobody holds, and measure the peak of the memory anew."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.forget_peak()

    def forget_peak(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def peak(self) -> float | None:
        """GiB that tensors took at most since `forget_peak`; None on a processor, where nobody counts."""
        return torch.cuda.max_memory_allocated(self.device) / GIB if self.device.type == "cuda" else None


def explain(error: BaseException) -> str:
    """One line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def tiny(dtype: torch.dtype, device: torch.device | str) -> dict[str, nn.Module]:
    """The golden data's models."""
    copies = copy.deepcopy(_tiny_models())
    return {name: nn.Module.to(model, device, dtype).requires_grad_(False) for name, model in copies.items()}


@cache
def _tiny_models() -> dict[str, nn.Module]:
    from random_models.tiny_weights import tiny_models

    return tiny_models()


@torch.no_grad()
def step_tflop(check: Check, side: int) -> float:
    """TFLOP of a guided denoising step over the check's frames, counted without computing."""
    unet = check.denoising_unet(torch.float32, "meta")
    sample, context, pose, *_ = step_inputs(unet, side, check.scale.frames)
    with FlopCounterMode(display=False) as counter:
        unet(sample.repeat(2, 1, 1, 1), 500.0, context, pose, frames=check.scale.frames)
    return counter.get_total_flops() / 1e12


@cache
def matrix_rate(check_device: torch.device, dtype: torch.dtype, side: int) -> float:
    """TFLOP/s of a matrix product of so many rows and columns on this device, the best of ten."""
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
