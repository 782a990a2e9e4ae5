"""Part 2: time of whole videos relative to the device's matrix rate, and peak memory against the estimate."""

import time

import numpy as np
from PIL import Image

from benchmarks.gpu_check.scale import Check, matrix_rate, step_tflop
from musepose.inference.memory_estimate import Workload, peak_bytes
from musepose.memory.offload import ModelOffloader
from musepose.memory.plan import BY_NAME, GIB, MemoryPlan
from musepose.pipelines.pose2video import Pose2VideoPipeline

WARM_UP_STEPS = 2
ESTIMATE_TOLERANCE = 0.05  # relative; outside it the estimate needs correction


def random_inputs(side: int, frames: int) -> tuple[Image.Image, np.ndarray]:
    """A reference image and pose frames (f h w 3) of random bytes."""
    generator = np.random.default_rng(0)
    reference = Image.fromarray(generator.integers(0, 255, (side, side, 3), np.uint8))
    return reference, generator.integers(0, 255, (frames, side, side, 3), np.uint8)


def videos(check: Check) -> None:
    """Whole guided videos, encoding and decoding included: each size with the plans high and low."""
    scale = check.scale
    rows = 256 if scale.tiny else 8192
    rate = matrix_rate(check.device, check.half, rows)
    check.report.add(2, f"product of matrices of {rows} rows, {check.half}", tflop_per_s=rate)
    pipeline, empty = check.pipeline(check.half), check.pipeline(check.half, "meta")
    for side in scale.sides:
        tflop = step_tflop(check, side)
        for name in ("high", "low"):
            plan = BY_NAME[name].for_device(check.device)
            what = f"{scale.frames} frames of {side} x {side}, {scale.steps} steps, plan {name}"
            with check.guarded(2, what):
                seconds, peaks = timed_video(check, pipeline, plan, side)
                share = tflop * scale.steps / seconds["denoising"] / rate
                times = {f"{stage}_s": taken for stage, taken in seconds.items()}
                check.report.add(2, what, **times, matrix_rate_in_denoising=share)
                work = Workload(side, side, scale.frames, scale.frames, guided=True)
                compare_peaks(check, what, peaks, peak_bytes(empty, plan, work))
    del pipeline
    check.release()


def timed_video(
    check: Check, pipeline: Pose2VideoPipeline, plan: MemoryPlan, side: int
) -> tuple[dict[str, float], dict[str, float | None]]:
    """→ seconds: whole, before, denoising, decoding; and peak GiB up to the end of denoising, and of decoding.

    A short run warms up first: cuDNN selects kernels, the allocator grows. Raises RuntimeError: out of memory, the
    pipeline continued with a smaller plan.
    """
    scale = check.scale
    pipeline.offloader = ModelOffloader(pipeline.models, check.device, plan)
    reference, poses = random_inputs(side, scale.frames)
    marks: dict[str, float] = {}
    peaks: dict[str, float | None] = {}

    def run(steps: int) -> None:
        def progress(stage: str, done: int, total: int) -> None:
            if stage == "denoising" and done in (1, total):
                check.synchronize()
                marks["first" if done == 1 else "last"] = time.perf_counter()
                if done == total:
                    peaks["denoising"] = check.peak()
                    check.reset_peak()

        sizes = {"width": side, "height": side, "num_frames": scale.frames, "context_frames": scale.frames}
        sizes |= {"context_overlap": 0, "num_inference_steps": steps}
        for _ in pipeline.stream(reference, poses, **sizes, progress=progress):
            if steps == WARM_UP_STEPS != scale.steps:
                break

    run(WARM_UP_STEPS)
    check.release()
    check.synchronize()
    start = time.perf_counter()
    run(scale.steps)
    check.synchronize()
    end = time.perf_counter()
    peaks["decoding"] = check.peak()
    if pipeline.offloader.plan != plan:
        raise RuntimeError(f"out of memory: it continued with the plan {pipeline.offloader.plan.name}")
    # Progress starts after the first step, which is assumed to take as long as the others.
    step = (marks["last"] - marks["first"]) / (scale.steps - 1)
    seconds = {
        "whole": end - start,
        "before": marks["first"] - start - step,
        "denoising": step * scale.steps,
        "decoding": end - marks["last"],
    }
    return seconds, peaks


def compare_peaks(check: Check, what: str, measured: dict[str, float | None], estimated: dict[str, int]) -> None:
    """Report peaks and estimates: of all stages up to denoising together, and of decoding."""
    for stage, peak in measured.items():
        of = [size for name, size in estimated.items() if (name == "decoding") == (stage == "decoding")]
        estimate = max(of) / GIB
        off = None if peak is None else peak / estimate - 1
        check.report.add(
            2,
            f"{what}, memory {'up to the end of the denoising' if stage == 'denoising' else 'of the decoding'}",
            None if off is None else abs(off) <= ESTIMATE_TOLERANCE,
            peak_GiB=peak,
            estimated_GiB=estimate,
            off_by=off,
        )
