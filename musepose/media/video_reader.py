"""Reads videos: properties measured from the stream, and frames one by one."""

from __future__ import annotations

import math
import os
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from musepose.media.color import FrameConverter
from musepose.media.containers import missing_bytes, open_media, to_fraction
from musepose.media.image import check_file
from musepose.utils.errors import UserError

if TYPE_CHECKING:
    import av

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi")

# Codecs and containers where one packet is one frame, so that frames can be counted without decoding.
ONE_PACKET_ONE_FRAME = {"h264", "hevc", "av1", "vp9", "mpeg4", "prores"}
EXACT_CONTAINERS = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"}


@dataclass(frozen=True)
class VideoInfo:
    """A video's properties, measured from the stream, because headers may be wrong."""

    path: Path
    width: int  # as shown: the rotation flag is applied
    height: int
    frames: int
    rate: Fraction  # frames per second; the average if it varies
    has_audio: bool


def probe(path: str | os.PathLike) -> VideoInfo:
    """Measure the video at `path`.

    Raises UserError if it is missing, empty, truncated, damaged, not a video, or has no frames.
    """
    path = Path(path)
    with _open_video(path) as (container, stream):
        first = next(container.decode(stream), None)
        if first is None:
            raise _no_frames(path)
        width, height = FrameConverter(first, stream).size
        has_audio = any(_is_decodable(audio) for audio in container.streams.audio)
    times = _packet_times(path) or _frame_times(path)
    return VideoInfo(path, width, height, times.count, _rate(times), has_audio)


def read_frames(path: str | os.PathLike, step: int = 1, count: int | None = None) -> Iterator[np.ndarray]:
    """Stream frames 0, step, 2·step, … of a video, at most `count` of them: RGB uint8 (height, width, 3), as shown.

    Applies the display matrix. Colours follow the stream's tags; untagged streams count as BT.601, limited range, which
    is what tools that omit the tags write. Frames are scaled to the first frame's size. Raises what `probe` raises.
    """
    if step < 1 or (count is not None and count < 0):
        raise ValueError(f"step {step} must be at least 1, count {count} at least 0")
    last = math.inf if count is None else step * (count - 1)
    return _read_frames(Path(path), lambda number: number % step == 0, last)


def read_frames_at(path: str | os.PathLike, numbers: Iterable[int]) -> dict[int, np.ndarray]:
    """Single frames of a video, as from `read_frames`: number → RGB uint8; numbers beyond the end are left out.

    Decodes from the last key frame before each number, and converts only the requested frames. If time stamps do not
    determine frame numbers, it decodes from the start. Raises what `probe` raises.
    """
    path, wanted = Path(path), sorted(set(numbers))
    found = _seek_frames(path, wanted)
    if len(found) < len(wanted):
        found = dict(zip(wanted, _read_frames(path, set(wanted).__contains__, wanted[-1]), strict=False))
    return found


def list_media(path: str | os.PathLike, suffixes: Sequence[str]) -> list[Path]:
    """The file `path`, or the files in the folder `path` with one of `suffixes`, sorted by name, without hidden ones.

    Raises UserError if `path` does not exist or cannot be read, or if the folder holds no such file.
    """
    path = Path(path)
    try:
        if path.is_file():
            return [path]
        if not path.is_dir():
            raise UserError(f"{path} does not exist: check the path")
        found = sorted(p for p in path.iterdir() if p.suffix.lower() in suffixes and p.is_file() and p.name[0] != ".")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): check the path and its permissions") from None
    if not found:
        raise UserError(f"{path} holds no {', '.join(suffixes)} file: check the path")
    return found


@contextmanager
def _open_video(path: Path) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """Open the first video stream that is not cover art. FFmpeg errors inside the block become a UserError."""
    check_file(path, "video")
    missing = missing_bytes(path)
    if missing:
        raise UserError(f"{path} is cut off ({missing} bytes are missing): copy or download it again")
    import av

    try:
        with open_media(path) as container:
            streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
            streams = [s for s in streams if _is_decodable(s)]
            if not streams:
                raise UserError(f"{path} holds no video that can be decoded: give another video file")
            streams[0].thread_type = "AUTO"
            yield container, streams[0]
    except av.error.FFmpegError as error:
        raise UserError(f"{path} is damaged or not a video ({error.strerror}): give a whole video file") from None


def _is_decodable(stream: av.stream.Stream) -> bool:
    return stream.codec_context is not None


def _read_frames(path: Path, wanted: Callable[[int], bool], last: float) -> Iterator[np.ndarray]:
    """The frames up to number `last` for which `wanted(number)`."""
    with _open_video(path) as (container, stream):
        convert = None
        for number, frame in enumerate(container.decode(stream)):
            convert = convert or FrameConverter(frame, stream)
            if number > last:
                return
            if wanted(number):
                yield convert(frame)
            if number == last:
                return
        if convert is None:
            raise _no_frames(path)


def _seek_frames(path: Path, wanted: Sequence[int]) -> dict[int, np.ndarray]:
    """Frames of ascending numbers, each decoded from its key frame: number → picture. Stops if seeking is inexact."""
    found: dict[int, np.ndarray] = {}
    with _open_video(path) as (container, stream):
        packets = _packets(container, stream)
        number_of = {
            time: number for number, time in enumerate(sorted(time for time, _ in packets if time is not None))
        }
        keys = sorted(number_of[time] for time, is_key in packets if is_key and time is not None)
        if not keys or keys[0] != 0 or len(number_of) < len(packets):
            return found
        times, convert, position = list(number_of), None, math.inf
        for number in sorted({0, *wanted}):  # the first frame defines the size of all
            if number >= len(times):
                break
            key = keys[bisect_right(keys, number) - 1]
            if key > position or number <= position:
                container.seek(times[key], stream=stream)
                frames = container.decode(stream)
            for frame in frames:
                position = number_of.get(frame.pts, math.inf)
                if position >= number:
                    break
            if position != number:
                break
            convert = convert or FrameConverter(frame, stream)
            if number in wanted:
                found[number] = convert(frame)
    return found


def _no_frames(path: Path) -> UserError:
    return UserError(f"{path} has no frames: give another video")


@dataclass(frozen=True)
class _Times:
    """Number of frames, and times of the first and the last in seconds; None if unknown."""

    count: int
    first: Fraction | None
    last: Fraction | None
    header_rate: Fraction | None  # from the container

    @classmethod
    def of(cls, stamps: list[int | None], stream: av.VideoStream) -> _Times:
        known = (None, None)
        if stamps and None not in stamps:
            time_base = to_fraction(stream.time_base)
            known = (min(stamps) * time_base, max(stamps) * time_base)
        return cls(len(stamps), *known, to_fraction(stream.average_rate) or to_fraction(stream.guessed_rate))


def _packet_times(path: Path) -> _Times | None:
    """Frame times from the packets, without decoding; None if packets are unreliable."""
    with _open_video(path) as (container, stream):
        stamps = [time for time, _ in _packets(container, stream)]
        return _Times.of(stamps, stream) if stamps else None


def _packets(container: av.container.InputContainer, stream: av.VideoStream) -> list[tuple[int | None, bool]]:
    """Each frame's time stamp, and whether it is a key frame; empty if packets are unreliable."""
    if container.format.name not in EXACT_CONTAINERS or stream.codec_context.name not in ONE_PACKET_ONE_FRAME:
        return []
    packets: list[tuple[int | None, bool]] = []
    for packet in container.demux(stream):
        if not packet.size:  # the empty packet that marks the end
            continue
        if packet.is_corrupt or packet.is_discard or not (packets or packet.is_keyframe):
            return []
        packets.append((packet.pts, packet.is_keyframe))
    return packets


def _frame_times(path: Path) -> _Times:
    """Frame times by decoding the whole video."""
    with _open_video(path) as (container, stream):
        return _Times.of([frame.pts for frame in container.decode(stream)], stream)


def _rate(times: _Times) -> Fraction:
    """Frames per second: the container's rate if it agrees with the frame times, else their average.

    Rounded to a fraction with a denominator of at most 1001, which broadcast rates need.
    """
    steps, rate = times.count - 1, times.header_rate
    if steps and times.first is not None and times.last > times.first:
        span = times.last - times.first
        if not rate or abs(span * rate - steps) > Fraction(1, 2):
            rate = steps / span
    return (rate or Fraction(25)).limit_denominator(1001)
