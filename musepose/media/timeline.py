"""Places a video's pictures on a constant frame rate by their time stamps. Pure arithmetic: opens no file."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

# Rates in use, whole numbers first: of two that fit a short video equally well, the first is taken.
WHOLE_RATES = (30, 25, 24, 60, 50, 15, 12, 10, 20, 48, 120, 100, 90, 72, 75, 144, 240, 8, 6, 5, 4, 3, 2, 1, 16, 18)
STANDARD_RATES = (
    *map(Fraction, WHOLE_RATES),
    *(Fraction(1000 * rate, 1001) for rate in (30, 24, 60, 15, 48, 120, 240)),
    Fraction(25, 2),
    Fraction(15, 2),
)
LOWEST_RATE, HIGHEST_RATE = Fraction(1, 1000), Fraction(1000)  # frames a second
DEFAULT_RATE = Fraction(25)  # of a single picture in a container that states none
SHUFFLED = 16  # pictures by which the order of decoding differs from that of display at most
ROUNDED = Fraction(1, 5_000_000)  # of a rate, from a duration that is rounded to nanoseconds
JITTER = Fraction(1, 500)  # of the usual distance; cameras' clocks are off by less


@dataclass(frozen=True)
class Timeline:
    """Which stored picture is shown in each frame of the constant rate."""

    rate: Fraction  # frames a second
    slots: np.ndarray  # (pictures,) int64, ascending: the frame with which each picture appears; the first is 0
    frames: int

    def picture(self, frame: int) -> int:
        """The picture that is shown in `frame`: the last that has appeared."""
        return int(np.searchsorted(self.slots, frame, side="right")) - 1

    @property
    def resampling(self) -> str | None:
        """Identifies what resampling changes; None if every stored picture is one frame."""
        if self.frames == len(self.slots) and np.array_equal(self.slots, np.arange(self.frames)):
            return None
        content = f"{self.rate} {self.frames} ".encode() + self.slots.astype("<i8").tobytes()
        return hashlib.sha256(content).hexdigest()[:16]


def place_pictures(
    ticks: Sequence[int],  # ascending times of the pictures
    tick: Fraction,  # seconds
    container_rates: Sequence[Fraction],  # what the container says, the most trusted first
    last: Fraction = Fraction(0),  # seconds for which the last picture stays, if it is known to stay longer
) -> Timeline:
    """The timeline of pictures at these times: each appears in the frame nearest to its time, and stays to the next.

    Where two fall on the same frame, the later one is shown. Raises ValueError for a rate beyond 1/1000 to 1000.
    """
    rate = choose_rate(ticks, tick, container_rates)
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise ValueError(f"{float(rate):.3g} frames a second")
    slots = np.array(frame_slots(ticks, tick, rate), np.int64)
    stays = int(last * rate + Fraction(1, 2))
    return Timeline(rate, slots, int(slots[-1]) + max(1, stays))


def choose_rate(ticks: Sequence[int], tick: Fraction, container_rates: Sequence[Fraction]) -> Fraction:
    """Frames per second: the container's rate where it fits, else one over the median distance of the pictures.

    The container's rate fits if it shows every picture exactly once, or if it is a standard rate and the median
    distance. The median is snapped to the nearest standard rate within the rounding of the time stamps.
    """
    stated = [rate for rate in container_rates if rate and rate > 0]
    if len(ticks) < 2:
        return _exact((stated or [DEFAULT_RATE])[0])
    if stated and _shows_each_once(ticks, tick, stated[0]):
        return _exact(stated[0])
    distances = np.diff(np.asarray(ticks, np.int64))
    usual = usual_distance(ticks)
    regular = distances[np.abs(distances - usual) <= max(1, usual // 10)]
    mean = Fraction(int(regular.sum()), len(regular)) * tick  # finer than the rounding of one distance
    allowed = max(tick, JITTER * usual * tick)
    fitting = [rate for rate in (*stated, *STANDARD_RATES) if abs(1 / rate - usual * tick) <= allowed]
    fitting = [rate for rate in fitting if rate in STANDARD_RATES]
    if not fitting:
        return (1 / mean).limit_denominator(1001)
    uncertain = 2 * tick / len(regular)
    return min(fitting, key=lambda rate: max(abs(1 / rate - mean), uncertain))


def _exact(rate: Fraction) -> Fraction:
    """A rate as the standard one that it rounds, such as 1e9/16683333 of a duration in nanoseconds, or nearly as is."""
    near = min(STANDARD_RATES, key=lambda standard: abs(standard - rate))
    return near if abs(near - rate) <= ROUNDED * rate else rate.limit_denominator(1001)


def usual_distance(ticks: Sequence[int]) -> int:
    """The lower median of the distances of ascending times, at least 1."""
    distances = np.sort(np.diff(np.asarray(ticks, np.int64)))
    distances = distances[distances > 0]
    return int(distances[(len(distances) - 1) // 2]) if len(distances) else 1


def frame_slots(ticks: Sequence[int], tick: Fraction, rate: Fraction) -> list[int]:
    """The nearest frame to each time, counted from the first; all frames in turn where the rate shows each once."""
    if _shows_each_once(ticks, tick, rate):
        return list(range(len(ticks)))
    step = rate * tick  # frames
    first, a, b = ticks[0], 2 * step.numerator, step.denominator
    return [((time - first) * a + b) // (2 * b) for time in ticks]


def _shows_each_once(ticks: Sequence[int], tick: Fraction, rate: Fraction) -> bool:
    """Picture n is never more than half a frame away from frame n."""
    step = rate * tick
    first, a, b = ticks[0], 2 * step.numerator, step.denominator
    return all(abs((time - first) * a - 2 * number * b) <= b for number, time in enumerate(ticks))


def repair_stamps(
    stamps: Sequence[int | None],  # in the order of display
    spacing: int,  # ticks between pictures, where no stamps tell
) -> list[int]:
    """Times for all pictures: missing and repeated stamps, and single ones out of order, are interpolated.

    Steps back that stay are left as they are: the clock was set back.
    """
    known = _in_order(_sort_if_shuffled(stamps))
    places = [number for number, stamp in enumerate(known) if stamp is not None]
    if not places:
        return [number * spacing for number in range(len(known))]
    usual = _usual_spacing(known, places) or spacing
    times = [0] * len(known)
    for a, b in zip(places, places[1:], strict=False):
        rise = known[b] - known[a]
        step = Fraction(rise, b - a) if rise > 0 else Fraction(usual)
        for number in range(a, b):
            times[number] = known[a] + int(step * (number - a))
    first, last = places[0], places[-1]
    for number in range(first):
        times[number] = known[first] - usual * (first - number)
    for number in range(last, len(known)):
        times[number] = known[last] + usual * (number - last)
    return times


def _sort_if_shuffled(stamps: Sequence[int | None]) -> Sequence[int | None]:
    """The stamps in order, if they are those of the order of decoding, which many small steps back show."""
    if None in stamps or len(set(stamps)) < len(stamps):
        return stamps
    backward = sum(b < a for a, b in zip(stamps, stamps[1:], strict=False))
    in_order = sorted(stamps)
    places = {stamp: place for place, stamp in enumerate(in_order)}
    near = all(abs(places[stamp] - place) <= SHUFFLED for place, stamp in enumerate(stamps))
    return in_order if near and backward >= max(3, len(stamps) / SHUFFLED) else stamps


def _in_order(stamps: Sequence[int | None]) -> list[int | None]:
    """None in place of stamps that repeat the one before, and of single ones that are too early or too late."""
    known = list(stamps)
    before: list[int] = []  # places of the stamps kept so far; the last two suffice
    for number, stamp in enumerate(known):
        if stamp is None:
            continue
        if before and stamp == known[before[-1]]:
            known[number] = None
            continue
        if before and stamp < known[before[-1]]:
            after = next((later for later in known[number + 1 :] if later is not None), None)
            if after is not None and after > known[before[-1]] and not (len(before) > 1 and stamp > known[before[-2]]):
                known[number] = None  # too early
                continue
            if len(before) > 1 and stamp > known[before[-2]] and (after is None or after > stamp):
                known[before.pop()] = None  # the one before was too late
        before = [*before[-1:], number]
    return known


def _usual_spacing(known: Sequence[int | None], places: Sequence[int]) -> int:
    steps = sorted((known[b] - known[a]) // (b - a) for a, b in zip(places, places[1:], strict=False))
    steps = [step for step in steps if step > 0]
    return steps[(len(steps) - 1) // 2] if steps else 0
