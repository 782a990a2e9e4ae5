"""Reads videos as frames of a constant rate: properties, frames one by one, single frames."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from musepose.media.color import FrameConverter
from musepose.media.decoding import Picture, decode_pictures
from musepose.media.stored_video import StoredVideo, decode_stored, file_stamp, measure, no_frames, open_video
from musepose.utils.errors import UserError
from musepose.utils.paths import checked_path

if TYPE_CHECKING:
    import av

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".3gp", ".ts", ".mts", ".m2ts", ".flv", ".wmv")
VIDEO_SUFFIXES += (".mpg", ".mpeg")


@dataclass(frozen=True)
class VideoInfo:
    """A video's properties, measured from the stream, because headers may be wrong.

    Frames are those of a constant rate: stored pictures are placed by their time stamps, see docs/alignment.md.
    """

    path: Path
    width: int  # as shown: the rotation flag is applied
    height: int
    frames: int
    rate: Fraction  # frames per second
    has_audio: bool
    resampling: str | None = None  # identifies how pictures became frames; None: each stored picture is one frame
    notes: tuple[str, ...] = ()  # what is unusual about the file, a line each
    stamp: tuple[int, int] | None = None  # size and time of change of the file


def probe(path: str | os.PathLike) -> VideoInfo:
    """Measure the video at `path`.

    Raises UserError if it is missing, empty, truncated, damaged, not a video, or has no frames, or if its rate is
    outside 1/1000 to 1000 frames a second.
    """
    video = measure(path)
    with open_video(video.path, video.stream) as (container, stream):
        first = next((picture for number, picture in decode_stored(container, video) if number == 0), None)
        if first is None:
            raise no_frames(video.path)
        width, height = FrameConverter(first.frame, stream, first.ratio).size
    timeline = video.timeline
    has_audio, more = video.sound_stream is not None, (timeline.resampling, video.notes, video.stamp)
    return VideoInfo(video.path, width, height, timeline.frames, timeline.rate, has_audio, *more)


def read_frames(source: str | os.PathLike | VideoInfo, step: int = 1, count: int | None = None) -> Iterator[np.ndarray]:
    """Stream frames 0, step, 2·step, … of a video, at most `count` of them: RGB uint8 (height, width, 3), as shown.

    A frame whose picture is damaged shows the one before. Raises what `probe` raises; for a `VideoInfo` also if the
    file has changed since it was probed.
    """
    if step < 1 or (count is not None and count < 0):
        raise ValueError(f"step {step} must be at least 1, count {count} at least 0")
    return _read_frames(source, step, slice(0, count))


class VideoFrames:
    """The frames of `read_frames`, as an iterable; `read` gives a part of them without decoding all before it."""

    def __init__(self, source: str | os.PathLike | VideoInfo, step: int, count: int) -> None:
        self._source, self._step, self._count = source, step, count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[np.ndarray]:
        return self.read(range(self._count))

    def read(self, frames: range) -> Iterator[np.ndarray]:
        """Consecutive frames of these, decoded from the last key picture before them where the file allows that."""
        return _read_frames(self._source, self._step, slice(frames.start, min(frames.stop, self._count)))


def read_frames_at(path: str | os.PathLike, numbers: Iterable[int]) -> dict[int, np.ndarray]:
    """Single frames of a video, as from `read_frames`: number → RGB uint8; numbers beyond the end are left out.

    Decodes from the last key picture before each frame, and converts only the requested frames. If time stamps do not
    identify the pictures, it decodes from the start. Raises what `probe` raises.
    """
    video = measure(path)
    wanted = {number: video.timeline.picture(number) for number in numbers if 0 <= number < video.timeline.frames}
    pictures = sorted(set(wanted.values()))
    found = _seek_pictures(video, pictures)
    if len(found) < len(pictures):
        found = _find_pictures(video, pictures)
    return {number: found[picture] for number, picture in wanted.items()}


def measure_unchanged(source: VideoInfo) -> StoredVideo:
    """Raises what `measure` raises, and UserError if the file has changed since it was probed."""
    video = measure(source.path)
    if source.stamp is not None and source.stamp != video.stamp:
        raise _changed(video.path)
    return video


def picture_numbers(source: VideoInfo) -> list[int]:
    """The number of the stored picture that each frame shows."""
    timeline = measure(source.path).timeline
    return [timeline.picture(frame) for frame in range(timeline.frames)]


def list_media(path: str | os.PathLike, suffixes: Sequence[str]) -> list[Path]:
    """The file `path`, or the files in the folder `path` with one of `suffixes`, sorted by name, without hidden ones.

    Raises UserError if `path` does not exist or cannot be read, or if the folder holds no such file.
    """
    path = checked_path(path)
    try:
        if not path.is_dir():
            if not path.exists():
                raise UserError(f"{path} does not exist: check the path")
            return [path]  # whoever opens it refuses what is no regular file
        found = sorted(p for p in path.iterdir() if p.suffix.lower() in suffixes and p.is_file() and p.name[0] != ".")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): check the path and its permissions") from None
    if not found:
        raise UserError(f"{path} holds no {', '.join(suffixes)} file: check the path")
    return found


def _read_frames(source: str | os.PathLike | VideoInfo, step: int, part: slice) -> Iterator[np.ndarray]:
    """The frames `part` of frames 0, step, 2·step, …"""
    video = measure_unchanged(source) if isinstance(source, VideoInfo) else measure(source)
    pictures = [video.timeline.picture(number) for number in range(0, video.timeline.frames, step)[part]]
    shown, picture = -1, None
    with open_video(video.path, video.stream) as (container, stream):
        convert = decoded = None
        if pictures and _key_before(video, pictures[0]):
            convert, decoded = _seek_stored(container, stream, video, pictures[0])
        for wanted, stored in _whole_pictures(decoded or decode_stored(container, video), video, pictures):
            if wanted != shown:
                convert = convert or FrameConverter(stored.frame, stream, stored.ratio)
                shown, picture = wanted, convert(stored.frame, stored.ratio)
                yield picture
            else:
                yield picture.copy()  # the one before may have been changed
    if file_stamp(video.path) != video.stamp:
        raise _changed(video.path)


def _key_before(video: StoredVideo, picture: int) -> int:
    """The last key picture up to `picture`; 0 if decoding has to start with the first."""
    if not video.keys or video.keys[0] != 0:
        return 0
    return video.keys[bisect_right(video.keys, picture) - 1]


def _seek_stored(
    container: av.container.InputContainer, stream: av.VideoStream, video: StoredVideo, picture: int
) -> tuple[FrameConverter, Iterator[tuple[int, Picture]]]:
    """→ the converter that the first picture defines; the pictures from the last whole key picture up to `picture` on.

    The pictures from the first on if seeking leads to none.
    """
    _, start = next(_whole_pictures(decode_stored(container, video), video, [0]))
    convert = FrameConverter(start.frame, stream, start.ratio)
    for key in reversed(video.keys[1 : bisect_right(video.keys, picture)]):
        decoded = decode_from_key(container, stream, video, key)
        if decoded is not None:
            return convert, decoded
    container.seek(video.stamps[0], stream=stream)
    return convert, decode_stored(container, video)


def decode_from_key(
    container: av.container.InputContainer, stream: av.VideoStream, video: StoredVideo, key: int
) -> Iterator[tuple[int, Picture]] | None:
    """The stored pictures from a key picture on; None if it is damaged, or if seeking leads elsewhere."""
    import av

    with suppress(av.error.FFmpegError):  # of a damaged container
        container.seek(video.stamps[key], stream=stream)
        decoded = decode_stored(container, video)
        first = next(decoded, None)
        if first is not None and first[0] == key and first[1].whole:
            return chain([first], decoded)
    return None


def _whole_pictures(
    decoded: Iterator[tuple[int, Picture]], video: StoredVideo, numbers: Iterable[int]
) -> Iterator[tuple[int, Picture]]:
    """For ascending numbers, the last whole picture up to each, with its number."""
    pictures = ((number, picture) for number, picture in decoded if picture.whole)
    current = ahead = next(pictures, None)
    for wanted in numbers:
        while ahead is not None and ahead[0] <= wanted:
            current, ahead = ahead, next(pictures, None)
        if current is None:
            raise no_frames(video.path)
        yield current


def _find_pictures(video: StoredVideo, pictures: Sequence[int]) -> dict[int, np.ndarray]:
    """Pictures of ascending numbers, decoded from the start: number → RGB uint8; a damaged one is the one before."""
    found: dict[int, np.ndarray] = {}
    with open_video(video.path, video.stream) as (container, stream):
        shown = _whole_pictures(decode_stored(container, video), video, [0, *pictures])
        _, start = next(shown)
        convert = FrameConverter(start.frame, stream, start.ratio)
        for number, (_, picture) in zip(pictures, shown, strict=True):
            found[number] = convert(picture.frame, picture.ratio)
    return found


def _seek_pictures(video: StoredVideo, pictures: Sequence[int]) -> dict[int, np.ndarray]:
    """Pictures of ascending numbers, each decoded from its key picture. Stops if seeking is inexact, or at damage."""
    found: dict[int, np.ndarray] = {}
    if not video.keys or video.keys[0] != 0:
        return found
    with open_video(video.path, video.stream) as (container, stream):
        convert, position, decoded = None, -1, iter(())
        for number in sorted({0, *pictures}):  # the first picture defines the size of all
            key = _key_before(video, number)
            if key > position or number <= position:
                container.seek(video.stamps[key], stream=stream)
                decoded = decode_pictures(container, stream)
            picture = _picture_at(video, decoded, number)
            if picture is None or not picture.whole:
                break
            position = number
            convert = convert or FrameConverter(picture.frame, stream, picture.ratio)
            if number in pictures:
                found[number] = convert(picture.frame, picture.ratio)
    return found


def _picture_at(video: StoredVideo, decoded: Iterator[Picture], number: int) -> Picture | None:
    for picture in decoded:
        position = video.number(picture.frame, 0)
        if position is not None and position >= number:
            return picture if position == number else None
    return None


def _changed(path: Path) -> UserError:
    return UserError(f"{path} was changed while it was in use: run again, and leave it alone meanwhile")
