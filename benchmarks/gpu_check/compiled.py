"""Part 3, last: `--compile` on and off, and what the first and the second start of the program wait for it."""

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
from benchmarks.measure import ROOT, medians
from benchmarks.models import step_inputs
from benchmarks.unet import step
from musepose.memory.plan import HIGH

LEAST_SECONDS = 30  # below which nothing is begun


def compile_starts(check: Check) -> None:
    """Two processes, one after the other, with one folder of compiled code that is empty at first."""
    with tempfile.TemporaryDirectory() as cache:
        command = [sys.executable, "-m", "benchmarks.gpu_check.compiled", str(check.device), scale_name(check)]
        environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": cache, "TRITON_CACHE_DIR": f"{cache}/triton"}
        options = {"env": environment, "cwd": ROOT, "capture_output": True, "text": True}
        for start in ("first", "second"):
            what = f"--compile, {start} start"
            if check.seconds_left < LEAST_SECONDS:
                check.report.say(3, what, left_out="the time is over")
                continue
            with check.guarded(3, what):
                done = subprocess.run(command, timeout=check.seconds_left, **options)
                if done.returncode:
                    raise RuntimeError(f"exit status {done.returncode}: {done.stderr.strip()[-300:]}")
                check.report.say(3, what, **json.loads(done.stdout.splitlines()[-1]))


def scale_name(check: Check) -> str:
    return next(name for name, scale in SCALES.items() if scale == check.scale)


@torch.no_grad()
def _measure(device: str, scale: str) -> dict[str, float]:
    check = Check(Report(Path()), SCALES[scale], torch.device(device), float("inf"))
    plain, other = (check.denoising_unet(check.half) for _ in range(2))
    other.compile_layers()
    sample, context, pose, *_ = step_inputs(plain, check.scale.sides[0], check.scale.frames)
    unets = {"plain": plain, "compiled": other}
    ways = {name: lambda unet=unet: step(unet, sample, context, pose, HIGH) for name, unet in unets.items()}
    start = time.perf_counter()
    ways["compiled"]()
    check.synchronize()
    first = time.perf_counter() - start
    times = medians(ways, check.scale.repeats, 1, check.synchronize)
    values = {"first_step_s": first, "compiled_step_s": times["compiled"], "plain_step_s": times["plain"]}
    return values | {"plain_over_compiled": times["plain"] / times["compiled"]}


if __name__ == "__main__":
    print(json.dumps(_measure(*sys.argv[1:])))
