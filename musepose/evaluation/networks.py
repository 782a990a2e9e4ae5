"""Metrics that need a network: LPIPS and FVD. The user supplies each network as a TorchScript file."""

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
# The widely used I3D file resizes, rescales and classifies unless these arguments turn that off.
I3D_OPTIONS = {"rescale": False, "resize": False, "return_features": True}


def load_network(path: Path, flag: str, device: torch.device) -> torch.jit.ScriptModule:
    """Load a TorchScript file. It is a program: it can read and write files with the user's rights.

    Raises UserError if `path` is missing or not TorchScript.
    """
    require_file(path, f"give a TorchScript file with {flag}")
    try:
        network = torch.jit.load(str(path), map_location=device).eval()
    except Exception as error:  # of a damaged file: whatever its pickles lead to
        reason = (str(error).strip() or type(error).__name__).split("\n")[0][:200]
        raise UserError(f"{path} is not TorchScript ({reason}): export the network with torch.jit.save") from None
    if not hasattr(network, "forward"):
        raise UserError(f"{path} has no forward method: export a network for {flag} with torch.jit.save")
    return network


class Lpips:
    """LPIPS, learned perceptual distance (Zhang et al. 2018).

    The network takes two batches (n, 3, h, w) in [-1, 1] and returns n distances in any shape.
    """

    def __init__(self, path: Path, device: torch.device):
        self.path, self.device = path, device
        self.network = load_network(path, "--lpips", device)

    @torch.no_grad()
    def __call__(self, result: np.ndarray, truth: np.ndarray) -> float:
        """The distance between two pictures (h, w, 3) uint8."""
        tensors = (_tensor([picture], self.device) for picture in (result, truth))
        distances = _call(self.path, "--lpips", self.network, *tensors)
        if distances.numel() != 1:
            raise UserError(f"{self.path} returns {distances.numel()} numbers for two pictures: give an LPIPS network")
        return float(distances)


class Fvd:
    """Fréchet video distance (Unterthiner et al. 2018) between all clips of the results and of the ground truths.

    The network takes clips (n, 3, f, 224, 224) in [-1, 1] and returns features (n, d). Videos are split into clips of
    `clip_frames`; remaining frames are dropped. Frames are resized to a short side of 224 and centre-cropped, as in
    I3D's training. Only features are kept in memory.
    """

    def __init__(self, path: Path, device: torch.device, clip_frames: int):
        self.path, self.device, self.clip_frames = path, device, clip_frames
        self.network = load_network(path, "--fvd", device)
        self.features: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])  # of results, of ground truths
        self._clips: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
        known = {argument.name for argument in self.network.forward.schema.arguments}
        self._options = {name: value for name, value in I3D_OPTIONS.items() if name in known}

    def start_video(self) -> None:
        """Start a new clip, so that no clip spans two videos."""
        self._clips = ([], [])

    def add(self, result: np.ndarray, truth: np.ndarray) -> None:
        """Add the next frame of both, (h, w, 3) uint8."""
        for clip, features, frame in zip(self._clips, self.features, (result, truth), strict=True):
            clip.append(_centre_crop(frame, FVD_SIDE))
            if len(clip) == self.clip_frames:
                features.append(self._features(clip))
                clip.clear()

    def check(self, frames: Iterable[int]) -> None:
        """Raises UserError if videos of these lengths give fewer than two clips, which have no covariance."""
        if sum(count // self.clip_frames for count in frames) < 2:
            raise UserError(
                f"--fvd needs at least two clips of {self.clip_frames} frames: give more or longer videos, "
                "or lower --fvd_frames"
            )

    def distance(self) -> float:
        """FVD of all clips added. Unreliable for few clips: the covariance of d features needs more than d."""
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

    tr √(A B) is computed as tr √(√A B √A), which is symmetric and has real eigenvalues.
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
    except Exception as error:  # of the network's own code
        reason = (str(error).strip() or type(error).__name__).split("\n")[-1][:200]
        raise UserError(f"{path} does not accept the input of {flag} ({reason}): see --help") from None
    if not isinstance(output, Tensor):
        raise UserError(f"{path} does not return a tensor: {flag} needs a network that returns one")
    return output


def _centre_crop(frame: np.ndarray, side: int) -> np.ndarray:
    height, width = frame.shape[:2]
    factor = side / min(height, width)
    size = max(side, round(width * factor)), max(side, round(height * factor))
    frame = cv2.resize(frame, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)
    top, left = (frame.shape[0] - side) // 2, (frame.shape[1] - side) // 2
    return frame[top : top + side, left : left + side]
