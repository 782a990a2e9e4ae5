"""One person's body: 33 landmarks in a region, refined by heat maps, and followed from frame to frame.

Method: BlazePose, V. Bazarevsky et al. (2020), and its GHUM successor with depth and metres; thresholds and filters as
MediaPipe Holistic sets them (Apache-2.0).
"""

from dataclasses import dataclass

import numpy as np

from musepose.pose.detectors.blazepose.filters import LowPass, OneEuro
from musepose.pose.detectors.blazepose.network import Network
from musepose.pose.detectors.blazepose.regions import Region, around_centre

LANDMARKS = 33
CENTRE, SCALE = 33, 34  # between the hips, and at half a region's distance from there: they carry the next region
USED = 35  # of the 39 that the network gives
LEAST_PRESENCE = 0.5
REGION_SCALE = 1.25
KERNEL = (
    9  # cells of the heat map around a landmark that refine it: measured on MediaPipe 0.10.21, whose graph says 7 …
)
LEAST_PEAK = 0.5  # … where one of them is so sure


@dataclass(frozen=True)
class Body:
    """One person's body in one picture."""

    landmarks: np.ndarray  # (33, 3) x, y in pixels; depth on the same scale, from the hips, smaller is nearer
    visibility: np.ndarray  # (33,) 0 to 1: in the picture and not hidden
    metres: np.ndarray  # (33, 3) x right, y down, z away, from between the hips
    anchors: np.ndarray  # (2, 2) pixels, CENTRE and SCALE
    presence: float  # 0 to 1: that this is a person

    @property
    def region(self) -> Region:
        """Where to look for the same person in the next frame."""
        return body_region(self.anchors)


def body_region(
    anchors: np.ndarray,  # (2, 2) pixels, CENTRE and SCALE
) -> Region:
    """The square around a person whose scale point is above the hips' centre in it."""
    return around_centre(anchors[0], anchors[1]).square(REGION_SCALE)


def find_body(
    network: Network,
    picture: np.ndarray,  # (h, w, 3) uint8 RGB
    region: Region,
) -> Body | None:
    """The body in a region; None where there is none. Nothing is filtered."""
    if not region.is_usable():
        return None
    values, presence, heat, metres = network(region.crop(picture, network.side))
    presence = float(presence[0, 0])
    if not presence > LEAST_PRESENCE:
        return None
    values = values[0].reshape(-1, 5)[:USED].astype(np.float64)
    points = refine(values[:, :2] / network.side, heat[0])
    depth = values[:LANDMARKS, 2:3] / network.side * region.width
    points = region.to_picture(points)
    metres = metres[0].reshape(-1, 3)[:LANDMARKS].astype(np.float64)
    return Body(
        landmarks=np.concatenate([points[:LANDMARKS], depth], axis=1),
        visibility=_sigmoid(values[:LANDMARKS, 3]),
        metres=np.concatenate([region.rotate(metres[:, :2]), metres[:, 2:]], axis=1),
        anchors=points[CENTRE : SCALE + 1],
        presence=presence,
    )


def refine(
    points: np.ndarray,  # (n, 2) fractions of the region
    heat: np.ndarray,  # (cells, cells, at least n) logits, a map for each point
) -> np.ndarray:  # (n, 2)
    """Each point moved to the centre of mass of the 9 × 9 cells around it, where one of them reaches 0.5.

    Points outside the region stay. Cells count from their corner, as the landmarks that come of it are used to.
    """
    cells = heat.shape[0]
    centres = np.trunc(points * cells)
    inside = ((centres >= 0) & (centres < cells)).all(axis=1)
    centres = np.where(inside[:, None], centres, 0).astype(int)
    offsets = np.arange(KERNEL) - KERNEL // 2
    x, y = centres[:, 0, None] + offsets, centres[:, 1, None] + offsets  # (n, 9) columns, rows
    rows, columns = y.clip(0, cells - 1)[:, :, None], x.clip(0, cells - 1)[:, None, :]
    weights = _sigmoid(heat[rows, columns, np.arange(len(points))[:, None, None]].astype(np.float64))
    weights *= ((y >= 0) & (y < cells))[:, :, None] & ((x >= 0) & (x < cells))[:, None, :]
    total = weights.sum(axis=(1, 2))
    means = np.stack([(weights.sum(axis=1) * x).sum(axis=1), (weights.sum(axis=2) * y).sum(axis=1)], axis=-1)
    sure = inside & (weights.max(axis=(1, 2)) >= LEAST_PEAK)
    return np.where(sure[:, None], means / np.maximum(total, 1e-9)[:, None] / cells, points)


class BodyFilters:
    """What takes the jitter off one person's body from frame to frame."""

    def __init__(self) -> None:
        self._landmarks = OneEuro(0.05, 80)
        self._anchors = OneEuro(0.01, 10)
        self._metres = OneEuro(0.1, 40)
        self._visibility = LowPass(0.1)

    def __call__(self, body: Body) -> Body:
        size = around_centre(*body.anchors).width  # speeds count in sizes of the person, so near and far are alike
        if size < 1e-6:
            return body
        return Body(
            landmarks=self._landmarks(body.landmarks, size),
            visibility=self._visibility(body.visibility),
            metres=self._metres(body.metres),
            anchors=self._anchors(body.anchors, size),
            presence=body.presence,
        )


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))
