"""On a CUDA GPU: whole videos of the full-size model, random float16 weights, against the card's arithmetic."""

import time
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image

from benchmarks.measure import Table, medians
from benchmarks.models import full_size_pipeline
from musepose.inference.memory_estimate import Workload, peak_bytes
from musepose.memory.offload import ModelOffloader
from musepose.memory.plan import BY_NAME, GIB, MemoryPlan
from musepose.pipelines.pose2video import Pose2VideoPipeline

FRAMES, STEPS = 48, 20
TFLOP = {512: 109.6, 768: 296.2}  # of a guided step over 48 frames, as tests/test_unet.py counts them
COLUMNS = ("way", "seconds", "floor / this", "max_memory_allocated, GiB", "rehearsed, GiB")


def gpu_video() -> Table:
    """512 and 768 pixels, 48 frames, 20 steps, guided, all included: plans high and low, compiled or not."""
    title = f"Whole video on a GPU, full size, float16, {FRAMES} frames, {STEPS} steps"
    if not torch.cuda.is_available():
        return Table(title, COLUMNS, [], ["Open: no GPU was at hand."])
    rate = matrix_rate()
    rows = []
    for side in (512, 768):
        floor = TFLOP[side] * STEPS / rate
        rows.append((f"{side}: floor at {rate:.0f} TFLOP/s", floor, 1.0, "", ""))
        for compiled in (False, True):
            pipeline = full_size_pipeline(torch.float16, "cuda")
            if compiled:
                pipeline.denoising_unet.compile_layers()
            for plan in (BY_NAME["high"], BY_NAME["low"]):
                rows.append(measure(pipeline, plan, side, floor, compiled))
            del pipeline
            torch.cuda.empty_cache()
    return Table(title, COLUMNS, rows)


def measure(pipeline: Pose2VideoPipeline, plan: MemoryPlan, side: int, floor: float, compiled: bool) -> tuple:
    """A row of the table; the first run warms up."""
    pipeline.offloader = ModelOffloader(pipeline.models, torch.device("cuda"), plan)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    run = video(pipeline, side, FRAMES, STEPS)
    seconds = medians({"": run}, 2, synchronize=torch.cuda.synchronize)[""]
    allocated = torch.cuda.max_memory_allocated() / GIB
    work = Workload(side, side, FRAMES, FRAMES, guided=True)
    rehearsed = max(peak_bytes(full_size_pipeline(torch.float16, "meta"), plan, work).values()) / GIB
    name = f"{side}: {plan.name}{', compiled' if compiled else ''}"
    return name, seconds, floor / seconds, allocated, rehearsed


def video(pipeline: Pose2VideoPipeline, side: int, frames: int, steps: int) -> Callable[[], None]:
    generator = np.random.default_rng(0)
    reference = Image.fromarray(generator.integers(0, 255, (side, side, 3), np.uint8))
    poses = generator.integers(0, 255, (frames, side, side, 3), np.uint8)
    arguments = {"width": side, "height": side, "num_frames": frames, "num_inference_steps": steps}

    def run() -> None:
        for _ in pipeline.stream(reference, poses, **arguments):
            pass

    return run


def matrix_rate() -> float:
    """TFLOP/s of a large float16 matrix product on this card, the best of ten."""
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.float16) for _ in range(2))
    best = float("inf")
    for _ in range(10):
        torch.cuda.synchronize()
        start = time.perf_counter()
        a @ b
        torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * 8192**3 / best / 1e12
