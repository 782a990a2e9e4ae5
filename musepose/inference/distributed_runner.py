"""The jobs of test_stage_2.py shared out to several processes: whole cases, or the frames of each case."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from musepose.inference.cases import Job, Plan
from musepose.inference.runner import run_plan, waiting_jobs
from musepose.utils import launch
from musepose.utils.errors import UserError


def run_shared(plan: Plan, load_pipeline: Callable[[Plan], Any]) -> int:
    """`run_plan` by all processes of a launcher. → exit status, the same in all of them: 1 where a job failed.

    Process 0's plan is everybody's, with its folder and what it finds finished there. With `--split cases` every case
    is one process's own. With `--split frames` all work on each case, process 0 writes it, and whatever goes wrong ends
    the run. Raises UserError: a device that cannot be everybody's.
    """
    import torch

    from musepose.utils.device import choose_device
    from musepose.utils.distributed import ProcessGroup

    device = choose_device(device_name(plan.settings.device))
    group = ProcessGroup.start(device)
    plan, waiting = group.broadcast((plan, waiting_jobs(plan)))
    plan = replace(plan, settings=replace(plan.settings, device=str(device)))
    split = plan.settings.split or ("cases" if len(waiting) >= group.count else "frames")
    if split == "cases":
        mine = share_out(waiting, group.count)[group.rank]
        status = run_plan(plan, load_pipeline, mine, others=[job for job in waiting if job not in mine])
    else:
        status = run_plan(plan, load_pipeline, waiting, group=group)
    failed = group.all_reduce(torch.tensor(status, device=device))
    group.close()  # not after an error: it would wait for peers that wait for this process
    return 1 if failed else 0


def device_name(asked: str | None) -> str | None:
    """This process's device, where all processes were given one name. Raises UserError: a name of a single device."""
    if asked is not None and ":" in asked:
        raise UserError(
            f"--device {asked} is one device for {launch.processes()} processes: "
            f"take --device {asked.split(':')[0]}, and choose by CUDA_VISIBLE_DEVICES"
        )
    if asked in (None, "cuda"):
        import torch

        if torch.cuda.is_available():
            return f"cuda:{launch.local_rank()}"
    return asked


def share_out(jobs: Sequence[Job], count: int) -> list[list[Job]]:
    """Jobs for each of `count` processes, about as many frames for each: the longest go first, to who has least."""
    shares: list[list[Job]] = [[] for _ in range(count)]
    for job in sorted(jobs, key=lambda job: -job.frames):
        min(shares, key=lambda share: sum(one.frames for one in share)).append(job)
    return [sorted(share, key=jobs.index) for share in shares]
