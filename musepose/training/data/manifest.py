"""The manifest of a data set, meta.json: a JSON list of clips, each a video with its pose video."""

import json
import os
import re
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
PROGRESS_DELAY = 5  # seconds before a progress bar appears
RATE = re.compile(r"\d{1,12}(\.\d{1,12})?|\d{1,12}/\d{1,12}")  # a Fraction of "1e999999999" takes for ever
LONGEST_NAME = 255  # bytes, of a file or folder
SHOWN = 60  # characters of a wrong value in an error message


@dataclass(frozen=True)
class Clip:
    """A video of one person and its pose video, frame by frame."""

    video: Path
    poses: Path  # the pose video
    keypoints: Path | None  # keypoints of the pose video, see clip_keypoints.py
    frames: int  # of the video, and of the pose video
    rate: Fraction  # frames a second
    width: int  # pixels, of the video
    height: int
    resampling: str | None = None  # of the video, see VideoInfo; older manifests numbered pictures, which is None


def load_manifest(paths: Sequence[str | os.PathLike]) -> list[Clip]:
    """The clips of several manifests, in order. Relative paths start at the manifest's folder.

    Raises UserError: a file is missing or not a manifest, an entry lacks a key or has a wrong value, or there are no
    clips. `check_clip_files` checks the clips' own files.
    """
    clips = [clip for path in paths for clip in _load(Path(path))]
    if not clips:
        names = ", ".join(str(path) for path in paths) or "no manifest given"
        raise UserError(f"there are no clips to train on ({names}): {PREPARE_HINT}")
    return clips


def save_manifest(path: str | os.PathLike, clips: Sequence[Clip]) -> None:
    """Write `clips` to `path`. Paths below its folder become relative. Raises UserError: it cannot be written."""
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
            **({} if clip.resampling is None else {"resampling": clip.resampling}),
        }
        for clip in clips
    ]
    with complete_file(path) as partial:
        partial.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")


def check_clip_files(clips: Sequence[Clip]) -> None:
    """Check that each clip's files exist, and that video and pose video have the stated frames and size.

    Opens every file and decodes as little as possible, about 20 ms a clip. Raises UserError: names the first broken
    clip, and how many there are.
    """
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        checked = threads.map(_clip_error, clips)
        errors = list(progress_bar(checked, desc="checking clips", total=len(clips), unit="clip", delay=PROGRESS_DELAY))
    broken = [(clip, reason) for clip, reason in zip(clips, errors, strict=True) if reason is not None]
    if broken:
        clip, reason = broken[0]
        others = f", nor can {len(broken) - 1} more of {len(clips)} clips" if len(broken) > 1 else ""
        raise UserError(f"{clip.video} cannot be trained on ({reason}){others}: run prepare_dataset.py again")


def _clip_error(clip: Clip) -> str | None:
    """Why the clip cannot be used, or None."""
    if clip.keypoints is not None and not clip.keypoints.is_file():
        return f"{clip.keypoints} is missing"
    try:
        video, poses = probe(clip.video), probe(clip.poses)
    except UserError as error:
        return str(error)
    if video.resampling != clip.resampling:
        return "it was prepared by counting its pictures, which are placed by time now"
    if not clip.frames == video.frames == poses.frames:
        return f"it has {video.frames} frames, its pose video {poses.frames}, and the manifest says {clip.frames}"
    if (video.width, video.height) != (clip.width, clip.height):
        stated = f"{clip.width} x {clip.height}"
        return f"it is {video.width} x {video.height}, and the manifest says {stated}"
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
        raise UserError(f"{path} is not a JSON file ({error}): {PREPARE_HINT}") from None
    if not isinstance(entries, list):
        raise UserError(f"{path} is not a manifest, as it is not a list: {PREPARE_HINT}")
    return [_clip(entry, path, number) for number, entry in enumerate(entries)]


def _clip(entry: object, path: Path, number: int) -> Clip:
    def fail(what: str) -> UserError:
        return UserError(f"{path}, entry {number}, {what}: {PREPARE_HINT}")

    def get(key: str, kind: type) -> object:
        if key not in entry:
            raise fail(f"lacks {key!r}")
        value = entry[key]
        good = isinstance(value, kind) and not isinstance(value, bool)  # True is an int in Python
        if not good or not value or (kind is int and value < 1):
            wanted = "a whole number of at least 1" if kind is int else "a text"
            raise fail(f"has {key!r} {_shown(value)}, not {wanted}")
        return value

    def get_path(key: str) -> Path:
        text = get(key, str)
        if not _can_be_path(text):
            raise fail(f"has {key!r} {_shown(text)}, not a path")
        return path.parent / text

    if not isinstance(entry, dict):
        raise fail("is not a JSON object")
    rate = read_rate(get("rate", str))
    if rate is None:
        raise fail(f"has 'rate' {_shown(entry['rate'])}, not a positive number or a fraction such as '30000/1001'")
    return Clip(
        video=get_path("video_path"),
        poses=get_path("kps_path"),
        keypoints=get_path("keypoints_path") if entry.get("keypoints_path") is not None else None,
        frames=get("frames", int),
        rate=rate,
        width=get("width", int),
        height=get("height", int),
        resampling=get("resampling", str) if entry.get("resampling") is not None else None,
    )


def read_rate(text: str) -> Fraction | None:
    """Frames a second from a text such as "15", "29.97" or "30000/1001"; None if it is no positive number."""
    try:
        rate = Fraction(text) if RATE.fullmatch(text) else Fraction(0)
    except ZeroDivisionError:
        return None
    return rate if rate > 0 else None


def _can_be_path(text: str) -> bool:
    """Whether the operating system takes `text` as a path, of a file that need not exist."""
    try:
        return "\0" not in text and all(len(os.fsencode(part)) <= LONGEST_NAME for part in Path(text).parts)
    except UnicodeEncodeError:  # half a character, which JSON can write
        return False


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
