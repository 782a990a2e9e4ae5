"""The sound of one video, cut and encoded anew to go with another."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from musepose.media.containers import open_media, to_fraction

if TYPE_CHECKING:
    import av

logger = logging.getLogger(__name__)

AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
BLOCK = 1024  # samples in an AAC frame
GAP = Fraction(1, 20)  # seconds; smaller jumps of the time stamps are jitter, larger ones are filled or cut


class AudioTrack:
    """The audio stream of a file as AAC in `output`, starting when that file's video starts, or `skip` later.

    Sound before that is dropped; where it starts later, silence goes in front, so that both keep step.
    """

    def __init__(
        self,
        source: av.container.InputContainer,
        output: av.container.OutputContainer,
        skip: Fraction = Fraction(0),  # seconds after the first picture
    ) -> None:
        self.source, self.skip = source, skip
        stream = _decodable(source)[0]
        rate = stream.codec_context.sample_rate
        self.rate = rate if rate in AAC_RATES else 48000
        self.layout = "mono" if stream.codec_context.layout.nb_channels == 1 else "stereo"
        self.output = output
        self.encoder = output.add_stream("aac", rate=self.rate, layout=self.layout, format="fltp")
        self.encoder.bit_rate = 96_000 if self.layout == "mono" else 192_000
        self.samples = self._samples(stream)  # chunks (channels, n)
        self.waiting = np.zeros((1 if self.layout == "mono" else 2, 0), np.float32)
        self.encoded = 0  # samples

    def write_until(self, seconds: Fraction) -> None:
        """Encode and mux all whole blocks that end before `seconds`."""
        while self.encoded + BLOCK <= seconds * self.rate and self._fill(BLOCK):
            self._encode(BLOCK)

    def finish(self, seconds: Fraction) -> None:
        """Encode up to the sample at `seconds`, or to the end of the source if that comes first, and flush."""
        self.write_until(seconds)
        rest = round(seconds * self.rate) - self.encoded
        self._fill(rest)
        rest = min(rest, self.waiting.shape[1])
        if rest > 0:
            self._encode(rest)
        if self.encoded:
            self.output.mux(self.encoder.encode(None))

    def _fill(self, count: int) -> bool:
        """Have at least `count` samples waiting, if the source holds so many."""
        while self.waiting.shape[1] < count:
            chunk = next(self.samples, None)
            if chunk is None:
                return False
            self.waiting = np.concatenate([self.waiting, chunk], axis=1)
        return True

    def _encode(self, count: int) -> None:
        import av

        block, self.waiting = self.waiting[:, :count], self.waiting[:, count:]
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), format="fltp", layout=self.layout)
        frame.sample_rate, frame.time_base, frame.pts = self.rate, Fraction(1, self.rate), self.encoded
        self.encoded += count
        self.output.mux(self.encoder.encode(frame))

    def _samples(self, stream: av.AudioStream) -> Iterator[np.ndarray]:
        """Decode, resample, and put on the video's time line. Damaged sound ends early, the video goes on."""
        import av

        resampler = av.AudioResampler(format="fltp", layout=self.layout, rate=self.rate)
        start, position = _video_start(self.source) + self.skip, 0
        try:
            for frame in self.source.decode(stream):
                ahead = 0  # samples between the end of what was given and the start of this frame
                if frame.pts is not None:
                    ahead = round((frame.pts * to_fraction(frame.time_base) - start) * self.rate) - position
                if position and abs(ahead) <= GAP * self.rate:
                    ahead = 0
                frame.pts = None
                chunk = np.concatenate(
                    [part.to_ndarray() for part in resampler.resample(frame)] or [self.waiting[:, :0]], 1
                )
                if ahead > 0:
                    chunk = np.concatenate([np.zeros((len(chunk), ahead), np.float32), chunk], axis=1)
                chunk = chunk[:, max(0, -ahead) :]
                position += chunk.shape[1]
                yield chunk
            for part in resampler.resample(None):
                yield part.to_ndarray()
        except (av.error.FFmpegError, ValueError) as error:  # ValueError: the form of the sound changes midway
            logger.warning("%s: the sound is damaged after %.1f s (%s)", self.source.name, position / self.rate, error)


def open_audio(path: Path) -> av.container.InputContainer | None:
    """Open `path` for its sound; None if it has none."""
    container = open_media(path)
    if _decodable(container):
        return container
    container.close()
    return None


def _decodable(container: av.container.InputContainer) -> list[av.AudioStream]:
    return [stream for stream in container.streams.audio if stream.codec_context is not None]


def _video_start(container: av.container.InputContainer) -> Fraction:
    """When the first picture is shown, in seconds; without pictures, when the sound begins."""
    for stream in (*container.streams.video, *container.streams.audio):
        if stream.start_time is not None:
            return stream.start_time * to_fraction(stream.time_base)
    return Fraction(0)
