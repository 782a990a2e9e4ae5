"""Measures a video file once: which streams are meant, where its pictures belong in time, how its sound fits them."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from musepose.media.containers import check_video_file, open_media
from musepose.media.decoding import Picture, decode_pictures
from musepose.media.jumps import Clock, find_jumps, has_gap
from musepose.media.packets import NO_STAMP, Contents, Packets, read_contents
from musepose.media.timeline import DEFAULT_RATE, Timeline, place_pictures, repair_stamps, usual_distance
from musepose.utils.errors import UserError, is_out_of_memory

if TYPE_CHECKING:
    import av

MOST_PIXELS = 1 << 26  # 8192 x 8192; the largest cameras have 11520 x 5760
KEPT = 256  # measured files that are remembered
LATE_END = Fraction(1, 4)  # seconds that are missing at the end before it is said


@dataclass(frozen=True)
class StoredVideo:
    """What a video file holds. Stored pictures are numbered in the order of display, from the first whole one."""

    path: Path
    stamp: tuple[int, int]  # size and time of change, which identify the content
    stream: int  # index of the picture stream
    sound_stream: int | None
    stamps: array | None  # ticks of the stored pictures, if these identify them
    skipped: int  # decoded pictures before the first whole one
    damaged_start: int  # pictures before the first whole one that are missing because of damage
    keys: tuple[int, ...]  # numbers of the pictures from which decoding can start; none if unknown
    wait_for_key: bool
    timeline: Timeline
    start: Fraction  # seconds of the container's clock at the first picture
    clock: Clock
    notes: tuple[str, ...]  # what is unusual, a line each

    def number(self, frame: av.VideoFrame, decoded: int) -> int | None:
        """The number of a decoded picture, the `decoded`-th of the file; None if it is none of those counted."""
        if self.stamps is None:
            return decoded - self.skipped if decoded >= self.skipped else None
        if frame.pts is None:
            return None
        place = int(np.searchsorted(np.frombuffer(self.stamps, np.int64), frame.pts))
        return place if place < len(self.stamps) and self.stamps[place] == frame.pts else None


def measure(path: str | os.PathLike) -> StoredVideo:
    """Measure the video at `path`; a file that has not changed is measured once.

    Raises UserError if it is missing, empty, truncated, not a video, has no pictures, or a rate or size beyond reason.
    """
    path = Path(path)
    check_video_file(path)
    return _measure(path, file_stamp(path))


def file_stamp(path: Path) -> tuple[int, int]:
    """Size and time of change."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns


@contextmanager
def open_video(
    path: Path, index: int | None = None
) -> Iterator[tuple[av.container.InputContainer, av.VideoStream | None]]:
    """Open a video and its stream `index`, to be decoded with one thread, see `decode_pictures`.

    FFmpeg's errors inside the block become a UserError.
    """
    import av

    try:
        with open_media(path) as container:
            stream = None if index is None else container.streams[index]
            if stream is not None:
                stream.thread_type, stream.codec_context.thread_count = "NONE", 1
            yield container, stream
    except (MemoryError, av.error.FFmpegError) as error:
        if is_out_of_memory(error):
            raise UserError(f"{path} needs more memory than there is: free some, or raise the limit (ulimit)") from None
        raise UserError(f"{path} is damaged or not a video ({error.strerror}): give a whole video file") from None


@lru_cache(KEPT)
def _measure(path: Path, stamp: tuple[int, int]) -> StoredVideo:
    with open_video(path) as (container, _):
        try:
            contents = read_contents(container)
        except ValueError:
            raise UserError(f"{path} holds no video that can be decoded: give another video file") from None
    if contents is None:
        raise no_frames(path)
    width, height = contents.size
    if width * height > MOST_PIXELS:
        raise UserError(f"{path} is {width} x {height}, which is too large: scale it down to at most 8192 x 8192")
    packets, tick = contents.packets, contents.tick
    usual = max(1, round(1 / ((*contents.rates, DEFAULT_RATE)[0] * tick)))  # ticks
    pictures = _list_pictures(path, contents, usual)
    times = repair_stamps(pictures.stamps, usual)
    clock = _clock(times, contents)
    try:
        timeline = place_pictures(_bridge(times, clock, tick), tick, contents.rates, _last_stays(packets, times, tick))
    except ValueError as error:
        raise UserError(f"{path} has a rate of {error}: give a video of 1/1000 to 1000") from None
    missing = _missing_end(contents, max(times) * tick + 1 / timeline.rate)
    return StoredVideo(
        path=path,
        stamp=stamp,
        stream=contents.stream,
        sound_stream=contents.sound,
        stamps=array("q", pictures.stamps) if pictures.identified else None,
        skipped=pictures.skipped,
        damaged_start=pictures.damaged_start,
        keys=_key_numbers(packets, pictures.stamps) if pictures.identified and contents.exact else (),
        wait_for_key=_begins_between_keys(packets),
        timeline=timeline,
        start=times[0] * tick,
        clock=clock,
        notes=_notes(
            path.name, timeline, clock, pictures, missing, _missing_start(contents, times[0] * tick), contents.whole
        ),
    )


def decode_stored(container: av.container.InputContainer, video: StoredVideo) -> Iterator[tuple[int, Picture]]:
    """The stored pictures of an opened video with their numbers, ascending; pictures that do not decode are missing."""
    stream = container.streams[video.stream]
    by_stamp = video.stamps is not None
    top = -1
    for decoded, picture in enumerate(decode_pictures(container, stream, video.wait_for_key, by_stamp)):
        number = video.number(picture.frame, decoded)
        if number is not None and number > top:
            top = number
            yield number, picture


def no_frames(path: Path) -> UserError:
    """The error for a video without pictures."""
    return UserError(f"{path} has no frames: give another video")


@dataclass(frozen=True)
class _Pictures:
    """The pictures of a stream from the first whole one on."""

    stamps: Sequence[int | None]  # ticks, in the order of display
    identified: bool  # the stamps are all known and ascending
    skipped: int = 0  # decoded pictures before them
    early: int = 0  # packets before the first key picture
    damaged_start: int = 0  # pictures behind it, before the first whole one


def _list_pictures(path: Path, contents: Contents, usual: int) -> _Pictures:
    """From the packets where one packet is one picture and the stamps are regular; else all pictures are decoded."""
    packets = contents.packets
    wait = _begins_between_keys(packets)
    in_order = packets.in_order_of_display() if contents.exact else None
    if in_order is not None and not has_gap(in_order, contents.tick, usual):
        first = _first_whole(path, contents.stream, wait)
        if first in in_order:
            place = in_order.index(first)
            early = sum(stamp < packets.stamps[0] for stamp in in_order[:place])
            return _Pictures(in_order[place:], True, early=early, damaged_start=place - early)
    stamps, skipped = _stamps_by_decoding(path, contents.stream, wait)
    if contents.counted and len(stamps) + skipped == len(packets) and NO_STAMP not in packets.decoded:
        stamps = sorted(packets.decoded)[skipped:]
        return _Pictures(stamps, False, skipped, *((skipped, 0) if wait else (0, skipped)))
    identified = None not in stamps and all(a < b for a, b in zip(stamps, stamps[1:], strict=False))
    early = max(0, len(packets) - len(stamps)) if wait else 0
    return _Pictures(stamps, identified, skipped, early, 0 if wait else skipped)


def _begins_between_keys(packets: Packets) -> bool:
    return not packets.keys[0] and any(packets.keys)


def _first_whole(path: Path, index: int, wait: bool) -> int | None:
    """The time stamp of the first whole picture."""
    with open_video(path, index) as (container, stream):
        for picture in decode_pictures(container, stream, wait, True):
            if picture.whole:
                return picture.frame.pts
    raise _all_damaged(path)


def _stamps_by_decoding(path: Path, index: int, wait: bool) -> tuple[list[int | None], int]:
    """Time stamps of all pictures from the first whole one on, and how many come before it."""
    stamps: list[int | None] = []
    skipped = 0
    with open_video(path, index) as (container, stream):
        for picture in decode_pictures(container, stream, wait):
            if stamps or picture.whole:
                stamps.append(picture.frame.pts)
            else:
                skipped += 1
    if not stamps:
        raise _all_damaged(path)
    return stamps, skipped


def _all_damaged(path: Path) -> UserError:
    return UserError(f"{path} is damaged, as none of its pictures can be decoded: give a whole video file")


def _clock(times: Sequence[int], contents: Contents) -> Clock:
    usual = usual_distance(times)
    if NO_STAMP in contents.sound_packets.stamps:
        return find_jumps(times, contents.tick, usual)
    return find_jumps(times, contents.tick, usual, contents.sound_packets.stamps, contents.sound_tick)


def _bridge(times: Sequence[int], clock: Clock, tick: Fraction) -> list[int]:
    """Ascending times without the clock's jumps."""
    bridged, removed, jumps = [], 0, {jump.picture: round(jump.seconds / tick) for jump in clock.jumps}
    for number, time in enumerate(times):
        removed += jumps.get(number, 0)
        bridged.append(time - removed)
    return bridged


def _last_stays(pictures: Packets, times: Sequence[int], tick: Fraction) -> Fraction:
    """Seconds for which the last picture stays, if the container says that it stays long."""
    last = pictures.stamps[-1]
    if last != times[-1] or last != max(pictures.stamps):
        return Fraction(0)  # with B pictures, durations are those of the order of decoding
    stays = pictures.durations[-1] * tick
    return stays if LATE_END < stays <= 10 and stays > 2 * usual_distance(times) * tick else Fraction(0)


def _key_numbers(pictures: Packets, stamps: Sequence[int]) -> tuple[int, ...]:
    """Numbers of the pictures that are key packets."""
    keys = {stamp for stamp, key in zip(pictures.stamps, pictures.keys, strict=True) if key}
    return tuple(number for number, stamp in enumerate(stamps) if stamp in keys)


def _missing_end(contents: Contents, end: Fraction) -> Fraction:
    """Seconds by which the pictures, or where that is unknown everything, end before the container says."""
    if contents.end is not None or contents.duration is None:
        return Fraction(0) if contents.end is None else contents.end - end
    sound = [stamp for stamp in contents.sound_packets.stamps if stamp != NO_STAMP]
    return contents.duration - max([end, *(stamp * contents.sound_tick for stamp in sound[-1:])])


def _missing_start(contents: Contents, start: Fraction) -> Fraction:
    """Seconds by which picture and sound of a Matroska file begin late; they begin at 0."""
    if contents.duration is None:
        return Fraction(0)
    return min([start, *(stamp * contents.sound_tick for stamp in contents.sound_packets.stamps[:1])])


def _notes(
    name: str,
    timeline: Timeline,
    clock: Clock,
    pictures: _Pictures,
    missing: Fraction,  # seconds by which the pictures end before the container says
    before: Fraction,  # seconds by which everything begins late
    whole: bool,  # whether the container could be read to its end
) -> tuple[str, ...]:
    notes = []
    if pictures.early:
        notes.append(f"{name} begins between key frames: its first {pictures.early} pictures are left out")
    if pictures.damaged_start:
        notes.append(f"warning: {name} is damaged: its first {pictures.damaged_start} pictures are left out")
    for jump in clock.jumps:
        kind = "jumps by" if jump.seconds > 0 else "is set back by"
        at = float(int(timeline.slots[jump.picture]) / timeline.rate)
        notes.append(f"{name}: its clock {kind} {abs(float(jump.seconds)):.1f} s after {at:.1f} s, which is bridged")
    if timeline.resampling is not None:
        into = f"{timeline.frames} frames, {float(timeline.rate):.6g} a second"
        notes.append(f"{name}: its {len(timeline.slots)} pictures, of a variable rate or with gaps, become {into}")
    if before > LATE_END and not pictures.early:
        notes.append(
            f"{name} begins at {float(before):.1f} s of its own clock: what came before was cut off, or is lost"
        )
    steady = timeline.resampling is None
    if missing > (Fraction(3, 2) / timeline.rate if steady else max(LATE_END, 3 / timeline.rate)) or not whole:
        ends = float(timeline.frames / timeline.rate)
        lost = f", {float(missing):.1f} s earlier than it says" if missing > 0 else ""
        notes.append(f"warning: {name} is damaged: its pictures end after {ends:.1f} s{lost}")
    return tuple(notes)
