"""The work of each denoising step, planned before the first: windows, CFG branches, what is computed anew. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from musepose.pipelines.context_windows import context_windows, padded_length
from musepose.pipelines.options import SamplingOptions

Part = tuple[range, range]  # frames of a window, and the CFG branches that predict them
Guidance = Literal["none", "compute", "reuse"]


@dataclass(frozen=True)
class Step:
    """What one denoising step computes."""

    number: int  # from 0 on
    windows: tuple[range, ...]  # all of the video
    shares: tuple[tuple[Part, ...], ...]  # by process: the parts that it predicts
    branches: range  # the CFG branches of this step, the unconditional one being 0 if there are two
    guidance: Guidance  # "reuse": with the branches' difference of an earlier step
    refresh: tuple[bool, ...] = (True, True)  # by branch: whether the UNet's deeper layers run
    forget: bool = True  # what deeper layers gave in earlier steps is not needed any more


def share_step(windows: Sequence[range], branches: int, count: int = 1) -> tuple[tuple[Part, ...], ...]:
    """The shares of `count` processes: contiguous ranges of all (window, branch) pairs, ordered by window.

    Shares differ by at most one pair. Both branches of a window form one part if they fall into one share.
    """
    pairs = [(window, branch) for window in windows for branch in range(branches)]
    shares = []
    for rank in range(count):
        parts: list[Part] = []
        for window, branch in pairs[len(pairs) * rank // count : len(pairs) * (rank + 1) // count]:
            if parts and parts[-1][0] == window:
                parts[-1] = (window, range(parts[-1][1].start, branch + 1))
            else:
                parts.append((window, range(branch, branch + 1)))
        shares.append(tuple(parts))
    return tuple(shares)


def frames_of(parts: Sequence[Part]) -> set[int]:
    """The frames in these parts."""
    return {frame for window, _ in parts for frame in window}


def plan_steps(options: SamplingOptions, frames: int, count: int = 1) -> list[Step]:
    """The steps for a video of `frames`, without padding, shared by `count` processes.

    Step 0 sees pure noise: nothing that it computes is reused in step 1. The last step reuses what it can. A (window,
    branch) pair belongs to the same process in all steps between two refreshes, so that each process has the features
    that it needs.
    """
    sizes = options.context_frames, options.context_overlap
    length = padded_length(frames, *sizes) if options.tail == "pad" else frames
    steps: list[Step] = []
    last_guided: int | None = None  # the last step that computed both branches
    fresh: set[int] = set()  # branches whose deeper layers have run since the last refresh
    for number in range(options.num_inference_steps):
        guidance: Guidance = "none"
        if options.guided and options.in_guidance_interval(number):
            due = last_guided in (None, 0) or number - last_guided >= options.guidance_every
            guidance = "compute" if due else "reuse"
            last_guided = number if due else last_guided
        every = 1 + options.guided
        branches = range(0 if guidance == "compute" else every - 1, every)
        refresh = number == 0 or (number - 1) % options.cache_interval == 0
        refresh &= options.cache_interval == 1 or number < max(2, options.num_inference_steps - 1)
        if refresh:
            shift = -(-number // options.cache_interval) * options.shift
            windows = tuple(context_windows(length, *sizes, shift))
            shares = share_step(windows, every, count)
            fresh.clear()
        steps.append(
            Step(
                number,
                windows,
                tuple(
                    tuple((window, part) for window, own in parts if (part := _common(own, branches)))
                    for parts in shares
                ),
                branches,
                guidance,
                tuple(branch not in fresh for branch in range(every)),
                forget=refresh,
            )
        )
        fresh.update(branches)
    return steps


def _common(a: range, b: range) -> range:
    return range(max(a.start, b.start), min(a.stop, b.stop))
