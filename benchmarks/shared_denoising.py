"""Denoising steps by one process and by two that share a video, in turns; and by two at once that share nothing.

OMP_NUM_THREADS=1 python -m torch.distributed.run --standalone --nproc-per-node 2 -m benchmarks.shared_denoising

Both cores must be idle. `--tiny` tests the command itself.
"""

import argparse
import statistics
import time

import torch

from benchmarks.measure import Table, machine, revision
from benchmarks.sampling import SIZE, WINDOW, poses, puppets, reference
from musepose.utils.distributed import ProcessGroup

FULL = {"frames": 100, "steps": 4, "rounds": 3}  # 8 windows of 16: both processes have as many of each branch
TINY = {"frames": 28, "steps": 2, "rounds": 1}


def seconds_a_step(group: ProcessGroup, frames: int, steps: int) -> float:
    """Of all steps but the first, which also computes what the others reuse."""
    pipeline, ends = puppets(), []
    pipeline.group = group
    changes = {**SIZE, **WINDOW, "num_inference_steps": steps, "num_frames": frames}
    pipeline.sample_latents(reference(), poses(frames), progress=lambda *_: ends.append(time.perf_counter()), **changes)
    return (ends[-1] - ends[0]) / (steps - 1)


def measure(group: ProcessGroup, frames: int, steps: int, rounds: int) -> Table:
    """The table, in process 0; the other one sleeps while it works alone."""
    alone = ProcessGroup()
    taken: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, own, works in (
            ("1 process", alone, group.rank == 0),
            (f"{group.count} processes that share the video", group, True),
            (f"{group.count} processes, a video each", alone, True),
        ):
            seconds = seconds_a_step(own, frames, steps) if works else 0.0
            taken.setdefault(name, []).append(max(group.gather(seconds)))
    one, shared, apart = (statistics.median(times) for times in taken.values())
    speed = (1.0, one / shared, group.count * one / apart)
    rows = list(zip(taken, (one, shared, apart), speed, strict=True))
    title = f"Denoising: {frames} frames, guided, puppets, 192 x 192; threads: 1 a process"
    remark = "The last row is what the machine gives two processes at best: they share its memory and its clock."
    return Table(title, ("variant", "seconds a step", "steps of a video a second, 1 process = 1"), rows, (remark,))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="a few frames, one round")
    sizes = TINY if parser.parse_args().tiny else FULL
    group = ProcessGroup.start(torch.device("cpu"))
    table = measure(group, **sizes)
    if group.rank == 0:
        print(f"## commit {revision()}\n\n{machine()}\n\n{table}")
    group.close()


if __name__ == "__main__":
    main()
