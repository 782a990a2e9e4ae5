"""Training data set. A sample is a reference frame, target frames and their poses from one clip."""

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

HIGH_FRAME_RATE = 30  # frames a second; above it the sample rate is doubled


@dataclass(frozen=True)
class Choice:
    """The frames of a clip that form a sample."""

    reference: int
    targets: tuple[int, ...]


class PairChooser:
    """Stage 1: a random reference frame, and targets at least `margin` frames away if the clip is long enough."""

    def __init__(self, margin: int, targets: int):
        self.margin, self.targets = margin, targets

    def __call__(self, clip: Clip, rng: np.random.Generator) -> Choice:
        reference = int(rng.integers(clip.frames))
        distance = np.abs(np.arange(clip.frames) - reference)
        # If the clip is too short for the margin: the farthest frames.
        far = np.flatnonzero(distance >= min(self.margin, distance.max()))
        targets = rng.choice(far, self.targets, replace=len(far) < self.targets)
        return Choice(reference, tuple(int(t) for t in targets))


class ClipChooser:
    """Stage 2: a random reference frame, and `frames` targets at a stride of `rate`, doubled above 30 frames a second.

    If the clip is too short for that, the stride is the largest that fits.
    """

    def __init__(self, frames: int, rate: int):
        self.frames, self.rate = frames, rate

    def __call__(self, clip: Clip, rng: np.random.Generator) -> Choice:
        step = self.rate * (2 if clip.rate > HIGH_FRAME_RATE else 1)
        if self.frames > 1:
            step = max(1, min(step, (clip.frames - 1) // (self.frames - 1)))
        start = int(rng.integers(clip.frames - (self.frames - 1) * step))
        return Choice(int(rng.integers(clip.frames)), tuple(start + step * i for i in range(self.frames)))


class ClipDataset(Dataset):
    """An endless map-style data set; sample i depends only on i and the seed, not on process or restart.

    Every clip occurs once in each epoch. `source(clip index, frames)` returns the frames' tensors, see FrameReader.
    """

    def __init__(self, clips: Sequence[Clip], choose: PairChooser | ClipChooser, source: Any, seed: int):
        self.clips, self.choose, self.source, self.seed = clips, choose, source, seed

    def __getitem__(self, number: int) -> dict[str, Any]:
        """→ reference and targets as from `source`, `seed` for the sample's noise."""
        epoch, position = divmod(number, len(self.clips))
        index = int(np.random.default_rng([self.seed, epoch]).permutation(len(self.clips))[position])
        choice = self.choose(self.clips[index], np.random.default_rng([self.seed, 1, number]))
        frames = self.source(index, [choice.reference, *choice.targets])
        return {
            "reference": {name: tensor[0] for name, tensor in frames.items() if name != "poses"},
            "targets": {name: tensor[1:] for name, tensor in frames.items() if name not in ("token", "clip_pixels")},
            "seed": int(np.random.default_rng([self.seed, 2, number]).integers(2**62)),
        }


class StepSampler(Sampler):
    """Sample indices of process `rank` for the steps `start` to `steps`, `batch` samples for each process and step."""

    def __init__(self, start: int, steps: int, batch: int, rank: int, ranks: int):
        self.start, self.steps, self.batch, self.rank, self.ranks = start, steps, batch, rank, ranks

    def __len__(self) -> int:
        return (self.steps - self.start) * self.batch

    def __iter__(self) -> Iterator[int]:
        for step in range(self.start, self.steps):
            first = (step * self.ranks + self.rank) * self.batch
            yield from range(first, first + self.batch)


class FrameReader:
    """Frames of clips as tensors, read from the videos on demand."""

    def __init__(self, clips: Sequence[Clip], data: Data):
        self.clips, self.width, self.height = clips, data.train_width, data.train_height

    def __call__(self, index: int, frames: Sequence[int]) -> dict[str, Tensor]:
        """→ pixels f 3 H W in [-1, 1], CLIP's input clip_pixels 1 3 224 224 (first frame), poses f 3 H W uint8."""
        from musepose.pipelines.images import clip_pixels

        clip = self.clips[index]
        pictures = read_frames_in_order(clip.video, frames)
        return {
            "pixels": to_tensor([resize_lanczos(p, self.width, self.height) for p in pictures]) / 127.5 - 1,
            "clip_pixels": clip_pixels([Image.fromarray(p) for p in pictures[:1]]),
            "poses": to_tensor(
                [resize_lanczos(p, self.width, self.height) for p in read_frames_in_order(clip.poses, frames)]
            ),
        }


def resize_lanczos(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resize a picture (h, w, 3) uint8 as inference resizes its inputs: Lanczos on bytes."""
    return np.asarray(VaeImageProcessor().resize(Image.fromarray(picture), height, width))


def to_tensor(pictures: Sequence[np.ndarray]) -> Tensor:
    """f pictures (h, w, 3) uint8 → f 3 h w uint8."""
    return rearrange(torch.from_numpy(np.stack(pictures)), "f h w c -> f c h w")


def read_frames_in_order(path: Path, frames: Sequence[int]) -> list[np.ndarray]:
    """The frames of a video with indices `frames`, in that order. Raises UserError: the video is too short."""
    found = read_frames_at(path, frames)
    if len(found) < len(set(frames)):
        raise UserError(f"{path} has no frame {max(frames)}: run prepare_dataset.py again")
    return [found[frame] for frame in frames]
