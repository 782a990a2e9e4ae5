"""How two processes add up the predictions of a step: gathered part by part, or by one all-reduce after the last part.

OMP_NUM_THREADS=1 python -m torch.distributed.run --standalone --nproc-per-node 2 -m benchmarks.exchange

A device that computes a part while the processor sends the last one is a pause here.
"""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.measure import Table, machine, revision
from musepose.memory.offload import ModelOffloader
from musepose.pipelines.denoising import Denoiser
from musepose.pipelines.options import SamplingOptions
from musepose.pipelines.steps import Step, plan_steps
from musepose.utils.distributed import ProcessGroup

FRAMES, PLANE = 1192, (4, 64, 64)  # 27 windows; 156 MB for both branches in float32
PAUSES = (0.0, 0.05, 0.1)  # seconds for which a part is computed
ROUNDS = 5


def by_parts(group: ProcessGroup, latents: Tensor, step: Step, predict: Callable) -> Tensor:
    """As in a run."""
    denoiser = Denoiser(None, [[], []], lambda window: None, ModelOffloader(dict), group)
    denoiser._predict = predict
    return denoiser(latents, 0.0, step)


def by_all_reduce(group: ProcessGroup, latents: Tensor, step: Step, predict: Callable) -> Tensor:
    total = latents.new_zeros(len(step.branches), *latents.shape)
    weights = torch.zeros(len(latents), 1, 1, 1)
    for window, branches in step.shares[group.rank]:
        sample = latents[window.start : window.stop]
        total[branches.start : branches.stop, window.start : window.stop] += predict(
            sample, window, 0.0, branches, step
        )
    for window in step.windows:
        weights[window.start : window.stop] += 1
    return group.all_reduce(total).div_(weights)


def measure(group: ProcessGroup) -> Table:
    """Medians, in turns."""
    (step,) = plan_steps(SamplingOptions(num_inference_steps=1), FRAMES, group.count)
    latents = torch.randn(FRAMES, *PLANE, generator=torch.Generator().manual_seed(0))
    rows = []
    for pause in PAUSES:

        def predict(sample: Tensor, window: range, timestep: float, branches: range, step: Step, pause=pause) -> Tensor:
            time.sleep(pause)
            return sample.expand(len(branches), *sample.shape)

        taken: dict[Callable, list[float]] = {by_all_reduce: [], by_parts: []}
        for _ in range(ROUNDS):
            for way, times in taken.items():
                group.barrier()
                start = time.perf_counter()
                way(group, latents, step, predict)
                times.append(time.perf_counter() - start)
        parts = len(step.shares[group.rank])
        rows.append((f"{parts} parts of {1000 * pause:.0f} ms", *map(statistics.median, taken.values())))
    return Table("Adding up 156 MB, 2 processes, gloo", ("computing", "all-reduce, seconds", "by parts"), rows)


def main() -> None:
    group = ProcessGroup.start(torch.device("cpu"))
    table = measure(group)
    if group.rank == 0:
        print(f"## commit {revision()}\n\n{machine()}\n\n{table}")
    group.close()


if __name__ == "__main__":
    main()
