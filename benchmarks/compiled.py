"""torch.compile of the UNet's layers on a CPU: step time, and compile time with a cold and a warm cache."""

import os
import subprocess
import sys
import tempfile
import time

import torch

from benchmarks.measure import ROOT, Table, median_times

FRAMES, SIDE = 2, 256


def compiled() -> Table:
    """A guided step, full size, bfloat16, 2 frames of 256 x 256: eager, compiled, and the first compiled step."""
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": cache}
        command = [sys.executable, "-m", "benchmarks.compiled"]
        options = {"env": environment, "cwd": ROOT, "capture_output": True, "text": True, "check": True}
        runs = [subprocess.run(command, **options).stdout.split() for _ in range(2)]
    (cold, plain, fast), (warm, *_) = ([float(number) for number in run[-3:]] for run in runs)
    rows = [("eager step", plain, 1.0), ("compiled step", fast, plain / fast)]
    rows.append(("first step, empty cache", cold, plain / cold))
    rows.append(("first step of the next process", warm, plain / warm))
    title = f"torch.compile on a CPU, full size, bfloat16, {FRAMES} frames of {SIDE} x {SIDE}"
    return Table(title, ("what", "seconds", "eager / this"), rows)


@torch.no_grad()
def _measure() -> None:
    from benchmarks.models import full_size, step_inputs

    plain, other = (full_size("denoising_unet", torch.bfloat16) for _ in range(2))
    other.compile_layers()
    sample, context, pose, *_ = step_inputs(plain, SIDE, FRAMES)
    arguments = (sample.repeat(2, 1, 1, 1), 500.0, context, pose, FRAMES)
    start = time.perf_counter()
    other(*arguments)
    first = time.perf_counter() - start
    times = median_times({"plain": lambda: plain(*arguments), "compiled": lambda: other(*arguments)}, 3)
    print(first, times["plain"], times["compiled"])


if __name__ == "__main__":
    _measure()
