"""Latents cache on disk: every frame is encoded once. On small machines the VAE takes half of a training step."""

import hashlib
import json
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from musepose.media.video_reader import read_frames
from musepose.training.config import TrainConfig
from musepose.training.data.dataset import resize_lanczos, to_tensor
from musepose.training.data.manifest import Clip
from musepose.utils.errors import UserError
from musepose.utils.files import complete_file
from musepose.utils.progress import progress_bar

BATCH = 16  # frames encoded together
Encode = Callable[[list[np.ndarray]], tuple[Tensor, Tensor]]  # pictures → latents f c h w, tokens f 1 d


class FrameCache:
    """Frames of clips as tensors, from files in the folder `data.cache_latents`, one file for each clip and tensor."""

    def __init__(self, clips: Sequence[Clip], config: TrainConfig, identity: str):
        self.clips, self.config = clips, config
        self.folder = Path(config.data.cache_latents)
        self.identity = f"{identity} {config.data.train_width} {config.data.train_height}"

    def __call__(self, index: int, frames: Sequence[int]) -> dict[str, Tensor]:
        """→ latents f c h w, token f 1 d, poses f 3 H W uint8."""
        arrays = {name: np.load(self.path(index, name), mmap_mode="r") for name in ("latents", "token", "poses")}
        tensors = {name: torch.from_numpy(array[list(frames)]) for name, array in arrays.items()}
        return {name: t if name == "poses" else t.float() for name, t in tensors.items()}

    def path(self, index: int, name: str) -> Path:
        """The file of a clip's tensor. Its name is a hash of the content's sources: videos, encoders, size."""
        clip = self.clips[index]
        sources = [[str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns] for p in (clip.video, clip.poses)]
        digest = hashlib.sha256(json.dumps([sources, self.identity]).encode()).hexdigest()[:24]
        return self.folder / digest[:2] / f"{digest}-{name}.npy"

    def fill(self, accelerator: Accelerator, encode: Encode) -> None:
        """Encode all clips that have no files yet; the processes share the work.

        Raises UserError: a clip's number of frames is not that of the manifest, or a file cannot be written.
        """
        missing = [i for i in range(len(self.clips)) if not self.path(i, "poses").is_file()]
        accelerator.wait_for_everyone()  # every process must list the same files before the first one is written
        mine = missing[accelerator.process_index :: accelerator.num_processes]
        for index in progress_bar(mine, desc="encoding", unit="clip", shown=accelerator.is_main_process):
            clip = self.clips[index]
            latents, tokens = [], []
            pictures = read_frames(clip.video)
            while batch := list(islice(pictures, BATCH)):
                for part, encoded in zip((latents, tokens), encode(batch), strict=True):
                    part.append(encoded.cpu().half().numpy())
            size = self.config.data.train_width, self.config.data.train_height
            poses = to_tensor([resize_lanczos(pose, *size) for pose in read_frames(clip.poses)]).numpy()
            found = sum(len(part) for part in latents), len(poses)
            if found != (clip.frames, clip.frames):
                raise UserError(
                    f"{clip.video} and its pose video have {found[0]} and {found[1]} frames, the manifest says "
                    f"{clip.frames}: run prepare_dataset.py again"
                )
            parts = {
                "latents": np.concatenate(latents),
                "token": np.concatenate(tokens),
                "poses": poses,
            }  # poses last: `missing` looks for them
            for name, array in parts.items():
                with complete_file(self.path(index, name)) as partial, open(partial, "wb") as file:
                    np.save(file, array)
        accelerator.wait_for_everyone()
