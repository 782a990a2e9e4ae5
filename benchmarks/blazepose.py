"""BlazePose against keypoints that MediaPipe Holistic found in the same videos, and its frames a second.

python -m benchmarks.blazepose VIDEOS KEYPOINTS [--weights pretrained_weights/blazepose]

VIDEOS and KEYPOINTS are folders; NAME.npz beside NAME.mp4 holds points (n, 133, 2) as fractions of the frame, scores
(n, 133), size (width, height). Distances count in torso lengths (middle of the shoulders to middle of the hips), in
sides of the hand's and of the face's rectangle, each in its own frame of MediaPipe's.
"""

import argparse
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.measure import ROOT, Table, machine, revision
from musepose.cli.entry import run_script
from musepose.media.video_reader import read_frames
from musepose.pose.detectors.blazepose.detector import BlazePoseDetector
from musepose.pose.person_tracking import follow
from musepose.pose.types import VISIBLE_SCORE
from musepose.utils.errors import UserError

WEIGHTS, DANCE = ROOT / "pretrained_weights/blazepose", ROOT / "assets/videos/dance.mp4"
CORES = 2
SHOULDERS, HIPS = [5, 6], [11, 12]
PARTS = {"body": (slice(0, 17),), "hands": (slice(91, 112), slice(112, 133)), "face": (slice(23, 91),)}


@dataclass(frozen=True)
class Found:
    """One person in a video's n frames; rows of zeros where he was not found."""

    points: np.ndarray  # (n, 133, 2) pixels
    scores: np.ndarray  # (n, 133)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.blazepose",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("videos", type=Path)
    parser.add_argument("keypoints", type=Path)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    asked = parser.parse_args(arguments)
    pairs = [(file, asked.videos / f"{file.stem}.mp4") for file in sorted(asked.keypoints.glob("*.npz"))]
    pairs = [(file, video) for file, video in pairs if video.is_file()]
    if not pairs:
        raise UserError(f"no NAME.npz of {asked.keypoints} has a NAME.mp4 in {asked.videos}: name the two folders")
    detector = BlazePoseDetector(asked.weights)
    print(
        f"commit {revision()}, {machine()}\n\n{accuracy(detector, pairs)}\n\n{speed(detector, [v for _, v in pairs])}"
    )
    return 0


def accuracy(detector: BlazePoseDetector, pairs: list[tuple[Path, Path]]) -> Table:
    """How far the points lie from MediaPipe's, in each video and over all frames of all."""
    rows, pooled = [], {part: [] for part in PARTS}
    frames = np.zeros((len(PARTS), 2), int)
    for file, video in pairs:
        with np.load(file) as z:
            true = Found(z["points"] * z["size"].astype(float), z["scores"].astype(float))
        ours, cells = find_person(detector, video, len(true.points)), []
        for n, part in enumerate(PARTS):
            errors, counts = compare(ours, true, part)
            pooled[part].append(errors)
            frames[n] += counts
            cells += cells_of(errors, counts)
        rows.append((video.stem, len(true.points), *cells))
    totals = [cell for n, part in enumerate(PARTS) for cell in cells_of(np.concatenate(pooled[part]), frames[n])]
    rows.append(("all", sum(row[1] for row in rows), *totals))
    columns = [cell for part in PARTS for cell in (f"{part}: median %", "90 %", "frames")]
    return Table(
        "BlazePose against MediaPipe Holistic",
        ("video", "frames", *columns),
        rows,
        ["`frames`: those in which both found it, and those in which MediaPipe did. Body points: those that it saw."],
    )


def find_person(detector: BlazePoseDetector, video: Path, count: int) -> Found:
    """The person that pose_align.py would follow."""
    points, scores = np.zeros((count, 133, 2)), np.zeros((count, 133))
    for frame, (people, person) in enumerate(follow(detector.find(read_frames(video, count=count)))):
        if person is not None:
            points[frame], scores[frame] = people.keypoints[person] * people.size, people.scores[person]
    return Found(points, scores)


def compare(ours: Found, true: Found, part: str) -> tuple[np.ndarray, tuple[int, int]]:
    """The distances of all points of a part in its sizes; frames where both found it, and where the true one is."""
    errors, both, wanted = [], 0, 0
    for points in PARTS[part]:
        there = true.scores[:, points].max(axis=1) > VISIBLE_SCORE
        compared = there & (ours.scores[:, points].max(axis=1) > VISIBLE_SCORE)
        distances = np.linalg.norm(ours.points[:, points] - true.points[:, points], axis=-1) / size_of(
            true, points, part
        )
        errors.append(distances[compared[:, None] & (true.scores[:, points] > VISIBLE_SCORE)])
        both, wanted = both + int(compared.sum()), wanted + int(there.sum())
    return np.concatenate(errors), (both, wanted)


def size_of(true: Found, points: slice, part: str) -> np.ndarray:
    """(n, 1) what a part's distances count in; 1 where there is nothing to measure."""
    if part == "body":
        ends = true.points[:, SHOULDERS].mean(axis=1) - true.points[:, HIPS].mean(axis=1)
        sizes = np.linalg.norm(ends, axis=-1)
    else:
        sizes = np.ptp(true.points[:, points], axis=1).max(axis=-1)
    return np.where(sizes > 0, sizes, 1)[:, None]


def cells_of(errors: np.ndarray, frames: Sequence[int]) -> tuple[object, ...]:
    if not len(errors):
        return "–", "–", f"0 of {frames[1]}"
    return 100 * float(np.median(errors)), 100 * float(np.percentile(errors, 90)), f"{frames[0]} of {frames[1]}"


def speed(detector: BlazePoseDetector, videos: list[Path]) -> Table:
    """Frames a second of decoding and detection with hands and face, on two cores."""
    rows = []
    with few_cores():
        for video in videos:
            read = timed(lambda v=video: sum(1 for _ in read_frames(v)))
            found = timed(lambda v=video: sum(1 for _ in detector.find(read_frames(v))))
            rows.append((video.stem, found[0], found[0] / found[1], 1000 * found[2] / found[0], read[0] / read[1]))
    frames, seconds = sum(row[1] for row in rows), sum(row[1] / row[2] for row in rows)
    rows.append(("all", frames, frames / seconds, sum(row[1] * row[3] for row in rows) / frames, "–"))
    load = f", load {os.getloadavg()[0]:.1f} when it ended" if hasattr(os, "getloadavg") else ""
    return Table(
        f"BlazePose's speed on {CORES} cores",
        ("video", "frames", "frames a second", "processor ms a frame", "decoding alone, frames a second"),
        rows,
        [f"Decoding, detection, hands and face together{load}."],
    )


@contextmanager
def few_cores() -> Iterator[None]:
    """Bind this process to two cores, where the system can do that."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    usable = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(usable)[:CORES])
    try:
        yield
    finally:
        os.sched_setaffinity(0, usable)


def timed(way: Callable[[], int]) -> tuple[int, float, float]:
    """What it counts; seconds on the clock and of all processors."""
    clock, processor = time.perf_counter(), time.process_time()
    count = way()
    return count, time.perf_counter() - clock, time.process_time() - processor


def blazepose() -> Table:
    """Frames a second of BlazePose on the example dance: decoding and detection with hands and face, on two cores."""
    return speed(BlazePoseDetector(WEIGHTS), [DANCE])


if __name__ == "__main__":
    run_script(main)
