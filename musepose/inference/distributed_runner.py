"""Runs test_stage_2.py in several processes: each renders its own cases, or all share the frames of each case."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from musepose.inference.cases import Job, Plan
from musepose.inference.runner import pending_jobs, run_plan
from musepose.media.damage import Seen, UsedVideo, divide, fit, judge, look
from musepose.utils import launch
from musepose.utils.errors import UserError


def run_distributed(plan: Plan, load_pipeline: Callable[[Plan], Any]) -> int:
    """`run_plan` in all processes of a launcher. → the exit status, the same in all processes: 1 if a job failed.

    All processes use the plan of rank 0, with its output folder and its list of finished jobs. `--split cases`: each
    process renders whole cases. `--split frames`: all processes work on each case, rank 0 writes it, and any error ends
    the run. Raises UserError: `--device` names a single device; a pose video is damaged.
    """
    import torch

    from musepose.utils.device import choose_device
    from musepose.utils.distributed import ProcessGroup

    device = choose_device(device_name(plan.settings.device))
    group = ProcessGroup.start(device)
    plan = find_damage(group.broadcast(plan), group)
    pending = group.broadcast(pending_jobs(plan))
    plan = replace(plan, settings=replace(plan.settings, device=str(device)))
    split = plan.settings.split or ("cases" if len(pending) >= group.count else "frames")
    if split == "cases":
        mine = balance_jobs(pending, group.count)[group.rank]
        status = run_plan(plan, load_pipeline, mine, others=[job for job in pending if job not in mine])
    else:
        status = run_plan(plan, load_pipeline, pending, group=group)
    failed = group.all_reduce(torch.tensor(status, device=device))
    group.close()  # not after an error, when the peers wait for this process
    return 1 if failed else 0


def find_damage(plan: Plan, group: Any) -> Plan:
    """The plan with the damaged frames of all pose videos, as `make_plan` finds them; each process decodes its share.

    Where what two processes have seen does not fit, a single one decodes that video. Raises SharedError.
    """
    poses = list(dict.fromkeys(job.pose for job in plan.jobs))
    videos = group.together(lambda: [UsedVideo.of(pose, plan.settings.length) for pose in poses])

    def look_at(share: Iterable[tuple[int, range]]) -> dict[int, list[Seen]]:
        """→ what each video's stretches have shown, in order."""
        own = group.together(lambda: [(place, look(videos[place], part)) for place, part in share])
        seen: dict[int, list[Seen]] = {}
        for place, one in chain.from_iterable(group.gather(own)):
            seen.setdefault(place, []).append(one)
        return seen

    seen = look_at(divide(videos, group.count)[group.rank])
    doubtful = [place for place, stretches in seen.items() if not fit(stretches)]
    seen |= look_at((place, range(videos[place].pictures)) for place in doubtful[group.rank :: group.count])
    frames = group.together(lambda: [tuple(judge(video, seen[place])) for place, video in enumerate(videos)])
    damaged = dict(zip(poses, frames, strict=True))
    return replace(plan, jobs=tuple(replace(job, damaged=damaged[job.pose]) for job in plan.jobs))


def device_name(asked: str | None) -> str | None:
    """This process's device, by the --device of all processes. Raises UserError: it names a single device."""
    if asked is not None and ":" in asked:
        raise UserError(
            f"--device {asked} is one device for {launch.world_size()} processes: "
            f"take --device {asked.split(':')[0]}, and choose by CUDA_VISIBLE_DEVICES"
        )
    if asked in (None, "cuda"):
        import torch

        if torch.cuda.is_available():
            return f"cuda:{launch.local_rank()}"
    return asked


def balance_jobs(jobs: Sequence[Job], count: int) -> list[list[Job]]:
    """Distribute jobs over `count` processes by number of frames: longest first, each to the least loaded process."""
    shares: list[list[Job]] = [[] for _ in range(count)]
    for job in sorted(jobs, key=lambda job: -job.frames):
        min(shares, key=lambda share: sum(one.frames for one in share)).append(job)
    return [sorted(share, key=jobs.index) for share in shares]
