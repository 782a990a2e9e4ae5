"""Part 3: profile of a denoising step, and timings of variants of its layers."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.profiler_util import FunctionEventAvg
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu_check.scale import Check
from benchmarks.measure import median_times
from benchmarks.models import step_inputs
from benchmarks.unet import step
from musepose.memory.plan import HIGH

ROWS = 10
HEADS = 8
# Head size → numbers of queries and keys (own and reference) of a 512 x 512 frame, at the three levels with attention.
ATTENTION = {40: (4096, 8192), 80: (1024, 2048), 160: (256, 512)}
SOME_FRAMES = 8  # for attention: the math back-end holds the whole matrix of attention weights
BACKENDS = ("FLASH_ATTENTION", "CUDNN_ATTENTION", "EFFICIENT_ATTENTION", "MATH")
PADDED = 64  # a head size that every kernel supports; zeros do not change the products
NORMS = {320: 64, 640: 32, 1280: 16}  # channels → side of a 512 x 512 frame's latents


@torch.no_grad()
def profiled(check: Check) -> None:
    """The ten operations and the ten kernels that take the most time in a guided step."""
    go = _step(check, check.denoising_unet(check.half))
    go()
    check.synchronize()
    is_cuda = check.device.type == "cuda"
    activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA] if is_cuda else [ProfilerActivity.CPU]
    with profile(activities=activities) as profiler:
        go()
        check.synchronize()
    events = profiler.key_averages()

    def own(event: FunctionEventAvg) -> float:
        return event.self_device_time_total if is_cuda else event.self_cpu_time_total

    operations = [event for event in events if event.device_type == torch.autograd.DeviceType.CPU]
    kernels = [event for event in events if event.device_type != torch.autograd.DeviceType.CPU]
    for kind, some in (("operation", operations), ("kernel", kernels)):
        whole = sum(map(own, some))
        for event in sorted(some, key=own, reverse=True)[:ROWS]:
            values = {"ms": own(event) / 1000, "share": own(event) / whole, "calls": event.count}
            check.report.add(3, f"{kind} {event.key[:90]}", **values)
    if is_cuda:
        wall = median_times({"step": go}, check.scale.repeats, 0, check.synchronize)["step"]
        busy = sum(map(own, kernels)) / 1e6
        check.report.add(3, "a guided step", seconds=wall, kernels_s=busy, idle_share=max(0.0, 1 - busy / wall))


@torch.no_grad()
def memory_formats(check: Check) -> None:
    """A guided step with contiguous tensors, and with the UNet and its input in channels_last."""
    with check.guarded(3, "channels_last"):
        plain, last = check.denoising_unet(check.half), check.denoising_unet(check.half)
        last.to(memory_format=torch.channels_last)
        time_variants(
            check, "a guided step", {"contiguous": _step(check, plain), "channels_last": _step(check, last, True)}
        )


def _step(check: Check, unet: Any, channels_last: bool = False) -> Callable[[], Tensor]:
    sample, context, pose, *_ = step_inputs(unet, check.scale.sides[0], check.scale.frames)
    if channels_last:
        sample, pose = (x.contiguous(memory_format=torch.channels_last) for x in (sample, pose))
    return lambda: step(unet, sample, context, pose, HIGH)


@torch.no_grad()
def attention(check: Check) -> None:
    """Back-ends of fused attention by head size, spatial and temporal, and heads padded to a supported size."""
    for size, (queries, keys) in ATTENTION.items():
        if check.scale.tiny:
            queries, keys = queries // 64, keys // 64
        _attention(check, f"attention, heads of {size}, {queries} x {keys}", SOME_FRAMES, size, queries, keys)
    frames = check.scale.frames
    pixels = 16 if check.scale.tiny else 4096  # of a frame: each is one sequence
    _attention(check, f"attention along {frames} frames, heads of 40, {pixels} pixels", pixels, 40, frames, frames)


def _attention(check: Check, what: str, rows: int, size: int, queries: int, keys: int) -> None:
    def normal(length: int) -> Tensor:
        return torch.randn(rows, HEADS, length, size, device=check.device, dtype=check.half)

    query, key, value = normal(queries), normal(keys), normal(keys)

    def choose(backend: str) -> Callable[[], Tensor]:
        def go() -> Tensor:
            with sdpa_kernel(getattr(SDPBackend, backend)):
                return F.scaled_dot_product_attention(query, key, value)

        return go

    inputs = query, key, value
    variants = {"as it is": lambda: F.scaled_dot_product_attention(*inputs), "padded": lambda: padded(*inputs)}
    variants |= {name.lower(): choose(name) for name in BACKENDS}
    time_variants(check, what, variants)


def padded(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention (b h n d) with heads zero-padded to a multiple of PADDED; the result is cropped to d."""
    size = query.shape[-1]
    wide = (F.pad(x, (0, -size % PADDED)) for x in (query, key, value))
    return F.scaled_dot_product_attention(*wide, scale=size**-0.5)[..., :size]


@torch.no_grad()
def norms(check: Check) -> None:
    """GroupNorm and SiLU: as two operations, as in the UNet, and compiled into one kernel."""
    frames = 2 * (2 if check.scale.tiny else check.scale.frames)
    for channels, side in list(NORMS.items())[: 1 if check.scale.tiny else None]:
        norm = nn.GroupNorm(32, channels, device=check.device, dtype=check.half)
        shape = (frames, channels, *(2 * [side // 16 if check.scale.tiny else side]))
        x = torch.randn(shape, device=check.device, dtype=check.half)
        both = torch.compile(lambda x, norm=norm: F.silu(norm(x)), dynamic=False)
        last = x.contiguous(memory_format=torch.channels_last)
        variants = {
            "as it is": lambda x=x, norm=norm: F.silu(norm(x), inplace=True),
            "the norm alone": lambda x=x, norm=norm: norm(x),
            "channels_last": lambda x=last, norm=norm: F.silu(norm(x)),
            "compiled": lambda x=x, both=both: both(x),
        }
        time_variants(check, f"GroupNorm and SiLU, {' x '.join(map(str, shape))}", variants)


def time_variants(check: Check, what: str, variants: dict[str, Callable[[], Any]]) -> None:
    """Time equivalent variants in interleaved rounds; report each time and its ratio to the first variant's."""
    working = {}
    for name, variant in variants.items():
        try:
            variant()
            check.synchronize()
            working[name] = variant
        except Exception as error:  # a back-end without support for the shape; no compiler
            check.report.add(3, f"{what}, {name}", left_out=f"{type(error).__name__}: {str(error).strip()[:100]}")
            check.check_device()
    times = median_times(working, check.scale.repeats, 1, check.synchronize)
    first = next(iter(times.values()), 0.0)
    for name, seconds in times.items():
        check.report.add(3, f"{what}, {name}", ms=1000 * seconds, first_over_this=first / seconds)
