"""Pictures to the networks' inputs: what mm's test-time pipelines do with one picture, without what surrounds it."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from musepose.pose.draw import grid_size

CPU_PIXELS = 2**20  # that go through a network together: more is not faster, and takes memory
BATCH = 16  # pictures or persons that do on other devices, which bounds the memory of a crowd


def resize_for_detection(
    rgb: np.ndarray,  # (h, w, 3) uint8
    resolution: int,  # pixels
) -> np.ndarray:
    """Bring the short side to `resolution` and then both sides to the nearest multiple of 64.

    Area averaging when the picture shrinks, Lanczos when it grows, as the ControlNet annotators do.
    """
    height, width = rgb.shape[:2]
    grows = resolution > min(height, width)
    size = grid_size(width, height, resolution)
    return cv2.resize(rgb, size, interpolation=cv2.INTER_LANCZOS4 if grows else cv2.INTER_AREA)


def fit_square(
    rgb: np.ndarray,  # (h, w, 3) uint8
    square: np.ndarray,  # (side, side, 3) uint8, filled with the border's colour; is written to, as BGR
) -> tuple[float, float]:
    """Draw a picture into the upper left of a square, as large as it goes. → the factors of its width and height.

    mmdet's `Resize(keep_ratio=True)` and `Pad(pad_to_square=True)`: bilinear, sides rounded half up.
    """
    (height, width), side = rgb.shape[:2], len(square)
    factor = side / max(height, width)
    new_width, new_height = int(width * factor + 0.5), int(height * factor + 0.5)
    resized = cv2.resize(rgb, (new_width, new_height), interpolation=cv2.INTER_LINEAR)
    cv2.cvtColor(resized, cv2.COLOR_RGB2BGR, dst=square[:new_height, :new_width])
    return new_width / width, new_height / height


@dataclass(frozen=True)
class Crop:
    """The part of a picture, in its pixels, that a keypoint network sees."""

    centre: np.ndarray  # (2,) float32 x, y
    sides: np.ndarray  # (2,) float32 width, height

    @classmethod
    def around(
        cls,
        box: np.ndarray,  # (4,) x0 y0 x1 y1
        margin: float,  # factor of the box's sides
        aspect: float,  # width / height of what is cut out, which is widened or heightened to it
    ) -> "Crop":
        """mmpose's `GetBBoxCenterScale` and `TopdownAffine`, in their single precision."""
        low, high = np.asarray(box, np.float32).reshape(2, 2)
        width, height = (high - low) * np.float32(margin)
        if width > height * np.float32(aspect):
            height = width / np.float32(aspect)
        else:
            width = height * np.float32(aspect)
        return cls((high + low) * np.float32(0.5), np.array([width, height], np.float32))

    def cut(
        self,
        rgb: np.ndarray,  # (h, w, 3) uint8
        target: np.ndarray,  # (crop_h, crop_w, 3) uint8, is written to
    ) -> None:
        """Bilinear, black beyond the picture."""
        height, width = target.shape[:2]
        corner = self.centre - (self.sides[0] / 2, 0)
        source = np.array([self.centre, corner, corner + (0, self.sides[0] / 2)], np.float32)
        goal = np.array([(width, height), (0, height), (0, height + width)], np.float32) / 2
        matrix = cv2.getAffineTransform(source, goal)
        cv2.warpAffine(rgb, matrix, (width, height), dst=target, flags=cv2.INTER_LINEAR)

    def uncut(
        self,
        points: np.ndarray,  # (..., 2) x, y in pixels of the crop
        size: tuple[int, int],  # the crop's width and height in pixels
    ) -> np.ndarray:
        """The same points in the picture's pixels."""
        return points / size * self.sides + (self.centre - 0.5 * self.sides)


@dataclass(frozen=True)
class Normalise:
    """What an mm data preprocessor does to a batch, after its config."""

    mean: Sequence[float] | None  # of the channels as the network sees them
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
    """How networks and pictures lie in memory: channels last where convolutions want it and that has been measured."""
    return torch.channels_last if device.type == "cpu" else torch.contiguous_format


def batch_size(pixels: int, device: torch.device) -> int:
    """How many inputs of so many pixels each go through a network together."""
    return max(1, min(BATCH, CPU_PIXELS // pixels)) if device.type == "cpu" else BATCH
