"""What a single-shot detector gives, as boxes with key points: anchors, decoding, weighted suppression.

Methods: BlazeFace, V. Bazarevsky et al. (2019), whose suppression blends overlapping boxes instead of choosing one;
anchors as W. Liu et al., "SSD" (2016), but all of one size, which leaves their centres.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from musepose.pose.detectors.blazepose.network import Network
from musepose.pose.detectors.blazepose.regions import Region

LEAST_SCORE = 0.5
SAME_IOU = 0.3  # boxes that overlap by more are one object
ANCHORS_A_CELL = 2  # of each layer


@dataclass(frozen=True)
class Boxes:
    """What was found, best first, in fractions of the network's picture or in pixels of a whole one."""

    corners: np.ndarray  # (n, 2, 2) low and high corner, x y
    points: np.ndarray  # (n, k, 2) key points
    scores: np.ndarray  # (n,)


def anchor_centres(side: int, strides: tuple[int, ...]) -> np.ndarray:
    """(anchors, 2) x and y as fractions, in the order of the network's outputs.

    A layer of each stride; layers of one stride after each other share their cells, so that a cell has all its anchors
    side by side.
    """
    groups = []
    for stride in dict.fromkeys(strides):
        cells = side // stride
        y, x = np.divmod(np.arange(cells * cells), cells)
        centres = (np.stack([x, y], axis=-1) + 0.5) / cells
        groups.append(np.repeat(centres, ANCHORS_A_CELL * strides.count(stride), axis=0))
    return np.concatenate(groups)


def decode(
    raw: np.ndarray,  # (anchors, 4 + 2k) centre, size and key points, in pixels from the anchor
    logits: np.ndarray,  # (anchors,)
    anchors: np.ndarray,  # (anchors, 2)
    side: int,
) -> Boxes:
    """Those with a score of at least 0.5, best first, in fractions of the network's picture."""
    scores = 1 / (1 + np.exp(-np.clip(logits.astype(np.float64), -100, 100)))
    kept = np.flatnonzero(scores >= LEAST_SCORE)
    kept = kept[np.argsort(-scores[kept], kind="stable")]
    values = raw[kept].astype(np.float64).reshape(len(kept), raw.shape[1] // 2, 2) / side
    centres, sizes = values[:, 0] + anchors[kept], values[:, 1]
    corners = np.stack([centres - sizes / 2, centres + sizes / 2], axis=1)
    return Boxes(corners, values[:, 2:] + anchors[kept, None], scores[kept])


def blend(boxes: Boxes) -> Boxes:
    """One box for all that overlap with the best by an IoU of more than 0.3, their mean weighted by score; and so on.

    Each keeps the score of its best.
    """
    values = np.concatenate([boxes.corners, boxes.points], axis=1)
    waiting, blended, scores = np.arange(len(values)), [], []
    while len(waiting):
        same = iou(boxes.corners[waiting[0]], boxes.corners[waiting]) > SAME_IOU
        same[0] = True  # also where it has no area
        group, waiting = waiting[same], waiting[~same]
        blended.append(np.average(values[group], axis=0, weights=boxes.scores[group]))
        scores.append(boxes.scores[group[0]])
    values = np.array(blended).reshape(-1, *values.shape[1:])
    return Boxes(values[:, :2], values[:, 2:], np.array(scores))


def iou(
    box: np.ndarray,  # (2, 2) low and high corner
    others: np.ndarray,  # (n, 2, 2)
) -> np.ndarray:  # (n,)
    """Intersection over union; 0 where neither has an area."""
    shared = (np.minimum(box[1], others[:, 1]) - np.maximum(box[0], others[:, 0])).clip(min=0).prod(axis=-1)
    total = np.ptp(box, axis=0).prod() + np.ptp(others, axis=1).prod(axis=-1) - shared
    return np.divide(shared, total, out=np.zeros_like(shared), where=total > 0)


class BoxDetector:
    """A single-shot detector network; sees a region, answers in pixels of the whole picture."""

    def __init__(self, network: Network, strides: tuple[int, ...]) -> None:
        self._network = network
        self._anchors = anchor_centres(network.side, strides)

    def __call__(
        self,
        picture: np.ndarray,  # (h, w, 3) uint8 RGB
        region: Region,
    ) -> Boxes:
        """Best first. What lies outside the picture is black. The corners are right only where the region is level."""
        side = self._network.side
        raw, logits = self._network(region.crop(picture, side, border=cv2.BORDER_CONSTANT), low=-1)
        found = blend(decode(raw[0], logits[0, :, 0], self._anchors, side))
        return Boxes(region.to_picture(found.corners), region.to_picture(found.points), found.scores)
