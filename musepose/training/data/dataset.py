"""Training samples: a reference frame, target frames and their poses from one video, chosen by the sample's number."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.image_processor import VaeImageProcessor
from einops import rearrange
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from musepose.media.video_reader import read_frames_at
from musepose.training.config import Data
from musepose.training.data.manifest import Clip
from musepose.utils.errors import UserError

DOUBLED_ABOVE = 30  # frames a second: there the sample rate is doubled


@dataclass(frozen=True)
class Choice:
    """Which frames of a clip make a sample."""

    reference: int
    targets: tuple[int, ...]


class PairChooser:
    """Stage 1: a reference frame, and targets at least `margin` frames from it, where the clip is long enough."""

    def __init__(self, margin: int, targets: int):
        self.margin, self.targets = margin, targets

    def __call__(self, clip: Clip, rng: np.random.Generator) -> Choice:
        reference = int(rng.integers(clip.frames))
        distance = np.abs(np.arange(clip.frames) - reference)
        # A clip too short for the margin gives the farthest frames that it has.
        far = np.flatnonzero(distance >= min(self.margin, distance.max()))
        targets = rng.choice(far, self.targets, replace=len(far) < self.targets)
        return Choice(reference, tuple(int(t) for t in targets))


class ClipChooser:
    """Stage 2: any reference frame, and `frames` targets in a row, every `rate`-th one (twice that above 30 a second).

    Clips shorter than that are taken at the largest step that they allow.
    """

    def __init__(self, frames: int, rate: int):
        self.frames, self.rate = frames, rate

    def __call__(self, clip: Clip, rng: np.random.Generator) -> Choice:
        step = self.rate * (2 if clip.rate > DOUBLED_ABOVE else 1)
        if self.frames > 1:
            step = max(1, min(step, (clip.frames - 1) // (self.frames - 1)))
        start = int(rng.integers(clip.frames - (self.frames - 1) * step))
        return Choice(int(rng.integers(clip.frames)), tuple(start + step * i for i in range(self.frames)))


class Samples(Dataset):
    """An endless row of samples; sample number i is the same whenever and wherever it is asked for.

    Every clip comes once in each round. `source(clip number, frames)` gives the frames' tensors, see FrameReader.
    """

    def __init__(self, clips: Sequence[Clip], choose: PairChooser | ClipChooser, source: Any, seed: int):
        self.clips, self.choose, self.source, self.seed = clips, choose, source, seed

    def __getitem__(self, number: int) -> dict[str, Any]:
        """→ reference and targets as `source` gives them, `seed` for the sample's noise."""
        turn, place = divmod(number, len(self.clips))
        index = int(np.random.default_rng([self.seed, turn]).permutation(len(self.clips))[place])
        choice = self.choose(self.clips[index], np.random.default_rng([self.seed, 1, number]))
        frames = self.source(index, [choice.reference, *choice.targets])
        return {
            "reference": {name: tensor[0] for name, tensor in frames.items() if name != "poses"},
            "targets": {name: tensor[1:] for name, tensor in frames.items() if name not in ("token", "clip_pixels")},
            "seed": int(np.random.default_rng([self.seed, 2, number]).integers(2**62)),
        }


class StepSampler(Sampler):
    """The numbers of the samples of one process, from step `start` on, with `batch` samples a process and step."""

    def __init__(self, start: int, steps: int, batch: int, rank: int, ranks: int):
        self.start, self.steps, self.batch, self.rank, self.ranks = start, steps, batch, rank, ranks

    def __len__(self) -> int:
        return (self.steps - self.start) * self.batch

    def __iter__(self) -> Iterator[int]:
        for step in range(self.start, self.steps):
            first = (step * self.ranks + self.rank) * self.batch
            yield from range(first, first + self.batch)


class FrameReader:
    """Frames of clips as tensors, read from the videos when asked for."""

    def __init__(self, clips: Sequence[Clip], data: Data):
        self.clips, self.width, self.height = clips, data.train_width, data.train_height

    def __call__(self, index: int, frames: Sequence[int]) -> dict[str, Tensor]:
        """→ pixels f 3 H W in [-1, 1], clip_pixels f 3 224 224 as CLIP wants them, poses f 3 H W uint8."""
        from musepose.pipelines.images import clip_pixels

        clip = self.clips[index]
        pictures = read_some(clip.video, frames)
        return {
            "pixels": to_tensor([fit(p, self.width, self.height) for p in pictures]) / 127.5 - 1,
            "clip_pixels": clip_pixels([Image.fromarray(p) for p in pictures[:1]]),
            "poses": to_tensor([fit(p, self.width, self.height) for p in read_some(clip.poses, frames)]),
        }


def fit(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resized as the sampling resizes its inputs: Lanczos on bytes."""
    return np.asarray(VaeImageProcessor().resize(Image.fromarray(picture), height, width))


def to_tensor(pictures: Sequence[np.ndarray]) -> Tensor:
    """f pictures (h, w, 3) uint8 → f 3 h w uint8."""
    return rearrange(torch.from_numpy(np.stack(pictures)), "f h w c -> f c h w")


def read_some(path: Path, frames: Sequence[int]) -> list[np.ndarray]:
    """The frames of a video with these numbers, in this order. Raises UserError: the video has fewer."""
    found = read_frames_at(path, frames)
    if len(found) < len(set(frames)):
        raise UserError(f"{path} has no frame {max(frames)}: run prepare_dataset.py again")
    return [found[frame] for frame in frames]
