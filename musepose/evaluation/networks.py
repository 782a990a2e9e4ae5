"""Measures that a network makes, LPIPS and FVD; the user supplies each network as a TorchScript file."""

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from musepose.utils.errors import UserError
from musepose.utils.files import require_file

FVD_SIDE = 224  # pixels
# The widely used I3D file resizes, scales and classifies by itself unless told not to.
I3D_OPTIONS = {"rescale": False, "resize": False, "return_features": True}


def load_network(path: Path, flag: str, device: torch.device) -> torch.jit.ScriptModule:
    """Raises UserError where `path` is missing or no TorchScript."""
    require_file(path, f"give a TorchScript file with {flag}")
    try:
        return torch.jit.load(str(path), map_location=device).eval()
    except (RuntimeError, ValueError, OSError) as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(f"{path} is no TorchScript ({reason}): export the network with torch.jit.save") from None


class Lpips:
    """Learned perceptual distance (Zhang et al. 2018) by a network (pictures, pictures) → distances.

    The network takes two batches (n, 3, h, w) in [-1, 1] and gives n numbers in any shape.
    """

    def __init__(self, path: Path, device: torch.device):
        self.path, self.device = path, device
        self.network = load_network(path, "--lpips", device)

    @torch.no_grad()
    def __call__(self, result: np.ndarray, truth: np.ndarray) -> float:
        """The distance of two pictures (h, w, 3) uint8."""
        tensors = (_tensor([picture], self.device) for picture in (result, truth))
        distances = _call(self.path, "--lpips", self.network, *tensors)
        if distances.numel() != 1:
            raise UserError(f"{self.path} gives {distances.numel()} numbers for two pictures: give an LPIPS network")
        return float(distances)


class Fvd:
    """Fréchet video distance (Unterthiner et al. 2018) between all clips of the results and of the truths.

    The network takes clips (n, 3, f, 224, 224) in [-1, 1] and gives features (n, d). Videos are cut into whole clips of
    `clip_frames`, the rest is left out; each frame's short side is brought to 224 and the middle cut out, as I3D saw
    its training videos. Only features are kept.
    """

    def __init__(self, path: Path, device: torch.device, clip_frames: int):
        self.path, self.device, self.clip_frames = path, device, clip_frames
        self.network = load_network(path, "--fvd", device)
        self.features: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])  # of results, of truths
        self._clips: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
        known = {argument.name for argument in self.network.forward.schema.arguments}
        self._options = {name: value for name, value in I3D_OPTIONS.items() if name in known}

    def start_video(self) -> None:
        """No clip reaches from one video into the next."""
        self._clips = ([], [])

    def add(self, result: np.ndarray, truth: np.ndarray) -> None:
        """The next frame, (h, w, 3) uint8 each."""
        for clip, features, frame in zip(self._clips, self.features, (result, truth), strict=True):
            clip.append(_middle_square(frame, FVD_SIDE))
            if len(clip) == self.clip_frames:
                features.append(self._features(clip))
                clip.clear()

    def check(self, frames: Iterable[int]) -> None:
        """Raises UserError where videos of so many frames make fewer than two clips: they have no covariance."""
        if sum(count // self.clip_frames for count in frames) < 2:
            raise UserError(
                f"--fvd needs at least two clips of {self.clip_frames} frames: give more or longer videos, "
                "or lower --fvd_frames"
            )

    def distance(self) -> float:
        """Between all that was added; few clips say little, as the covariance of d features wants more than d."""
        return frechet_distance(*(np.stack(features) for features in self.features))

    @torch.no_grad()
    def _features(self, frames: list[np.ndarray]) -> np.ndarray:
        clip = rearrange(_tensor(frames, self.device), "f c h w -> 1 c f h w")
        features = _call(self.path, "--fvd", self.network, clip, **self._options)
        return features.double().cpu().numpy().reshape(-1)


def frechet_distance(
    first: np.ndarray,  # (n, d)
    second: np.ndarray,  # (m, d)
) -> float:
    """Fréchet distance of the Gaussians fitted to two sets of features (Dowson & Landau 1982).

    The trace of √(A B) is taken as that of √(√A B √A), which is symmetric, so that real eigenvalues suffice.
    """
    offset = first.mean(axis=0) - second.mean(axis=0)
    a, b = (np.atleast_2d(np.cov(features, rowvar=False)) for features in (first, second))
    values, vectors = np.linalg.eigh(a)
    root = vectors * np.sqrt(values.clip(min=0)) @ vectors.T
    product = np.linalg.eigvalsh(root @ b @ root).clip(min=0)
    return float(offset @ offset + np.trace(a) + np.trace(b) - 2 * np.sqrt(product).sum())


def _tensor(pictures: list[np.ndarray], device: torch.device) -> Tensor:
    """uint8 pictures → (n, 3, h, w) float32 in [-1, 1]."""
    batch = rearrange(torch.from_numpy(np.stack(pictures)), "n h w c -> n c h w")
    return batch.to(device).float() / 127.5 - 1


def _call(path: Path, flag: str, network: torch.jit.ScriptModule, *tensors: Tensor, **options: bool) -> Tensor:
    try:
        output = network(*tensors, **options)
    except (RuntimeError, torch.jit.Error) as error:
        reason = str(error).strip().split("\n")[-1]
        raise UserError(f"{path} does not take what {flag} gives it ({reason}): see --help") from None
    if not isinstance(output, Tensor):
        raise UserError(f"{path} gives no tensor: {flag} needs a network that returns one")
    return output


def _middle_square(frame: np.ndarray, side: int) -> np.ndarray:
    height, width = frame.shape[:2]
    factor = side / min(height, width)
    size = max(side, round(width * factor)), max(side, round(height * factor))
    frame = cv2.resize(frame, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)
    top, left = (frame.shape[0] - side) // 2, (frame.shape[1] - side) // 2
    return frame[top : top + side, left : left + side]
