"""Training batches for the two networks of the pose stage, from images of puppets.

Preprocessing is PoseDetector's (mmdet's Resize and Pad, mmpose's GetBBoxCenterScale and TopdownAffine). Augmentation:
random translation, scale, rotation, flip, colour, blur and JPEG compression.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from puppet.pose_pictures import Shot

PADDING = 114  # grey level of YOLOX's padding
BOX_MARGIN = 1.25  # GetBBoxCenterScale's padding
LEAST_SHOWN = 0.3  # figures with a smaller visible fraction of LIMBS are ignored


@dataclass(frozen=True)
class DetectionBatch:
    """A batch for YOLOX."""

    images: Tensor  # (b, 3, h, w) BGR, 0 to 255
    boxes: list[Tensor]  # b times (n, 4) x0 y0 x1 y1 in pixels

    def to(self, device: torch.device) -> "DetectionBatch":
        return DetectionBatch(self.images.to(device), [boxes.to(device) for boxes in self.boxes])


@dataclass(frozen=True)
class KeypointBatch:
    """A batch for RTMPose."""

    images: Tensor  # (b, 3, h, w) BGR, 0 to 255
    keypoints: Tensor  # (b, 133, 2) pixels
    visible: Tensor  # (b, 133) bool
    torso: Tensor  # (b,) pixels, from the neck to the middle of the hips

    def to(self, device: torch.device) -> "KeypointBatch":
        return KeypointBatch(*(t.to(device) for t in (self.images, self.keypoints, self.visible, self.torso)))


def detection_batch(shots: Sequence[Shot], side: int, rng: np.random.Generator | None = None) -> DetectionBatch:
    """Images fitted into squares of `side` pixels, augmented if `rng` is given."""
    images, boxes = [], []
    for shot in shots:
        height, width = shot.image.shape[:2]
        matrix = np.eye(3) * (side / max(height, width), side / max(height, width), 1)
        if rng is not None:
            zoom = rng.uniform(0.7, 1.2)
            shift = rng.uniform(-0.15, 0.15, 2) * side
            matrix = _moved(shift + (1 - zoom) * side / 2) @ np.diag([zoom, zoom, 1]) @ matrix
            if rng.random() < 0.5:
                matrix = matrix @ _mirror(width)
        corners = _apply(matrix, shot.boxes[shot.shown >= LEAST_SHOWN].reshape(-1, 2)).reshape(-1, 2, 2)
        limit = _apply(matrix, np.array([[0, 0], [width, height]], float))  # the image's edges
        low, high = np.sort(limit, 0).clip(0, side)
        box = np.sort(corners, 1)
        inside = box.clip(low, high)
        kept = (inside[:, 1] - inside[:, 0]).prod(1) > 0.3 * (box[:, 1] - box[:, 0]).prod(1)
        image = shot.image[..., ::-1] if rng is None else vary_colours(shot.image[..., ::-1], rng)
        images.append(_warp(image, matrix, (side, side), PADDING))
        boxes.append(torch.from_numpy(inside[kept].reshape(-1, 4)).float())
    return DetectionBatch(_stacked(images), boxes)


def keypoint_batch(
    figures: Sequence[tuple[Shot, int]],  # image, index of the figure
    size: tuple[int, int],  # width, height in pixels
    flip_indices: Sequence[int],  # (133,) index of each keypoint's counterpart after a horizontal flip
    rng: np.random.Generator | None = None,
) -> KeypointBatch:
    """Crops of figures by their ground-truth boxes, augmented if `rng` is given."""
    images, keypoints, visible = [], [], []
    width, height = size
    for shot, index in figures:
        points, seen = shot.keypoints[index], shot.visible[index]
        low, high = shot.boxes[index].reshape(2, 2)
        centre, sides = (low + high) / 2, (high - low) * BOX_MARGIN
        scale = min(width / sides[0], height / sides[1])
        turn = np.eye(3)
        mirror = np.eye(3)
        image = shot.image[..., ::-1]
        if rng is not None:
            scale *= np.exp(rng.uniform(-0.25, 0.2))
            centre = centre + rng.uniform(-0.08, 0.08, 2) * sides
            turn[:2] = cv2.getRotationMatrix2D((0, 0), rng.normal(0, 6), 1)
            image = vary_colours(image, rng)
            if rng.random() < 0.5:
                mirror = np.diag([-1.0, 1.0, 1.0])
                points, seen = points[flip_indices], seen[flip_indices]
        matrix = _moved((width / 2, height / 2)) @ mirror @ turn @ np.diag([scale, scale, 1]) @ _moved(-centre)
        points = _apply(matrix, points)
        images.append(_warp(image, matrix, size, 0))
        keypoints.append(points)
        visible.append(seen & ((points >= 0) & (points < size)).all(1))
    points = torch.from_numpy(np.stack(keypoints)).float()
    torso = (points[:, [5, 6]].mean(1) - points[:, [11, 12]].mean(1)).norm(dim=-1)
    return KeypointBatch(_stacked(images), points, torch.from_numpy(np.stack(visible)), torso)


def vary_colours(
    image: np.ndarray,  # (h, w, 3) uint8
    rng: np.random.Generator,
) -> np.ndarray:
    """Random brightness, contrast and tint; sometimes blur by downsampling, or JPEG compression."""
    gain, offset = rng.uniform(0.8, 1.2) * rng.uniform(0.93, 1.07, 3), rng.uniform(-20, 20)
    table = np.clip(np.arange(256)[:, None] * gain + offset, 0, 255).astype(np.uint8)
    image = cv2.LUT(np.ascontiguousarray(image), table[None])
    height, width = image.shape[:2]
    if rng.random() < 0.25:
        factor = rng.uniform(0.4, 0.9)
        small = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        image = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    if rng.random() < 0.25:
        packed = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(35, 90))])[1]
        image = cv2.imdecode(packed, cv2.IMREAD_COLOR)
    return image


def _warp(image: np.ndarray, matrix: np.ndarray, size: tuple[int, int], fill: int) -> np.ndarray:
    return cv2.warpAffine(image, matrix[:2], size, flags=cv2.INTER_LINEAR, borderValue=(fill,) * 3)


def _moved(shift: Sequence[float]) -> np.ndarray:
    matrix = np.eye(3)
    matrix[:2, 2] = shift
    return matrix


def _mirror(width: int) -> np.ndarray:
    return np.array([[-1.0, 0, width], [0, 1, 0], [0, 0, 1]])


def _apply(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    return points @ matrix[:2, :2].T + matrix[:2, 2]


def _stacked(images: list[np.ndarray]) -> Tensor:
    return rearrange(torch.from_numpy(np.stack(images)), "b h w c -> b c h w").float()
