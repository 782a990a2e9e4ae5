"""Preprocessing of pictures for YOLOX and RTMPose: the steps of mm's test pipelines, without the pipelines."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from musepose.pose.draw import grid_size

CPU_BATCH_PIXELS = 2**20  # input pixels of a batch on a CPU; more is not faster, and takes memory
MAX_BATCH = 16  # pictures or people; bounds the memory that a crowd takes


def resize_for_detection(
    rgb: np.ndarray,  # (h, w, 3) uint8
    resolution: int,  # pixels
) -> np.ndarray:
    """Scale the short side to `resolution`, then round both sides to the nearest multiple of 64.

    Area averaging when shrinking, Lanczos when growing, as in the ControlNet annotators.
    """
    height, width = rgb.shape[:2]
    grows = resolution > min(height, width)
    size = grid_size(width, height, resolution)
    return cv2.resize(rgb, size, interpolation=cv2.INTER_LANCZOS4 if grows else cv2.INTER_AREA)


def letterbox(
    rgb: np.ndarray,  # (h, w, 3) uint8
    square: np.ndarray,  # (side, side, 3) uint8, filled with the border colour; output, BGR
) -> tuple[float, float]:
    """Scale a picture to fit the upper left of a square, keeping its aspect ratio. → factors of width and height.

    Same as mmdet's `Resize(keep_ratio=True)` and `Pad(pad_to_square=True)`: bilinear, sides rounded half up.
    """
    (height, width), side = rgb.shape[:2], len(square)
    factor = side / max(height, width)
    new_width, new_height = int(width * factor + 0.5), int(height * factor + 0.5)
    resized = cv2.resize(rgb, (new_width, new_height), interpolation=cv2.INTER_LINEAR)
    cv2.cvtColor(resized, cv2.COLOR_RGB2BGR, dst=square[:new_height, :new_width])
    return new_width / width, new_height / height


@dataclass(frozen=True)
class Crop:
    """The part of a picture that the keypoint network sees, in pixels of the picture."""

    centre: np.ndarray  # (2,) float32 x, y
    sides: np.ndarray  # (2,) float32 width, height

    @classmethod
    def around(
        cls,
        box: np.ndarray,  # (4,) x0 y0 x1 y1
        margin: float,  # factor of the box's sides
        aspect: float,  # width / height of the crop; the box is widened or heightened to it
    ) -> "Crop":
        """Same as mmpose's `GetBBoxCenterScale` and `TopdownAffine`, in float32 like them."""
        low, high = np.asarray(box, np.float32).reshape(2, 2)
        width, height = (high - low) * np.float32(margin)
        if width > height * np.float32(aspect):
            height = width / np.float32(aspect)
        else:
            width = height * np.float32(aspect)
        return cls((high + low) * np.float32(0.5), np.array([width, height], np.float32))

    def extract(
        self,
        rgb: np.ndarray,  # (h, w, 3) uint8
        target: np.ndarray,  # (crop_h, crop_w, 3) uint8, output
    ) -> None:
        """Resample the crop into `target`: bilinear, black outside the picture."""
        height, width = target.shape[:2]
        corner = self.centre - (self.sides[0] / 2, 0)
        source = np.array([self.centre, corner, corner + (0, self.sides[0] / 2)], np.float32)
        goal = np.array([(width, height), (0, height), (0, height + width)], np.float32) / 2
        matrix = cv2.getAffineTransform(source, goal)
        cv2.warpAffine(rgb, matrix, (width, height), dst=target, flags=cv2.INTER_LINEAR)

    def to_picture(
        self,
        points: np.ndarray,  # (..., 2) x, y in pixels of the crop
        size: tuple[int, int],  # the crop's width and height in pixels
    ) -> np.ndarray:
        """Points of the crop in pixels of the picture."""
        return points / size * self.sides + (self.centre - 0.5 * self.sides)


@dataclass(frozen=True)
class Normalise:
    """The normalisation of an mm data preprocessor, by the values in its config."""

    mean: Sequence[float] | None  # per channel, in the network's channel order
    std: Sequence[float] | None

    def __call__(
        self,
        pictures: np.ndarray,  # (n, h, w, 3) uint8
        device: torch.device,
    ) -> Tensor:  # (n, 3, h, w) float32
        images = torch.from_numpy(pictures).to(device).permute(0, 3, 1, 2)
        images = images.to(torch.float32, memory_format=memory_format(device))
        if self.mean is None:
            return images
        mean, std = (torch.tensor(v, device=device).view(3, 1, 1) for v in (self.mean, self.std))
        return images.sub_(mean).div_(std)


def memory_format(device: torch.device) -> torch.memory_format:
    """Memory format of networks and inputs: channels last on CPUs, where convolutions are measurably faster with it."""
    return torch.channels_last if device.type == "cpu" else torch.contiguous_format


def batch_size(pixels: int, device: torch.device) -> int:
    """Number of inputs per batch, for inputs of `pixels` pixels each."""
    return max(1, min(MAX_BATCH, CPU_BATCH_PIXELS // pixels)) if device.type == "cpu" else MAX_BATCH
