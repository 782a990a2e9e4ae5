"""Keypoint files: one person's detected keypoints in a picture and in a video. Detect once, align many times."""

import hashlib
import math
import os
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from musepose.media.image import check_file
from musepose.pose.types import BODY_AND_FEET, KEYPOINTS
from musepose.utils.errors import UserError, one_line
from musepose.utils.files import complete_file

FORMAT = "musepose keypoints 1"
MOST_ROWS = 1_000_000  # frames, nine hours of video
BYTES_A_ROW = KEYPOINTS * 2 * 8
LONGEST_TEXT = 8192 * 4  # bytes
FARTHEST = 10.0  # pictures; no detector finds a joint so far outside, and drawing it takes for ever

# What numpy and zipfile raise on damaged files.
NPZ_ERRORS = (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, SyntaxError, MemoryError)
NPZ_ERRORS += (RuntimeError, zipfile.BadZipFile, zlib.error, tokenize.TokenError)


@dataclass(frozen=True)
class Source:
    """The picture or video that keypoints were detected in: the digest identifies it, the name is for messages."""

    name: str
    sha256: str  # of the file's bytes

    @classmethod
    def of(cls, path: Path) -> "Source":
        digest = hashlib.sha256()
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        return cls(path.name, digest.hexdigest())


@dataclass(frozen=True)
class Keypoints:
    """One person's keypoints in n pictures; a row is all zeros where the person was not found."""

    points: np.ndarray  # (n, 133, 2) float32, x and y as fractions of the picture's width and height
    scores: np.ndarray  # (n, 133) float32
    # Of detectors that know more than the picture's plane, as in People:
    depth: np.ndarray | None = None  # (n, 133) float32, picture widths
    metres: np.ndarray | None = None  # (n, 23, 3) float32


@dataclass(frozen=True)
class KeypointFile:
    """The content of a keypoint file."""

    image: Source
    image_keypoints: Keypoints  # n = 1
    video: Source
    video_keypoints: Keypoints  # one row per frame, starting at frame `video_first`
    detect_resolution: int  # pixels, short side of what the networks saw
    detector: str = "dwpose"  # which one found them; older files do not say
    limb_scale: str = ""  # text of --limb_scale for this picture and video
    video_first: int = 0  # frame of the video in the first row
    resampling: str | None = None  # of the video, see VideoInfo; older files numbered pictures, which is None


def save_keypoints(path: str | os.PathLike, content: KeypointFile) -> None:
    """Write `content` to `path`, which appears only when complete. Raises UserError if it cannot be written."""
    arrays = {
        "format": FORMAT,
        "detect_resolution": content.detect_resolution,
        "detector": content.detector,
    }
    more = {"limb_scale": content.limb_scale, "video_first": content.video_first, "resampling": content.resampling}
    arrays |= {name: value for name, value in more.items() if value}  # older programs know files without
    for part in ("image", "video"):
        source, keypoints = getattr(content, part), getattr(content, f"{part}_keypoints")
        arrays |= {f"{part}_name": source.name, f"{part}_sha256": source.sha256}
        arrays |= keypoint_arrays(keypoints, part)
    with complete_file(path) as partial, open(partial, "wb") as file:
        np.savez_compressed(file, **arrays)


def load_keypoints(path: str | os.PathLike, most_rows: int = MOST_ROWS) -> KeypointFile:
    """Read a file of `save_keypoints`. Raises UserError if it is missing, damaged, or of another format.

    A file with more than `most_rows` frames is refused before it is unpacked.
    """
    with open_arrays(Path(path), FORMAT, "write it again with --save_keypoints", most_rows) as arrays:
        content = KeypointFile(
            read_source(arrays, "image"),
            read_keypoints(arrays, "image"),
            read_source(arrays, "video"),
            read_keypoints(arrays, "video"),
            int(arrays["detect_resolution"]),
            read_detector(arrays),
            str(arrays["limb_scale"]) if "limb_scale" in arrays else "",
            int(arrays["video_first"]) if "video_first" in arrays else 0,
            str(arrays["resampling"]) if "resampling" in arrays else None,
        )
        if content.video_first < 0:
            raise ValueError(f"its first frame is {content.video_first}")
        if len(content.image_keypoints.points) != 1:
            raise ValueError("it holds several pictures")
    return content


@contextmanager
def open_arrays(
    path: Path, file_format: str, remedy: str, most_rows: int = MOST_ROWS
) -> Iterator[np.lib.npyio.NpzFile]:
    """Open the arrays of a file of this format. Read errors inside the block become a UserError with `remedy`."""
    check_file(path, "keypoint")
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("not an .npz file")
        _check_sizes(path, most_rows)
        with np.load(path, allow_pickle=False) as arrays:
            if str(arrays["format"]) != file_format:
                raise ValueError(f"its format is {str(arrays['format'])!r}, expected {file_format!r}")
            yield arrays
    except NPZ_ERRORS as error:
        reason = one_line(error, 200) or type(error).__name__
        raise UserError(f"{path} is not a complete keypoint file ({reason}): {remedy}") from None


def _check_sizes(path: Path, most_rows: int) -> None:
    """Raises ValueError: an array would be larger unpacked than such files are. Reads the headers only."""
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            with archive.open(name) as file:
                version = np.lib.format.read_magic(file)
                if version not in readers:
                    raise ValueError(f"{name} has an unknown header")
                shape, _, kind = readers[version](file)
            size = math.prod(shape) * kind.itemsize
            if size > (most_rows * BYTES_A_ROW if shape else LONGEST_TEXT) or (shape and shape[0] > most_rows):
                raise ValueError(f"{name} holds {size} bytes, too many")


def read_source(arrays: np.lib.npyio.NpzFile, part: str) -> Source:
    return Source(str(arrays[f"{part}_name"]), str(arrays[f"{part}_sha256"]))


def read_detector(arrays: np.lib.npyio.NpzFile) -> str:
    return str(arrays["detector"]) if "detector" in arrays else "dwpose"


def keypoint_arrays(keypoints: Keypoints, part: str) -> dict[str, np.ndarray]:
    """The arrays that `read_keypoints` reads."""
    arrays = {"keypoints": keypoints.points, "scores": keypoints.scores}
    arrays |= {"depth": keypoints.depth, "metres": keypoints.metres}
    return {f"{part}_{name}": array.astype(np.float32) for name, array in arrays.items() if array is not None}


def read_keypoints(arrays: np.lib.npyio.NpzFile, part: str) -> Keypoints:
    points, scores = arrays[f"{part}_keypoints"], arrays[f"{part}_scores"]
    if points.shape != (len(scores), KEYPOINTS, 2) or scores.shape != (len(points), KEYPOINTS):
        raise ValueError(f"{part} keypoints have the shapes {points.shape} and {scores.shape}")
    if not (np.issubdtype(points.dtype, np.floating) and np.issubdtype(scores.dtype, np.floating)):
        raise ValueError(f"{part} keypoints have the types {points.dtype} and {scores.dtype}")
    if not (np.isfinite(points).all() and np.isfinite(scores).all()):
        raise ValueError(f"{part} keypoints are not all finite")
    farthest = np.abs(points).max(initial=0)
    if farthest > FARTHEST:
        raise ValueError(f"one of the {part} keypoints lies {farthest:.3g} pictures away")
    shapes = {"depth": (KEYPOINTS,), "metres": (BODY_AND_FEET, 3)}
    more = {name: arrays[f"{part}_{name}"] for name in shapes if f"{part}_{name}" in arrays}
    for name, array in more.items():
        if array.shape != (len(points), *shapes[name]) or not np.isfinite(array).all():
            raise ValueError(f"{part} {name} of the shape {array.shape}, or not finite")
    return Keypoints(points, scores, **more)
