"""Reading the frames of training samples from a long video."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np

from benchmarks.measure import ROOT, Table
from musepose.media.video_reader import probe, read_frames, read_frames_at
from musepose.training.data.dataset import ClipChooser, PairChooser
from musepose.training.data.manifest import Clip

FRAMES, SAMPLES = 3000, 3
CHOOSERS = {"stage 1, a pair": PairChooser(30, 1), "stage 2, 48 frames": ClipChooser(48, 1)}


def training_samples() -> Table:
    """A sample's frames from a video of 3,000 frames, 576 x 576: decoded from the start, and by seeking."""
    with tempfile.TemporaryDirectory() as folder:
        path = repeat_video(ROOT / "assets" / "videos" / "dance.mp4", Path(folder) / "long.mp4", FRAMES)
        info = probe(path)
        clip = Clip(path, path, None, info.frames, info.rate, info.width, info.height)
        rows = []
        for name, choose in CHOOSERS.items():
            rng = np.random.default_rng(0)
            choices = [choose(clip, rng) for _ in range(SAMPLES)]
            samples = [(choice.reference, *choice.targets) for choice in choices]
            whole, seeking = (processor_seconds(path, samples, read) / SAMPLES for read in (read_all, read_frames_at))
            rows += [(f"{name}, from the start", whole, 1.0), (f"{name}, by seeking", seeking, whole / seeking)]
    title = f"The frames of a training sample, from a video of {info.frames:,} frames, {info.width} x {info.height}"
    return Table(title, ("variant", "processor seconds per sample", "from the start / this"), rows)


def processor_seconds(
    path: Path, samples: list[tuple[int, ...]], read: Callable[[Path, tuple[int, ...]], Any]
) -> float:
    """CPU time of all threads together, which depends little on the machine's load."""
    start = time.process_time()
    for numbers in samples:
        read(path, numbers)
    return time.process_time() - start


def read_all(path: Path, numbers: tuple[int, ...]) -> dict[int, np.ndarray]:
    """The frames `numbers`, by decoding all frames up to the last of them."""
    every = enumerate(read_frames(path, count=max(numbers) + 1))
    return {number: frame for number, frame in every if number in numbers}


def repeat_video(source: Path, target: Path, frames: int) -> Path:
    """Repeat a video's packets, without encoding again, until there are `frames` frames."""
    with av.open(str(source)) as container, av.open(str(target), "w") as output:
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.size]
        copy = output.add_stream_from_template(stream)
        stamps = [(packet.pts, packet.dts) for packet in packets]
        shown = sorted(pts for pts, _ in stamps)
        length = (shown[-1] - shown[0]) * len(shown) // (len(shown) - 1)
        for number in range(frames):
            turn, place = divmod(number, len(packets))
            packet = packets[place]
            packet.stream = copy
            packet.pts, packet.dts = (stamp + turn * length for stamp in stamps[place])
            output.mux(packet)
            packet.pts, packet.dts = stamps[place]
    return target
