"""Finds where a recording's clock jumps, from the time stamps of picture and sound. Pure arithmetic: opens no file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

LEAST_GAP = Fraction(1, 2)  # seconds between pictures that may be a jump
SOUND_GAP = 0.25  # seconds between the end of a sound packet and the start of the next
SILENT_GAP = 10.0  # seconds without picture and sound that count as a jump
LATE = 0.5  # seconds by which sound may begin before the pictures behind a jump
FAR = 5.0  # seconds; a step back is one clock's if picture and sound differ by less: their tracks end apart


@dataclass(frozen=True)
class Jump:
    """A jump of the clock between two pictures."""

    picture: int  # the first one behind it
    before: float  # seconds, the time of the last one before it
    seconds: Fraction  # by which the clock jumps; negative: back


@dataclass(frozen=True)
class Clock:
    """Jumps of a recording's clock, and what is to be subtracted from the times of its sound."""

    jumps: tuple[Jump, ...] = ()
    shifts: tuple[tuple[int, Fraction], ...] = ()  # sound packet from which on, and the seconds to subtract

    def shift_at(self, packet: int) -> Fraction:
        """Seconds to subtract from the time of a sound packet."""
        return next((seconds for first, seconds in reversed(self.shifts) if first <= packet), Fraction(0))


@dataclass
class _Sound:
    starts: np.ndarray  # seconds, of each packet
    ends: np.ndarray
    breaks: list[int] = field(default_factory=list)  # packets whose start is not the end of the one before

    def gap(self, packet: int) -> float:
        """Seconds from the end of the packet before."""
        return float(self.starts[packet] - self.ends[packet - 1])

    def covers(self, start: float, end: float) -> float:
        """Seconds of sound between two times."""
        edges = [0, *self.breaks, len(self.starts)]
        parts = ((self.starts[a], self.ends[b - 1]) for a, b in zip(edges, edges[1:], strict=False) if b > a)
        return sum(max(0.0, min(end, last) - max(start, first)) for first, last in parts)


def find_jumps(
    pictures: Sequence[int],  # ticks, in the order of display
    tick: Fraction,  # seconds
    usual: int,  # ticks between pictures
    sound: Sequence[int] = (),  # ticks of its packets, in the order of the file
    sound_tick: Fraction = Fraction(1),
) -> Clock:
    """Tell jumps of the clock from pauses.

    A jump is any step back; a gap in the pictures that the sound has too, as long; and more than ten seconds without
    picture and sound. Any other gap in the pictures is a pause. A step back of the sound alone is undone, too.
    """
    heard = _measure_sound(sound, float(sound_tick))
    times = np.asarray(pictures, np.float64) * float(tick)
    spacing = usual * float(tick)
    distances = np.diff(times)
    unused = list(heard.breaks) if heard else []
    jumps, shifts, shift = [], [], Fraction(0)
    for place in np.flatnonzero((distances < 0) | (distances > max(float(LEAST_GAP), 3 * spacing))):
        before, after, distance = float(times[place]), float(times[place + 1]), float(distances[place])
        exact = (pictures[place + 1] - pictures[place] - usual) * tick
        packet = _sound_of_jump(heard, unused, before, after)
        if distance > 0:
            silent = distance - (heard.covers(before, after) if heard else 0.0)
            agrees = packet is not None and abs(heard.gap(packet) - distance) <= max(0.1, min(0.5, distance / 4))
            if not agrees:
                if silent <= SILENT_GAP or distance <= 3 * spacing:
                    continue
                if heard is None or heard.starts.max() > after - LATE:  # else the sound goes on by its own clock
                    exact = min(exact, Fraction(silent).limit_denominator(1000))
        jumps.append(Jump(int(place) + 1, before, exact))
        if packet is None and heard is not None and distance > 0 and not jumps[:-1] and heard.starts[0] >= after - LATE:
            packet = 0  # the sound begins behind the jump
        if packet is not None:
            _undo_steps_back(heard, unused, packet, shifts)
            shift = (shifts[-1][1] if shifts else Fraction(0)) + exact
            shifts.append((packet, shift))
            unused = [one for one in unused if one > packet]
    if heard is not None:
        _undo_steps_back(heard, unused, len(heard.starts), shifts)
    return Clock(tuple(jumps), tuple(shifts))


def has_gap(pictures: Sequence[int], tick: Fraction, usual: int) -> bool:
    """Whether the clock may jump between two of these pictures, ascending."""
    return bool((np.diff(np.asarray(pictures, np.int64)) > max(float(LEAST_GAP / tick), 3 * usual)).any())


def _measure_sound(ticks: Sequence[int], tick: float) -> _Sound | None:
    if len(ticks) < 2:
        return None
    starts = np.asarray(ticks, np.float64) * tick
    steps = np.diff(starts)
    usual = float(np.median(steps[steps > 0])) if (steps > 0).any() else 0.0
    ends = starts + usual
    apart = starts[1:] - ends[:-1]
    return _Sound(starts, ends, [int(place) + 1 for place in np.flatnonzero(np.abs(apart) > SOUND_GAP)])


def _sound_of_jump(sound: _Sound | None, unused: Sequence[int], before: float, after: float) -> int | None:
    """The sound packet whose clock jumps with the pictures': the best of the unused breaks."""
    if sound is None:
        return None
    distance = after - before
    if distance < 0:
        back = [one for one in unused if sound.gap(one) < 0 and abs(sound.gap(one) - distance) <= FAR]
        return back[0] if back else None
    best, longest = None, 0.0
    for one in unused:
        common = min(after, float(sound.starts[one])) - max(before, float(sound.ends[one - 1]))
        if sound.gap(one) > 0 and common > max(longest, distance / 4):
            best, longest = one, common
    return best


def _undo_steps_back(sound: _Sound, unused: Sequence[int], end: int, shifts: list[tuple[int, Fraction]]) -> None:
    """Add shifts that undo the sound's own steps back before packet `end`."""
    for packet in unused:
        if packet < end and sound.gap(packet) < 0 and (not shifts or packet > shifts[-1][0]):
            shift = (shifts[-1][1] if shifts else Fraction(0)) + Fraction(sound.gap(packet)).limit_denominator(48000)
            shifts.append((packet, shift))
