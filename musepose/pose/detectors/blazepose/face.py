"""One person's face: a detector finds it near the body's face landmarks, a network its 468 mesh points.

Methods: BlazeFace, V. Bazarevsky et al. (2019); face mesh, Y. Kartynnik et al. (2019); joined as in MediaPipe Holistic
(Apache-2.0).
"""

from dataclasses import dataclass

import numpy as np

from musepose.pose.detectors.blazepose.body import Body
from musepose.pose.detectors.blazepose.boxes import BoxDetector
from musepose.pose.detectors.blazepose.network import Network
from musepose.pose.detectors.blazepose.regions import LEVEL, Region, Tolerance, angle_of, around_points, follow_region

STRIDES = (8, 16, 16, 16)  # of the detector's layers
LEAST_PRESENCE = 0.5
TOLERANCE = Tolerance(degrees=15, shift=0.1, scale=0.3, margin=-0.2)
BODY_FACE = slice(0, 11)  # the body's landmarks of the face …
BODY_EYES = 5, 2  # … the right eye and the left one among them
DETECTED_EYES = 0, 1  # right and left among the detector's key points
MESH_EYES = 33, 263  # outer corners, right and left


@dataclass(frozen=True)
class Face:
    """One face in one picture."""

    landmarks: np.ndarray  # (468, 3) x, y in pixels; depth on the same scale
    presence: float  # 0 to 1: that this is a face


class FaceFinder:
    """The two networks for faces. It keeps nothing from call to call."""

    def __init__(self, detection: Network, landmark: Network) -> None:
        self._detect = BoxDetector(detection, STRIDES)
        self._landmark = landmark

    def __call__(
        self,
        picture: np.ndarray,  # (h, w, 3) uint8 RGB
        body: Body,
        before: Face | None = None,  # in the frame before
    ) -> Face | None:
        """None where there is none to be seen."""
        near = _level_eyes(body.landmarks[BODY_FACE, :2], BODY_EYES).square(3.0)
        if not near.is_usable():
            return None
        faces = self._detect(picture, near)
        if not len(faces.scores):
            return None
        region = _level_eyes(faces.points[0], DETECTED_EYES).square(2.0, up=0.1)
        if before is not None:
            known = before.landmarks[:, :2]
            region = follow_region(region, region_from_landmarks(known), known, TOLERANCE)
        return self._landmarks(picture, region)

    def _landmarks(self, picture: np.ndarray, region: Region) -> Face | None:
        if not region.is_usable():
            return None
        values, presence = self._landmark(region.crop(picture, self._landmark.side))
        presence = float(1 / (1 + np.exp(-presence.item())))
        if not presence > LEAST_PRESENCE:
            return None
        values = values.reshape(-1, 3).astype(np.float64) / self._landmark.side
        points = region.to_picture(values[:, :2])
        return Face(np.concatenate([points, values[:, 2:] * region.width], axis=1), presence)


def region_from_landmarks(
    points: np.ndarray,  # (468, 2) pixels
) -> Region:
    """Around a known face, its eyes level."""
    return _level_eyes(points, MESH_EYES).square(1.5)


def _level_eyes(points: np.ndarray, eyes: tuple[int, int]) -> Region:
    return around_points(points, angle_of(points[eyes[0]], points[eyes[1]], LEVEL))
