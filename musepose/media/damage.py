"""Which frames of a video are damaged, found by decoding all of it; several processes decode a stretch each."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count as count_from
from itertools import pairwise
from pathlib import Path

from musepose.media.stored_video import StoredVideo, decode_stored, open_video
from musepose.media.video_reader import VideoInfo, decode_from_key, measure_unchanged
from musepose.utils.errors import UserError

MOST_NAMED = 5  # runs of damaged frames in a line


@dataclass(frozen=True)
class UsedVideo:
    """A video file, of which the first frames are used."""

    stored: StoredVideo
    frames: int
    pictures: int  # stored pictures that these frames show

    @classmethod
    def of(cls, source: VideoInfo, count: int | None = None) -> UsedVideo:
        """`count`: how many frames are used at most. Raises UserError: the file has changed since it was probed."""
        stored = measure_unchanged(source)
        frames = stored.timeline.frames if count is None else min(count, stored.timeline.frames)
        return cls(stored, frames, stored.timeline.picture(frames - 1) + 1)

    @property
    def cuts(self) -> list[int]:
        """Pictures with which a stretch may begin: the first, and key pictures where the file allows seeking."""
        keys = self.stored.keys
        return [key for key in keys if key < self.pictures] if keys and keys[0] == 0 else [0]


@dataclass(frozen=True)
class Seen:
    """What decoding a stretch of a video's pictures has shown."""

    pictures: range
    damaged: tuple[int, ...]
    next_whole: bool  # whether the picture behind them is whole, as decoded on; unknown behind the last one in use


def damaged_frames(source: VideoInfo, count: int | None = None) -> list[int]:
    """Which of the first `count` frames show the one before, because their own picture is damaged. Decodes them all.

    Raises UserError if fewer than half of them are whole, or if the file has changed since it was probed.
    """
    used = UsedVideo.of(source, count)
    return judge(used, [look(used, range(used.pictures))])


def divide(videos: Sequence[UsedVideo], count: int) -> list[list[tuple[int, range]]]:
    """Divide the pictures of all videos over `count` processes. → for each: places of videos, and stretches of them.

    Stretches begin at cuts, so that a share is longer than the average by less than the distance between two cuts.
    """
    ends = [0]
    for used in videos:
        ends.append(ends[-1] + used.pictures)
    cuts = [end + cut for end, used in zip(ends, videos, strict=False) for cut in used.cuts]
    starts = [cuts[bisect_right(cuts, ends[-1] * rank // count) - 1] for rank in range(count)]
    shares = []
    for start, stop in pairwise([*starts, ends[-1]]):
        parts = [range(max(start, first) - first, min(stop, end) - first) for first, end in pairwise(ends)]
        shares.append([(place, part) for place, part in enumerate(parts) if part])
    return shares


def look(used: UsedVideo, pictures: range) -> Seen:
    """Decode a stretch that begins at a cut, from the last key picture on that is whole when it is decoded first.

    Raises UserError: the file cannot be read.
    """
    whole, next_whole = set(), False
    for start in [cut for cut in reversed(used.cuts) if cut <= pictures.start]:
        with open_video(used.stored.path, used.stored.stream) as (container, stream):
            whole_file = decode_stored(container, used.stored)
            decoded = decode_from_key(container, stream, used.stored, start) if start else whole_file
            if decoded is None:
                continue
            for number, picture in decoded:
                if number >= pictures.stop:
                    next_whole = number == pictures.stop and picture.whole
                    break
                if picture.whole:
                    whole.add(number)
            break
    return Seen(pictures, tuple(number for number in pictures if number not in whole), next_whole)


def fit(stretches: Sequence[Seen]) -> bool:
    """Whether each stretch of a video begins as the one before, which was decoded on, has seen it."""
    return all(one.next_whole == (other.pictures.start not in other.damaged) for one, other in pairwise(stretches))


def judge(used: UsedVideo, stretches: Sequence[Seen]) -> list[int]:
    """→ the damaged frames. Raises UserError: fewer than half of the pictures are whole."""
    damaged = {number for one in stretches for number in one.damaged}
    whole, pictures = used.pictures - len(damaged), used.pictures + used.stored.damaged_start
    if 2 * whole < pictures:
        told = f"{used.stored.path} is damaged: only {whole} of {pictures} pictures can be decoded"
        raise UserError(f"{told}: copy it again, or repair it")
    return [number for number in range(used.frames) if used.stored.timeline.picture(number) in damaged]


def describe_damage(path: Path, damaged: Sequence[int]) -> str:
    """A line that names the damaged frames."""
    starts = [number for place, number in enumerate(damaged) if place == 0 or damaged[place - 1] != number - 1]
    among = set(damaged)
    runs = [(start, next(n for n in count_from(start) if n + 1 not in among)) for start in starts[:MOST_NAMED]]
    named = ", ".join(str(a) if a == b else f"{a} to {b}" for a, b in runs)
    named += ", …" if len(starts) > MOST_NAMED else ""
    what = "1 frame is damaged" if len(damaged) == 1 else f"{len(damaged)} frames are damaged"
    return f"warning: {path}: {what} and left out, the one before is shown instead: {named}"
