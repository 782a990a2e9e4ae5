"""Regions of interest: squares in a picture, turned upright for a network, and the way back from its coordinates."""

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np

UPRIGHT = math.pi / 2  # where a vector points that is upright in its region, counter-clockwise from the x axis
UPSIDE_DOWN = -math.pi / 2
LEVEL = 0.0


@dataclass(frozen=True)
class Region:
    """A rectangle turned about its centre. Lengths in pixels; the angle in radians, clockwise as seen."""

    x: float  # of the centre
    y: float
    width: float
    height: float
    angle: float = 0.0

    def is_usable(self) -> bool:
        """Whether there is anything to cut out."""
        sides = (self.x, self.y, self.width, self.height, self.angle)
        return all(map(math.isfinite, sides)) and min(self.width, self.height) >= 1

    def square(self, scale: float, up: float = 0.0) -> "Region":
        """A square of `scale` times the longer side, moved upwards in its own frame by `up` heights."""
        shift = -self.height * up
        side = max(self.width, self.height) * scale
        x, y = self.x - shift * math.sin(self.angle), self.y + shift * math.cos(self.angle)
        return replace(self, x=x, y=y, width=side, height=side)

    def crop(
        self,
        picture: np.ndarray,  # (h, w, 3) uint8
        side: int,
        border: int = cv2.BORDER_REPLICATE,
    ) -> np.ndarray:  # (side, side, 3) uint8
        """The region as an upright picture, by bilinear interpolation."""
        matrix = self._matrix() / [side, side, 1]
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(picture, matrix, (side, side), flags=flags, borderMode=border)

    def to_picture(
        self,
        points: np.ndarray,  # (..., 2) fractions of the region's width and height
    ) -> np.ndarray:  # (..., 2) pixels of the picture
        matrix = self._matrix()
        return points @ matrix[:, :2].T + matrix[:, 2]

    def rotate(
        self,
        points: np.ndarray,  # (..., 2)
    ) -> np.ndarray:
        """Directions as they are in the picture, from directions in the region."""
        return points @ self._rotation().T

    def from_picture(
        self,
        points: np.ndarray,  # (..., 2) pixels of the picture
    ) -> np.ndarray:  # (..., 2) pixels in the region's own directions, from its centre
        return (points - [self.x, self.y]) @ self._rotation()

    def _rotation(self) -> np.ndarray:
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        return np.array([[cos, -sin], [sin, cos]])

    def _matrix(self) -> np.ndarray:
        """(2, 3) from fractions of the region to pixels of the picture."""
        scaled = self._rotation() * [self.width, self.height]
        return np.column_stack([scaled, [self.x, self.y] - scaled.sum(axis=1) / 2])


def angle_of(
    start: np.ndarray,  # (2,) pixels
    end: np.ndarray,  # (2,)
    target: float,  # where the vector between them points in the region: UPRIGHT, UPSIDE_DOWN or LEVEL
) -> float:
    """The angle of the region in which a vector points to `target`, between -π and π."""
    x, y = np.subtract(end, start)
    angle = target - math.atan2(-y, x)
    return angle - 2 * math.pi * math.floor((angle + math.pi) / (2 * math.pi))


def around_centre(
    centre: np.ndarray,  # (2,) pixels
    edge: np.ndarray,  # (2,) a point at half a side's distance
    target: float = UPRIGHT,
) -> Region:
    """A square around `centre`, in which `edge` lies at `target`."""
    side = 2 * math.dist(centre, edge)
    return Region(float(centre[0]), float(centre[1]), side, side, angle_of(centre, edge, target))


def around_points(
    points: np.ndarray,  # (n, 2) pixels
    angle: float,
) -> Region:
    """The picture's own upright rectangle around points, with an angle: its centre turns, its sides do not."""
    low, high = points.min(axis=0), points.max(axis=0)
    (x, y), (width, height) = (low + high) / 2, high - low
    return Region(float(x), float(y), float(width), float(height), angle)


def whole_picture(picture: np.ndarray) -> Region:
    """The square around a picture (h, w, 3), whose longer side it shares."""
    height, width = picture.shape[:2]
    side = float(max(width, height))
    return Region(width / 2, height / 2, side, side)


@dataclass(frozen=True)
class Tolerance:
    """How far a new region may lie from the one that earlier landmarks give, for these to be followed on."""

    degrees: float
    shift: float  # of the centre, in sides of the new region
    scale: float  # of the sides, in sides of the new region
    margin: float  # of the new region, by which it must reach beyond all earlier landmarks, in its sides; may be < 0


def follow_region(
    found: Region,  # in this frame, by a network of its own
    followed: Region | None,  # around the landmarks of the frame before
    landmarks: np.ndarray | None,  # (n, 2) pixels, of the frame before
    tolerance: Tolerance,
) -> Region:
    """The earlier landmarks' region as long as it agrees with the new one, which jitters; the new one otherwise.

    After MediaPipe Holistic (I. Grishchenko and V. Bazarevsky, 2020).
    """
    if followed is None or landmarks is None:
        return found
    turn = math.remainder(followed.angle - found.angle, 2 * math.pi)
    sides = np.array([found.width, found.height])
    shift = np.abs(found.from_picture(np.array([followed.x, followed.y])))
    growth = np.abs(np.subtract([followed.width, followed.height], sides))
    inside = np.abs(found.from_picture(landmarks)) < sides * (1 + tolerance.margin) / 2
    agrees = (
        abs(turn) <= math.radians(tolerance.degrees)
        and (shift <= sides * tolerance.shift).all()
        and (growth <= sides * tolerance.scale).all()
        and inside.all()
    )
    return followed if agrees else found
