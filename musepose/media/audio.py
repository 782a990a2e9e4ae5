"""Copies the sound of one video into another: trimmed, resampled, encoded as AAC."""

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
AAC_FRAME = 1024  # samples
GAP = Fraction(1, 20)  # seconds; smaller time stamp jumps are jitter, larger ones are filled with silence or cut


class AudioTrack:
    """Encodes a file's audio stream as AAC into `output`, from the start of that file's video, or `skip` later.

    Earlier sound is dropped; if the sound starts later, silence is inserted, so that sound and picture stay in sync.
    """

    def __init__(
        self,
        source: av.container.InputContainer,
        output: av.container.OutputContainer,
        skip: Fraction = Fraction(0),  # seconds after the first frame of the video
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

    def _samples(self, stream: av.AudioStream) -> Iterator[np.ndarray]:
        """Decode, resample and align to the video's time line. Damaged sound ends early; the video continues."""
        import av

        resampler = av.AudioResampler(format="fltp", layout=self.layout, rate=self.rate)
        start, position = _video_start(self.source) + self.skip, 0
        try:
            for frame in self.source.decode(stream):
                ahead = 0  # samples between the end of the previous frame and the start of this one
                if frame.pts is not None:
                    ahead = round((frame.pts * to_fraction(frame.time_base) - start) * self.rate) - position
                if position and abs(ahead) <= GAP * self.rate:
                    ahead = 0
                frame.pts = None
                chunk = np.concatenate(
                    [part.to_ndarray() for part in resampler.resample(frame)] or [self.buffer[:, :0]], 1
                )
                if ahead > 0:
                    chunk = np.concatenate([np.zeros((len(chunk), ahead), np.float32), chunk], axis=1)
                chunk = chunk[:, max(0, -ahead) :]
                position += chunk.shape[1]
                yield chunk
            for part in resampler.resample(None):
                yield part.to_ndarray()
        except (av.error.FFmpegError, ValueError) as error:  # ValueError: the sample format changes midway
            logger.warning("%s: the sound is damaged after %.1f s (%s)", self.source.name, position / self.rate, error)


def open_audio(path: Path) -> av.container.InputContainer | None:
    """Open `path` for its sound; None if it has no sound."""
    container = open_media(path)
    if _decodable(container):
        return container
    container.close()
    return None


def _decodable(container: av.container.InputContainer) -> list[av.AudioStream]:
    return [stream for stream in container.streams.audio if stream.codec_context is not None]


def _video_start(container: av.container.InputContainer) -> Fraction:
    """Time of the first video frame, in seconds; without video, the start of the sound."""
    for stream in (*container.streams.video, *container.streams.audio):
        if stream.start_time is not None:
            return stream.start_time * to_fraction(stream.time_base)
    return Fraction(0)
