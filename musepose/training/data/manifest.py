"""What a data set consists of: a JSON list of videos with their pose videos, written once and read by both stages."""

import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from musepose.media.video_reader import probe
from musepose.utils.errors import UserError
from musepose.utils.files import complete_file, require_file
from musepose.utils.progress import progress_bar

PREPARE_HINT = "make it with python prepare_dataset.py"
SILENT = 5  # seconds before a progress bar appears


@dataclass(frozen=True)
class Clip:
    """One video of one person, and the drawing of its poses, frame by frame."""

    video: Path
    poses: Path  # the pose video
    keypoints: Path | None  # what the poses were drawn from, see clip_keypoints.py
    frames: int  # of the video, and of the pose video
    rate: Fraction  # frames a second
    width: int  # pixels, of the video
    height: int


def load_meta(paths: Sequence[str | os.PathLike]) -> list[Clip]:
    """The clips of some meta files, one after another. Relative paths in them count from the meta file's folder.

    Raises UserError where a file is missing or no meta file, an entry lacks something or holds a wrong value, or there
    is no clip at all. Whether the clips' own files are there, `check_clips` tells.
    """
    clips = [clip for path in paths for clip in _load(Path(path))]
    if not clips:
        names = ", ".join(str(path) for path in paths) or "no meta file given"
        raise UserError(f"there are no clips to train on ({names}): {PREPARE_HINT}")
    return clips


def save_meta(path: str | os.PathLike, clips: Sequence[Clip]) -> None:
    """Write `clips` to `path`, with paths relative to its folder where they lie below it.

    Raises UserError where it cannot be written.
    """
    folder = Path(path).resolve().parent
    entries = [
        {
            "video_path": _relative(clip.video, folder),
            "kps_path": _relative(clip.poses, folder),
            "keypoints_path": None if clip.keypoints is None else _relative(clip.keypoints, folder),
            "frames": clip.frames,
            "rate": str(clip.rate),
            "width": clip.width,
            "height": clip.height,
        }
        for clip in clips
    ]
    with complete_file(path) as partial:
        partial.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")


def check_clips(clips: Sequence[Clip]) -> None:
    """See that each clip's files are there, and that video and pose video have the frames and the shape stated.

    Goes through every file, but decodes no more than it must: some 20 ms a clip. Raises UserError with the first broken
    clip, and how many there are.
    """
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        checked = threads.map(_fault, clips)
        faults = list(progress_bar(checked, desc="checking clips", total=len(clips), unit="clip", delay=SILENT))
    broken = [(clip, reason) for clip, reason in zip(clips, faults, strict=True) if reason is not None]
    if broken:
        clip, reason = broken[0]
        others = f", and so are {len(broken) - 1} more of {len(clips)} clips" if len(broken) > 1 else ""
        raise UserError(f"{clip.video} cannot be trained on ({reason}){others}: run prepare_dataset.py again")


def _fault(clip: Clip) -> str | None:
    """What is wrong with a clip, or None."""
    if clip.keypoints is not None and not clip.keypoints.is_file():
        return f"{clip.keypoints} is missing"
    try:
        video, poses = probe(clip.video), probe(clip.poses)
    except UserError as error:
        return str(error)
    if not clip.frames == video.frames == poses.frames:
        return f"it has {video.frames} frames, its pose video {poses.frames}, and the meta file says {clip.frames}"
    if (video.width, video.height) != (clip.width, clip.height):
        stated = f"{clip.width} x {clip.height}"
        return f"it is {video.width} x {video.height}, and the meta file says {stated}"
    return None


def _relative(path: Path, folder: Path) -> str:
    path = path.resolve()
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)


def _load(path: Path) -> list[Clip]:
    require_file(path, PREPARE_HINT)
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): check the path and its permissions") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no JSON file ({error}): {PREPARE_HINT}") from None
    if not isinstance(entries, list):
        raise UserError(f"{path} is no meta file, as it holds no list: {PREPARE_HINT}")
    return [_clip(entry, path, number) for number, entry in enumerate(entries)]


def _clip(entry: object, path: Path, number: int) -> Clip:
    def fail(what: str) -> UserError:
        return UserError(f"{path}, entry {number}, {what}: {PREPARE_HINT}")

    def get(key: str, kind: type) -> object:
        if key not in entry:
            raise fail(f"lacks {key!r}")
        value = entry[key]
        good = isinstance(value, kind) and not isinstance(value, bool)  # to Python, True is the number 1
        if not good or not value or (kind is int and value < 1):
            wanted = "a whole number from 1 on" if kind is int else "a text"
            raise fail(f"has {key!r} {value!r}, not {wanted}")
        return value

    if not isinstance(entry, dict):
        raise fail("is no object")
    try:
        rate = Fraction(get("rate", str))
    except (ValueError, ZeroDivisionError):
        rate = Fraction(0)
    if rate <= 0:
        raise fail(f"has 'rate' {entry['rate']!r}, not a number above 0 or a fraction such as '30000/1001'")
    keypoints = get("keypoints_path", str) if entry.get("keypoints_path") is not None else None
    return Clip(
        video=path.parent / get("video_path", str),
        poses=path.parent / get("kps_path", str),
        keypoints=None if keypoints is None else path.parent / keypoints,
        frames=get("frames", int),
        rate=rate,
        width=get("width", int),
        height=get("height", int),
    )
