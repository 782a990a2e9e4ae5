"""Part 3, last: step time with and without `--compile`, and compile time of the first and the second process."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.gpu_check.report import Report
from benchmarks.gpu_check.scale import SCALES, Check
from benchmarks.measure import ROOT, median_times
from benchmarks.models import step_inputs
from benchmarks.unet import step
from musepose.memory.plan import HIGH

LEAST_SECONDS = 30  # no process is started with less time left


def compile_starts(check: Check) -> None:
    """Two processes, one after the other, that share an initially empty compile cache."""
    with tempfile.TemporaryDirectory() as cache:
        command = [sys.executable, "-m", "benchmarks.gpu_check.compiled", str(check.device), scale_name(check)]
        environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": cache, "TRITON_CACHE_DIR": f"{cache}/triton"}
        options = {"env": environment, "cwd": ROOT, "capture_output": True, "text": True}
        for start in ("first", "second"):
            what = f"--compile, {start} start"
            if check.seconds_left < LEAST_SECONDS:
                check.report.add(3, what, left_out="time limit reached")
                continue
            with check.guarded(3, what):
                done = subprocess.run(command, timeout=check.seconds_left, **options)
                if done.returncode:
                    raise RuntimeError(f"exit status {done.returncode}: {done.stderr.strip()[-300:]}")
                check.report.add(3, what, **json.loads(done.stdout.splitlines()[-1]))


def scale_name(check: Check) -> str:
    return next(name for name, scale in SCALES.items() if scale == check.scale)


@torch.no_grad()
def _measure(device: str, scale: str) -> dict[str, float]:
    check = Check(Report(Path()), SCALES[scale], torch.device(device), float("inf"))
    plain, other = (check.denoising_unet(check.half) for _ in range(2))
    other.compile_layers()
    sample, context, pose, *_ = step_inputs(plain, check.scale.sides[0], check.scale.frames)
    unets = {"plain": plain, "compiled": other}
    variants = {name: lambda unet=unet: step(unet, sample, context, pose, HIGH) for name, unet in unets.items()}
    start = time.perf_counter()
    variants["compiled"]()
    check.synchronize()
    first = time.perf_counter() - start
    times = median_times(variants, check.scale.repeats, 1, check.synchronize)
    values = {"first_step_s": first, "compiled_step_s": times["compiled"], "plain_step_s": times["plain"]}
    return values | {"plain_over_compiled": times["plain"] / times["compiled"]}


if __name__ == "__main__":
    print(json.dumps(_measure(*sys.argv[1:])))
