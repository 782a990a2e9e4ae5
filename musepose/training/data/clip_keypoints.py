"""Keypoint file of a training clip: one person's keypoints in every frame, from which its pose video is drawn."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from musepose.pose.keypoint_file import (
    Keypoints,
    Source,
    keypoint_arrays,
    open_arrays,
    read_detector,
    read_keypoints,
    read_source,
)
from musepose.utils.files import complete_file

FORMAT = "musepose clip keypoints 1"


@dataclass(frozen=True)
class ClipKeypoints:
    """Content of the file."""

    video: Source
    keypoints: Keypoints  # one row a frame
    detect_resolution: int  # pixels, short side of what the networks saw; 0: the points are true, none were detected
    detector: str = "dwpose"  # which one found them; older files do not say


def save_clip_keypoints(path: str | os.PathLike, content: ClipKeypoints) -> None:
    """Write `content` to `path` atomically. Raises UserError: the file cannot be written."""
    arrays = {
        "format": FORMAT,
        "video_name": content.video.name,
        "video_sha256": content.video.sha256,
        "detect_resolution": content.detect_resolution,
        "detector": content.detector,
    }
    arrays |= keypoint_arrays(content.keypoints, "video")
    with complete_file(path) as partial, open(partial, "wb") as file:
        np.savez_compressed(file, **arrays)


def load_clip_keypoints(path: str | os.PathLike) -> ClipKeypoints:
    """Read a file of `save_clip_keypoints`. Raises UserError: missing, damaged, or another kind of file."""
    with open_arrays(Path(path), FORMAT, "delete it and prepare its video again") as arrays:
        return ClipKeypoints(
            read_source(arrays, "video"),
            read_keypoints(arrays, "video"),
            int(arrays["detect_resolution"]),
            read_detector(arrays),
        )
