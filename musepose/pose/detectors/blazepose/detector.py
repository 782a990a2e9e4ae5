"""BlazePose as a detector: pictures and videos in, People out."""

import os
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from musepose.pose.detectors.blazepose import models
from musepose.pose.detectors.blazepose.body import Body
from musepose.pose.detectors.blazepose.boxes import BoxDetector
from musepose.pose.detectors.blazepose.face import Face, FaceFinder
from musepose.pose.detectors.blazepose.hands import Hand, HandFinder
from musepose.pose.detectors.blazepose.models import FOLDER
from musepose.pose.detectors.blazepose.network import Network
from musepose.pose.detectors.blazepose.tracker import BodyFinder, Track, Tracker
from musepose.pose.detectors.blazepose.wholebody import to_people
from musepose.pose.types import People
from musepose.utils.prefetch import prefetch

STRIDES = (8, 16, 32, 32, 32)  # of the pose detector's layers
FRAMES_AHEAD, FOUND_AHEAD = 4, 2  # frames that wait between the threads

Hands = tuple[Hand | None, Hand | None]  # left, right
NO_HANDS: Hands = (None, None)


@dataclass(frozen=True)
class _Followed:
    """What is known of somebody in a frame before his hands are."""

    track: Track
    body: Body
    face: Face | None


class BlazePoseDetector:
    """Finds everybody in a picture, up to six, with 133 whole-body keypoints each.

    The networks lie in `folder`. An instance does one thing at a time. Raises UserError:
    LiteRT is not installed, a file is missing, damaged, or another one.
    """

    def __init__(self, folder: str | os.PathLike = FOLDER) -> None:
        # All files are read before the first picture, so that none is missed half-way.
        detection, landmark, recrop, hand, face_detection, face = (
            Network(folder, file)
            for file in (
                models.POSE_DETECTION,
                models.POSE_LANDMARK,
                models.HAND_RECROP,
                models.HAND_LANDMARK,
                models.FACE_DETECTION,
                models.FACE_LANDMARK,
            )
        )
        self._find_bodies = BodyFinder(BoxDetector(detection, STRIDES), landmark)
        self._find_hands = HandFinder(recrop, hand)
        self._find_face = FaceFinder(face_detection, face)

    def __call__(
        self,
        rgb: np.ndarray,  # (h, w, 3) uint8
    ) -> People:
        """Everybody in one picture, nothing filtered; nobody where nobody is found."""
        bodies = self._find_bodies(rgb, [])
        return to_people(
            [(body, self._find_hands(rgb, body), self._find_face(rgb, body)) for body in bodies], rgb.shape[1::-1]
        )

    def find(
        self,
        frames: Iterable[np.ndarray],  # RGB, each (h, w, 3) uint8, of one size
        every: int = 1,  # of no use here: BlazePose looks for people anew only where following is not enough
    ) -> Iterator[People]:
        """Everybody in each frame of a video, in order, followed and filtered from frame to frame.

        Taking the frames, bodies, faces and hands have a thread each, the hands the caller's own, and are a few frames
        apart. Close this iterator, or exhaust it, to end the threads. Raises what `frames` raises.
        """
        before: dict[Track, Hands] = {}
        with closing(prefetch(self._faces(frames), FOUND_AHEAD)) as found:
            for rgb, people in found:
                now = {one.track: self._find_hands(rgb, one.body, before.get(one.track, NO_HANDS)) for one in people}
                yield to_people([(one.body, now[one.track], one.face) for one in people], rgb.shape[1::-1])
                before = now

    def _faces(self, frames: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, list[_Followed]]]:
        before: dict[Track, Face | None] = {}
        with closing(prefetch(self._bodies(frames), FOUND_AHEAD)) as found:
            for rgb, bodies in found:
                now = {track: self._find_face(rgb, body, before.get(track)) for track, body in bodies}
                yield rgb, [_Followed(track, body, now[track]) for track, body in bodies]
                before = now

    def _bodies(self, frames: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, list[tuple[Track, Body]]]]:
        track = Tracker(self._find_bodies)
        with closing(prefetch(frames, FRAMES_AHEAD)) as frames:
            for rgb in frames:
                yield rgb, track(rgb)
