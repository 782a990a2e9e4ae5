"""One person's hands: a small network finds the hand near the wrist, a larger one its 21 landmarks.

Method: MediaPipe Hands, F. Zhang et al. (2020), and the re-crop network of MediaPipe Holistic; thresholds as there
(Apache-2.0).
"""

from dataclasses import dataclass

import numpy as np

from musepose.pose.detectors.blazepose.body import Body
from musepose.pose.detectors.blazepose.network import Network
from musepose.pose.detectors.blazepose.regions import (
    UPRIGHT,
    UPSIDE_DOWN,
    Region,
    Tolerance,
    angle_of,
    around_centre,
    around_points,
    follow_region,
)

# The body's landmarks of each hand: wrist, little finger, index finger.
SIDES = ((15, 17, 19), (16, 18, 20))  # left, right
LEAST_WRIST_VISIBILITY = 0.1
LEAST_PRESENCE = 0.5
DEPTH_SCALE = 0.4  # the network's depth is in units of 0.4 of its picture
TOLERANCE = Tolerance(degrees=40, shift=0.2, scale=0.4, margin=-0.1)
PALM = [0, 1, 2, 3, 5, 6, 9, 10, 13, 14, 17, 18]  # the landmarks that stay together whatever the fingers do
WRIST, INDEX, MIDDLE, RING = 0, 5, 9, 13  # roots of the fingers


@dataclass(frozen=True)
class Hand:
    """One hand in one picture."""

    landmarks: np.ndarray  # (21, 3) x, y in pixels; depth on the same scale, from the wrist
    presence: float  # 0 to 1: that this is a hand


class HandFinder:
    """The two networks for hands. It keeps nothing from call to call."""

    def __init__(self, recrop: Network, landmark: Network) -> None:
        self._recrop, self._landmark = recrop, landmark

    def __call__(
        self,
        picture: np.ndarray,  # (h, w, 3) uint8 RGB
        body: Body,
        before: tuple[Hand | None, Hand | None] = (None, None),  # in the frame before
    ) -> tuple[Hand | None, Hand | None]:
        """The left and the right hand; None where the wrist is hidden, or there is none to be seen."""
        left, right = (self._find(picture, body, *one) for one in zip(SIDES, before, strict=True))
        return left, right

    def _find(self, picture: np.ndarray, body: Body, side: tuple[int, int, int], before: Hand | None) -> Hand | None:
        if not body.visibility[side[0]] > LEAST_WRIST_VISIBILITY:
            return None
        near = region_from_body(body.landmarks[list(side), :2])
        if not near.is_usable():
            return None
        (ends,) = self._recrop(near.crop(picture, self._recrop.side))
        ends = near.to_picture(ends.reshape(2, 2).astype(np.float64) / self._recrop.side)
        found = around_centre(*ends, UPSIDE_DOWN).square(1.0, up=0.1)
        if before is None:
            return self._landmarks(picture, found)
        known = before.landmarks[:, :2]
        return self._landmarks(picture, follow_region(found, region_from_landmarks(known), known, TOLERANCE))

    def _landmarks(self, picture: np.ndarray, region: Region) -> Hand | None:
        if not region.is_usable():
            return None
        values, presence, *_ = self._landmark(region.crop(picture, self._landmark.side))
        presence = float(presence[0, 0])
        if not presence > LEAST_PRESENCE:
            return None
        values = values.reshape(-1, 3).astype(np.float64) / self._landmark.side
        points = region.to_picture(values[:, :2])
        return Hand(np.concatenate([points, values[:, 2:] / DEPTH_SCALE * region.width], axis=1), presence)


def region_from_body(
    points: np.ndarray,  # (3, 2) pixels: wrist, little finger, index finger
) -> Region:
    """Where a hand should be, after the body's landmarks, fingers up; generous, as these are not sure of hands."""
    wrist, little, index = points
    middle = (2 * index + little) / 3
    around = around_centre(middle, wrist)
    turned = Region(around.x, around.y, around.width, around.height, angle_of(wrist, middle, UPRIGHT))
    return turned.square(2.7, up=0.1)


def region_from_landmarks(
    points: np.ndarray,  # (21, 2) pixels
) -> Region:
    """Around a known hand, its fingers up."""
    fingers = ((points[INDEX] + points[RING]) / 2 + points[MIDDLE]) / 2
    angle = angle_of(points[WRIST], fingers, UPRIGHT)
    palm = points[PALM]
    middle = (palm.min(axis=0) + palm.max(axis=0)) / 2
    level = Region(float(middle[0]), float(middle[1]), 0, 0, angle)
    own = around_points(level.from_picture(palm), angle)  # the hand's rectangle, in its own directions
    centre = level.rotate(np.array([own.x, own.y])) + middle
    return Region(float(centre[0]), float(centre[1]), own.width, own.height, angle).square(2.0, up=0.1)
