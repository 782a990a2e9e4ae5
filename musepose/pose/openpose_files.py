"""Files of OpenPose JSON: a folder with one a frame, or one with a list of frames."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from musepose.media.image import check_file
from musepose.pose.keypoint_file import FARTHEST
from musepose.pose.openpose import Frame, frame_from_json, frame_to_json, to_wholebody
from musepose.pose.types import BODY, KEYPOINTS, VISIBLE_SCORE, People, Pose
from musepose.utils.errors import UserError, one_line
from musepose.utils.files import check_writable

SUFFIX = "_keypoints.json"
_NUMBER = re.compile(r"(\d+)(?:_keypoints)?\.json$", re.IGNORECASE)
LARGEST_FRACTION = 2.0  # coordinates that are all below are fractions; people may stand half out of the picture
MOST_STRETCHED = 1.15  # a small canvas, its sides rounded to multiples of 64, may differ so much from the video's shape
PARTS = ("body", "face", "hands")
LARGEST_FILE = 10**9  # bytes; a minute of video has about 10 MB
REMEDY = "write it anew"


def is_openpose(path: Path | None) -> bool:
    """Whether keypoints at `path` are OpenPose's: a folder, or a file called .json."""
    return path is not None and (path.is_dir() or path.suffix.lower() == ".json")


def read_people(path: Path, size: tuple[int, int]) -> list[People]:
    """Everybody with a visible body in each frame, of a picture or video of this width and height.

    `path`: a folder with a file a frame, whose names end in the frame's number; or a file with a list of frames, or
    with one frame. Coordinates may be pixels of the canvas (without one, of the video itself) or fractions of it; body,
    faces and hands may differ in that. Raises UserError where something is missing, damaged, or of another shape.
    """
    files = _frame_files(path) if path.is_dir() else [path]
    contents = [(file, _load(file)) for file in files]
    if not path.is_dir() and isinstance(contents[0][1], list):
        contents = [(path, content) for content in contents[0][1]]
    frames: list[Frame] = []
    for number, (file, content) in enumerate(contents):
        try:
            frames.append(frame_from_json(content))
        except ValueError as error:
            _refuse(file, str(error) if path.is_dir() else f"frame {number}: {error}")
        _check_shape(file, frames[-1], size)
    if not frames:
        _refuse(path, "it holds no frame")
    in_pixels = {part: _in_pixels(frames, part) for part in PARTS}
    found = [_people(frame, in_pixels, size) for frame in frames]
    for people, (file, _) in zip(found, contents, strict=True):
        seen = np.abs(people.keypoints[people.scores > 0]).max(initial=0)
        if not seen <= FARTHEST:
            _refuse(file, f"a point lies {seen:.3g} pictures away")
        np.clip(people.keypoints, -FARTHEST, FARTHEST, out=people.keypoints)  # hidden points
    return found


def write_frames(
    folder: Path,
    name: str,
    frames: Iterable[Sequence[Pose]],
    size: tuple[int, int],  # width, height of the canvas in pixels
    numbered: bool = True,
) -> None:
    """Write a file for each frame's poses into a new folder, named as OpenPose names them for a video of this name."""
    folder.mkdir()
    for number, poses in enumerate(frames):
        middle = f"_{number:012d}" if numbered else ""
        text = json.dumps(frame_to_json(poses, *size), separators=(",", ":"))
        (folder / f"{name}{middle}{SUFFIX}").write_text(text, encoding="utf-8")


def check_replaceable(folder: Path, parts: Sequence[str]) -> None:
    """Raises UserError: the output folder cannot be written, or holds anything but such files in these sub-folders."""
    check_writable(folder, folder=True)
    for file in folder.rglob("*"):
        where = file.relative_to(folder)
        ours = str(where) in parts if file.is_dir() else str(where.parent) in parts and file.name.endswith(SUFFIX)
        if not ours:
            raise UserError(f"{folder} is to be replaced, but it holds {where}: give a new folder")


def _frame_files(folder: Path) -> list[Path]:
    """The folder's files in the order of the numbers at the end of their names; none may be missing between them."""
    files = [file for file in folder.iterdir() if file.suffix.lower() == ".json" and file.is_file()]
    if not files:
        raise UserError(f"{folder} holds no .json file: give a folder of OpenPose JSON, a file a frame")
    numbers = {file: match and int(match[1]) for file in files for match in [_NUMBER.search(file.name)]}
    if len(files) == 1:
        return files
    for file, number in sorted(numbers.items()):
        if number is None:
            raise UserError(f"{file} has no frame number at the end of its name: keep other files out of this folder")
    number, times = Counter(numbers.values()).most_common(1)[0]
    if times > 1:
        raise UserError(f"{folder} holds {times} files with the number {number}: give one video's files only")
    missing = set(range(min(numbers.values()), max(numbers.values()))) - set(numbers.values())
    if missing:
        raise UserError(f"{folder} holds no file with the number {min(missing)}: give a file for each frame")
    return sorted(files, key=numbers.__getitem__)


def _load(file: Path) -> Any:
    check_file(file, "keypoint")
    if file.stat().st_size > LARGEST_FILE:
        _refuse(file, "it is larger than 1 GB")
    try:
        return json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        _refuse(file, one_line(error, 200) or type(error).__name__)


def _refuse(file: Path, reason: str) -> NoReturn:
    raise UserError(f"{file} is no whole OpenPose JSON ({reason}): {REMEDY}") from None


def _check_shape(file: Path, frame: Frame, size: tuple[int, int]) -> None:
    if frame.canvas is None:
        return
    stretched = (frame.canvas[0] / frame.canvas[1]) / (size[0] / size[1])
    if max(stretched, 1 / stretched) > MOST_STRETCHED:
        canvas = " x ".join(f"{side:.0f}" for side in frame.canvas)
        told = f"{file} has a canvas of {canvas}, of another shape than what it is for, {size[0]} x {size[1]}"
        raise UserError(f"{told}: give the keypoints of that very picture or video, not cropped")


def _in_pixels(frames: list[Frame], part: str) -> bool:
    """Whether the coordinates of "body", "face" or "hands" are pixels, in all frames alike, or fractions."""
    points = (getattr(frame, part) for frame in frames)
    largest = (np.abs(some[some[..., 2] > 0, :2]).max(initial=0) for some in points)
    return max(largest) > LARGEST_FRACTION


def _people(frame: Frame, in_pixels: dict[str, bool], size: tuple[int, int]) -> People:
    """Those of a frame who have a visible body."""
    unit = {part: [*(frame.canvas or size), 1] if pixels else [1, 1, 1] for part, pixels in in_pixels.items()}
    parts = [getattr(frame, part) / unit[part] for part in PARTS]
    points = np.array([to_wholebody(*person) for person in zip(*parts, strict=True)]).reshape(-1, KEYPOINTS, 3)
    points = points[(points[:, BODY, 2] > VISIBLE_SCORE).any(axis=1)]
    boxes = np.zeros((len(points), 4))
    for box, person in zip(boxes, points[:, BODY], strict=True):
        seen = person[person[:, 2] > VISIBLE_SCORE, :2] * size
        box[:] = *seen.min(axis=0), *seen.max(axis=0)
    return People(boxes, np.ones(len(points)), points[..., :2], points[..., 2], size=size)
