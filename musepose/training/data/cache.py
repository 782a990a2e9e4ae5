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

from musepose.media.video_reader import probe, read_frames
from musepose.training.config import TrainConfig
from musepose.training.data.dataset import resize_lanczos, to_tensor
from musepose.training.data.manifest import Clip
from musepose.utils.errors import UserError
from musepose.utils.files import complete_file
from musepose.utils.progress import progress_bar
from musepose.utils.saving import open_to_save

BATCH = 16  # frames encoded together
NAMES = ("latents", "token", "poses")
ANEW = "start again, which encodes the clip anew"
Encode = Callable[[list[np.ndarray]], tuple[Tensor, Tensor]]  # pictures → latents f c h w, tokens f 1 d


class FrameCache:
    """Frames of clips as tensors, from files in the folder `data.cache_latents`, one file for each clip and tensor."""

    def __init__(self, clips: Sequence[Clip], config: TrainConfig, identity: str):
        self.clips, self.config = clips, config
        self.folder = Path(config.data.cache_latents)
        self.identity = f"{identity} {config.data.train_width} {config.data.train_height}"

    def __call__(self, index: int, frames: Sequence[int]) -> dict[str, Tensor]:
        """→ latents f c h w, token f 1 d, poses f 3 H W uint8. Raises UserError: a file was spoilt meanwhile."""
        tensors = {}
        for name in NAMES:
            path = self.path(index, name)
            try:
                tensor = torch.from_numpy(np.load(path, mmap_mode="r")[list(frames)])
            except (OSError, ValueError, IndexError) as error:
                raise UserError(f"{path} was changed during the training ({error}): {ANEW}") from error
            tensors[name] = tensor if name == "poses" else tensor.float()
            if not tensors[name].isfinite().all():
                raise UserError(f"{path} is spoilt, as it holds numbers that are not finite: delete it, and {ANEW}")
        return tensors

    def path(self, index: int, name: str) -> Path:
        """The file of a clip's tensor. Its name is a hash of the content's sources: videos, encoders, size."""
        clip = self.clips[index]
        sources = [[str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns] for p in (clip.video, clip.poses)]
        resampling = [] if clip.resampling is None else [clip.resampling]  # without it, files of before are found
        digest = hashlib.sha256(json.dumps([sources, self.identity, *resampling]).encode()).hexdigest()[:24]
        return self.folder / digest[:2] / f"{digest}-{name}.npy"

    def fill(self, accelerator: Accelerator, encode: Encode) -> None:
        """Encode all clips that have no whole files yet; the processes share the work.

        Raises UserError: a clip's number of frames is not that of the manifest, the encoder's output is not finite, or
        a file cannot be written.
        """
        missing = [index for index in range(len(self.clips)) if not self._is_whole(index)]
        accelerator.wait_for_everyone()  # every process must list the same files before the first one is written
        mine = missing[accelerator.process_index :: accelerator.num_processes]
        for index in progress_bar(mine, desc="encoding", unit="clip", shown=accelerator.is_main_process):
            clip = self.clips[index]
            _check_frames(clip, probe(clip.video).frames, probe(clip.poses).frames)
            latents, tokens = [], []
            pictures = read_frames(clip.video)
            while batch := list(islice(pictures, BATCH)):
                for part, encoded in zip((latents, tokens), encode(batch), strict=True):
                    part.append(encoded.cpu().half().numpy())
                    if not np.isfinite(part[-1]).all():
                        raise UserError(
                            f"the encoders' output for {clip.video} is not finite: give weight_dtype bf16 or fp32, or "
                            "check the weights with download_weights.py --check"
                        )
            size = self.config.data.train_width, self.config.data.train_height
            poses = to_tensor([resize_lanczos(pose, *size) for pose in read_frames(clip.poses)]).numpy()
            _check_frames(clip, sum(len(part) for part in latents), len(poses))
            parts = {
                "latents": np.concatenate(latents),
                "token": np.concatenate(tokens),
                "poses": poses,
            }
            for name, array in parts.items():
                with complete_file(self.path(index, name)) as partial, open_to_save(partial) as file:
                    np.save(file, array)
        accelerator.wait_for_everyone()

    def _is_whole(self, index: int) -> bool:
        """Whether a clip's files are there, with the manifest's number of frames. Reads headers and lengths only."""
        frames, data = self.clips[index].frames, self.config.data
        expected = {  # type and shape; None: any
            "latents": (np.float16, (frames, None, data.train_height // 8, data.train_width // 8)),
            "token": (np.float16, (frames, 1, None)),
            "poses": (np.uint8, (frames, 3, data.train_height, data.train_width)),
        }
        for name, (dtype, shape) in expected.items():
            path = self.path(index, name)
            try:
                array = np.load(path, mmap_mode="r") if path.is_file() else None
            except Exception:  # whatever NumPy raises on a spoilt header; the clip is encoded anew
                return False
            if not isinstance(array, np.ndarray) or array.dtype != dtype or array.ndim != len(shape):
                return False
            if any(size not in (None, found) for size, found in zip(shape, array.shape, strict=True)):
                return False
        return True


def _check_frames(clip: Clip, video: int, poses: int) -> None:
    """Raises UserError: the video or the pose video has another number of frames than the manifest says."""
    if not video == poses == clip.frames:
        raise UserError(
            f"{clip.video} and its pose video have {video} and {poses} frames, the manifest says {clip.frames}: "
            "run prepare_dataset.py again"
        )
