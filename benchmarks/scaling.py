"""Seconds of one long video on several GPUs: calculated from counted work and assumed rates, nothing is measured here.

The work is divided by the functions that divide it in a run.
"""

from types import SimpleNamespace

from benchmarks.measure import Table
from musepose.inference.job_parts import missing_stretches
from musepose.media.damage import divide
from musepose.pipelines.options import SamplingOptions
from musepose.pipelines.steps import Step, frames_of, plan_steps

FRAMES, SIDE, KEYS = 9000, 512, 250  # ten minutes at 15 a second; pictures from one key picture to the next
NUMBERS = 4 * (SIDE // 8) ** 2  # latents of a frame
OPTIONS = SamplingOptions(width=SIDE, height=SIDE)
BRANCHES = (51.9, 57.7)  # TFLOP of a window, unconditional and conditional: benchmarks.step_costs counts them
DECODING = 2.5  # TFLOP of a frame
RATE = 790 / 2  # TFLOP/s: half of what an H200's matrix units do
LINK = 50e9  # bytes a second between any two GPUs
MEMORY = 4.8e12 * 0.8  # bytes a second of a GPU's memory
HALF = 2  # bytes of a number in float16
READING = 227  # pictures of the pose video a second, one core
ENCODING = 1 / (1 / 71 + 1 / 34) * 8  # frames of result and comparison a second, 8 of a process's 16 cores
DRAWING = 240e6  # numbers of the noise a second, one core
PACKET = 30e-6  # seconds to copy a packet of a video
# Passes over memory in a step, in tensors of all frames and one branch: sum set to zero, gathered predictions added and
# averaged; guidance; ddim; the check that all is finite.
SUM_PASSES, OTHER_PASSES = 2 * (1 + 3.3 + 2), 8 + 24 + 2


def checking(count: int) -> float:
    """Looking for damage, each process in its stretch."""
    video = SimpleNamespace(pictures=FRAMES, cuts=list(range(0, FRAMES, KEYS)))
    return max(sum(len(part) for _, part in share) for share in divide([video], count)) / READING


def reading(plan: Step, count: int) -> float:
    """Reading the poses of a process's windows, from the key picture before them."""
    spans = []
    for rank in range(count):
        wanted = [frame for frame in frames_of(plan.shares[rank]) if frame < FRAMES]
        spans.append(max(wanted) + 1 - min(wanted) // KEYS * KEYS)
    return max(spans) / READING


def denoising(plan: Step, count: int) -> float:
    """A step: the predictions of one round travel while those of the next are computed, see denoising.Denoiser."""
    finished, gathered = [0.0] * count, [0.0]  # seconds: of each process; of each round
    rounds = max(map(len, plan.shares))
    for place in range(rounds):
        rows = 0
        for rank, share in enumerate(plan.shares):
            if place < len(share):
                window, branches = share[place]
                rows = max(rows, len(window) * len(branches))
                begin = max(finished[rank], gathered[max(0, place - 1)])
                finished[rank] = begin + sum(BRANCHES[branch] for branch in branches) / RATE
        travelling = (count - 1) * rows * NUMBERS * HALF / LINK
        gathered.append(max(*finished, gathered[-1]) + travelling)
    return gathered[-1]


def making(count: int) -> float:
    """Decoding the frames, reading their poses, encoding: side by side, each process for its stretch."""
    stretches = [(own[0].start, own[-1].stop) for own in missing_stretches(FRAMES, [], count)]
    longest = max(stop - start for start, stop in stretches)
    poses = max(stop - start // KEYS * KEYS for start, stop in stretches)
    return max(longest * DECODING / RATE, poses / READING, longest / ENCODING)


def parts(count: int) -> dict[str, float]:
    """Seconds of each part on `count` GPUs."""
    steps = plan_steps(OPTIONS, FRAMES, count)
    plane = FRAMES * NUMBERS * HALF
    return {
        "looking for damage": checking(count),
        "reading the windows' poses": reading(steps[0], count),
        "drawing the noise": FRAMES * NUMBERS / DRAWING,
        "denoising": len(steps) * denoising(steps[0], count),
        "averaging, guidance, scheduler": len(steps) * (SUM_PASSES + OTHER_PASSES) * plane / MEMORY,
        "decoding, comparison, encoding": making(count),
        "saving latents, joining": 0.0 if count == 1 else plane / 1e9 + 2 * FRAMES * PACKET,
    }


def efficiency(count: int) -> float:
    """Of `count` GPUs: one GPU's seconds over theirs, added up."""
    return sum(parts(1).values()) / sum(parts(count).values()) / count


def scaling() -> Table:
    """Ten minutes of video, 512 x 512, on 1 to 64 GPUs, calculated: where the seconds are, and the efficiency."""
    counts = (1, 8, 64)
    columns = [parts(count) for count in counts]
    rows = [(name, *(column[name] for column in columns)) for name in columns[0]]
    rows.append(("in all", *(sum(column.values()) for column in columns)))
    rows.append(("efficiency", *(f"{100 * efficiency(count):.0f} %" for count in counts)))
    title = f"Calculated: {FRAMES:,} frames, {SIDE} x {SIDE}, 20 steps, guided"
    return Table(title, ("seconds", *(f"{count} GPU{'s' * (count > 1)}" for count in counts)), rows)
