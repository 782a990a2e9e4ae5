"""Copies the sound of one video into another: trimmed, resampled, encoded as AAC."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from musepose.media.containers import open_media, to_fraction
from musepose.media.decoding import decode_packets
from musepose.media.jumps import Clock
from musepose.media.packets import choose_sound, picture_streams, read_packets, sound_streams
from musepose.media.stored_video import measure, open_video

if TYPE_CHECKING:
    import av

logger = logging.getLogger(__name__)

AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
AAC_FRAME = 1024  # samples
GAP = Fraction(1, 20)  # seconds; a larger jump of the time stamps is filled with silence, or cut
DRIFT = Fraction(1, 100)  # seconds; so is a smaller one that stays for `PATIENCE` frames; others are jitter
PATIENCE = 8
CHUNK = 1 << 16  # samples; silence is made in pieces, as it may last for hours


@dataclass(frozen=True)
class SoundPlan:
    """Where the sound of a file is, and how its time stamps become times of the video."""

    path: Path
    stream: int  # index
    start: Fraction  # seconds of the container's clock at the first picture
    clock: Clock


class AudioTrack:
    """Encodes a file's sound as AAC into `output`, from the first picture of that file, or `skip` later.

    Earlier sound is dropped; if the sound starts later, silence is inserted, so that sound and picture stay in sync.
    """

    def __init__(
        self,
        source: av.container.InputContainer,
        plan: SoundPlan,
        output: av.container.OutputContainer,
        skip: Fraction = Fraction(0),  # seconds after the first picture
    ) -> None:
        stream = source.streams[plan.stream]
        rate = stream.codec_context.sample_rate
        self.rate = rate if rate in AAC_RATES else 48000
        self.layout = "mono" if stream.codec_context.layout.nb_channels == 1 else "stereo"
        self.output = output
        self.encoder = output.add_stream("aac", rate=self.rate, layout=self.layout, format="fltp")
        self.encoder.bit_rate = 96_000 if self.layout == "mono" else 192_000
        self.source = _Samples(source, plan, self.rate, self.layout, plan.start + skip)
        self.samples = self.source.chunks()
        self.buffer = np.zeros((1 if self.layout == "mono" else 2, 0), np.float32)
        self.encoded = 0  # samples

    def write_until(self, seconds: Fraction) -> None:
        """Encode and mux all complete AAC frames that end before `seconds`."""
        while self.encoded + AAC_FRAME <= seconds * self.rate and self._fill(AAC_FRAME):
            self._encode(AAC_FRAME)

    def finish(self, seconds: Fraction) -> None:
        """Encode up to `seconds`, or to the end of the source if that comes first, and flush."""
        self.write_until(seconds)
        rest = round(seconds * self.rate) - self.encoded
        self._fill(rest)
        rest = min(rest, self.buffer.shape[1])
        if rest > 0:
            self._encode(rest)
        if self.encoded:
            self.output.mux(self.encoder.encode(None))
        if self.source.lost:
            _warn(self.source.plan.path, self.source.lost)

    def _fill(self, count: int) -> bool:
        """Fill the buffer to at least `count` samples; False if the source ends first."""
        while self.buffer.shape[1] < count:
            chunk = next(self.samples, None)
            if chunk is None:
                return False
            self.buffer = np.concatenate([self.buffer, chunk], axis=1)
        return True

    def _encode(self, count: int) -> None:
        import av

        block, self.buffer = self.buffer[:, :count], self.buffer[:, count:]
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), format="fltp", layout=self.layout)
        frame.sample_rate, frame.time_base, frame.pts = self.rate, Fraction(1, self.rate), self.encoded
        self.encoded += count
        self.output.mux(self.encoder.encode(frame))


class _Samples:
    """The sound of a file as samples from a time on: decoded, resampled, placed by time stamps."""

    def __init__(
        self, source: av.container.InputContainer, plan: SoundPlan, rate: int, layout: str, start: Fraction
    ) -> None:
        self.source, self.plan, self.rate, self.layout, self.start = source, plan, rate, layout, start
        self.channels = 1 if layout == "mono" else 2
        self.position = 0  # samples given out
        self.lost = 0  # damaged packets
        self._off = 0  # frames in turn that came too early or too late

    def chunks(self) -> Iterator[np.ndarray]:
        """Samples (channels, n), float32, in pieces. Damaged packets are silent, and counted."""
        import av

        stream = self.source.streams[self.plan.stream]
        tick = to_fraction(stream.time_base)
        resampler = None
        for packet, frames in self._decode(stream):
            if frames is None:
                self.lost += 1
                self._off = PATIENCE  # the gap that it leaves is not jitter
                continue
            shift = self.plan.clock.shift_at(packet)
            for frame in frames:
                ahead = 0  # samples between the end of the previous frame and the start of this one
                if frame.pts is not None:
                    time = frame.pts * (to_fraction(frame.time_base) or tick) - shift - self.start
                    ahead = self._correction(round(time * self.rate) - self.position)
                frame.pts = None
                try:
                    resampler = resampler or av.AudioResampler(format="fltp", layout=self.layout, rate=self.rate)
                    parts = resampler.resample(frame)
                except ValueError:  # the sample format changes midway
                    resampler = av.AudioResampler(format="fltp", layout=self.layout, rate=self.rate)
                    parts = resampler.resample(frame)
                yield from self._silence(ahead)
                yield from self._give(parts, max(0, -ahead))
        if resampler is not None:
            yield from self._give(resampler.resample(None), 0)

    def _decode(self, stream: av.AudioStream) -> Iterator[tuple[int, list[av.AudioFrame] | None]]:
        """Each packet's number and its frames; None for a damaged packet. A damaged container ends the sound early."""
        number = -1
        for packet, frames in decode_packets(self.source, stream):
            number += bool(packet.size)
            if packet.size or frames:
                yield number, frames

    def _correction(self, ahead: int) -> int:
        """How many samples of silence to insert, or to cut if negative, for a frame that comes so much too late."""
        if self.position and abs(ahead) <= GAP * self.rate:
            self._off = self._off + 1 if abs(ahead) > DRIFT * self.rate else 0
            if self._off < PATIENCE:
                return 0
        self._off = 0
        return ahead

    def _silence(self, count: int) -> Iterator[np.ndarray]:
        while count > 0:
            piece = min(count, CHUNK)
            count -= piece
            self.position += piece
            yield np.zeros((self.channels, piece), np.float32)

    def _give(self, parts: list[av.AudioFrame], skip: int) -> Iterator[np.ndarray]:
        for part in parts:
            samples = part.to_ndarray()
            cut = min(skip, samples.shape[1])
            skip -= cut
            if cut < samples.shape[1]:
                self.position += samples.shape[1] - cut
                yield samples[:, cut:]


@cache
def _warn(path: Path, lost: int) -> None:
    """Once, though several videos get the same sound."""
    what = "1 damaged packet of its sound is" if lost == 1 else f"{lost} damaged packets of its sound are"
    logger.warning("warning: %s: %s left out", path, what)


def plan_sound(path: Path) -> SoundPlan | None:
    """Where the sound of `path` is; None if it has none that can be decoded. Raises UserError as `measure` does.

    A file without pictures starts with its sound.
    """
    with open_video(path) as (container, _):
        sounds = sound_streams(container)
        if not sounds:
            return None
        if not picture_streams(container):
            packets, _ = read_packets(container, sounds)
            stream = choose_sound(sounds, packets)
            if stream is None:
                return None
            start = (stream.start_time or 0) * to_fraction(stream.time_base)
            return SoundPlan(path, stream.index, start, Clock())
    video = measure(path)
    return None if video.sound_stream is None else SoundPlan(path, video.sound_stream, video.start, video.clock)


def open_sound(plan: SoundPlan) -> av.container.InputContainer:
    """Open the plan's file for its sound."""
    return open_media(plan.path)
