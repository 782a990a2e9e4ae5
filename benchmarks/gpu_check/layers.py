"""Part 3: where a denoising step's time goes, and variants of its layers timed one against the other."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.profiler_util import FunctionEventAvg
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu_check.scale import Check
from benchmarks.measure import medians
from benchmarks.models import step_inputs
from benchmarks.unet import step
from musepose.memory.plan import HIGH

ROWS = 10
HEADS = 8
# Head size → queries and keys of a 512 x 512 frame with the reference beside it, at the three levels with attention.
ATTENTION = {40: (4096, 8192), 80: (1024, 2048), 160: (256, 512)}
SOME_FRAMES = 8  # that attention and norms are timed on: plain attention holds a matrix of all weights
BACKENDS = ("FLASH_ATTENTION", "CUDNN_ATTENTION", "EFFICIENT_ATTENTION", "MATH")
PADDED = 64  # a head size that every kernel knows; zeros change no product
NORMS = {320: 64, 640: 32, 1280: 16}  # channels → side of a 512 x 512 frame's latents


@torch.no_grad()
def profiled(check: Check) -> None:
    """The ten operations, and the ten kernels, that take most of a guided step."""
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
            check.report.say(3, f"{kind} {event.key[:90]}", **values)
    if is_cuda:
        wall = medians({"step": go}, check.scale.repeats, 0, check.synchronize)["step"]
        busy = sum(map(own, kernels)) / 1e6
        check.report.say(3, "a guided step", seconds=wall, kernels_s=busy, idle_share=max(0.0, 1 - busy / wall))


@torch.no_grad()
def memory_formats(check: Check) -> None:
    """A guided step as it is, and with the UNet and its input in channels_last."""
    with check.guarded(3, "channels_last"):
        plain, last = check.denoising_unet(check.half), check.denoising_unet(check.half)
        last.to(memory_format=torch.channels_last)
        tell(check, "a guided step", {"contiguous": _step(check, plain), "channels_last": _step(check, last, True)})


def _step(check: Check, unet: Any, channels_last: bool = False) -> Callable[[], Tensor]:
    sample, context, pose, *_ = step_inputs(unet, check.scale.sides[0], check.scale.frames)
    if channels_last:
        sample, pose = (x.contiguous(memory_format=torch.channels_last) for x in (sample, pose))
    return lambda: step(unet, sample, context, pose, HIGH)


@torch.no_grad()
def attention(check: Check) -> None:
    """Back-ends of fused attention by head size; heads padded to a size that suits the kernels; and along frames."""
    for size, (queries, keys) in ATTENTION.items():
        if check.scale.tiny:
            queries, keys = queries // 64, keys // 64
        _attention(check, f"attention, heads of {size}, {queries} x {keys}", SOME_FRAMES, size, queries, keys)
    frames = check.scale.frames
    pixels = 16 if check.scale.tiny else 4096  # of a frame: every one is a sequence of its own
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
    ways = {"as it is": lambda: F.scaled_dot_product_attention(*inputs), "padded": lambda: padded(*inputs)}
    ways |= {name.lower(): choose(name) for name in BACKENDS}
    tell(check, what, ways)


def padded(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention with heads (b h n d) widened by zeros to a multiple of PADDED, and cut again."""
    size = query.shape[-1]
    wide = (F.pad(x, (0, -size % PADDED)) for x in (query, key, value))
    return F.scaled_dot_product_attention(*wide, scale=size**-0.5)[..., :size]


@torch.no_grad()
def norms(check: Check) -> None:
    """GroupNorm and SiLU: one after the other as the UNet has them, and compiled into one kernel."""
    frames = 2 * (2 if check.scale.tiny else check.scale.frames)
    for channels, side in list(NORMS.items())[: 1 if check.scale.tiny else None]:
        norm = nn.GroupNorm(32, channels, device=check.device, dtype=check.half)
        shape = (frames, channels, *(2 * [side // 16 if check.scale.tiny else side]))
        x = torch.randn(shape, device=check.device, dtype=check.half)
        both = torch.compile(lambda x, norm=norm: F.silu(norm(x)), dynamic=False)
        last = x.contiguous(memory_format=torch.channels_last)
        ways = {
            "as it is": lambda x=x, norm=norm: F.silu(norm(x), inplace=True),
            "the norm alone": lambda x=x, norm=norm: norm(x),
            "channels_last": lambda x=last, norm=norm: F.silu(norm(x)),
            "compiled": lambda x=x, both=both: both(x),
        }
        tell(check, f"GroupNorm and SiLU, {' x '.join(map(str, shape))}", ways)


def tell(check: Check, what: str, ways: dict[str, Callable[[], Any]]) -> None:
    """Time ways to do the same, which take turns, and tell each one's time beside the first one's."""
    working = {}
    for name, way in ways.items():
        try:
            way()
            check.synchronize()
            working[name] = way
        except Exception as error:  # a back-end that does not know the shape; no compiler
            check.report.say(3, f"{what}, {name}", left_out=f"{type(error).__name__}: {str(error).strip()[:100]}")
            check.check_device()
    times = medians(working, check.scale.repeats, 1, check.synchronize)
    first = next(iter(times.values()), 0.0)
    for name, seconds in times.items():
        check.report.say(3, f"{what}, {name}", ms=1000 * seconds, first_over_this=first / seconds)
