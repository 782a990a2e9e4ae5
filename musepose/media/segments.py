"""Joins segments of one video, each a file of VideoWriter, without encoding them again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from musepose.media.containers import open_media, to_fraction
from musepose.media.video_writer import VideoWriter
from musepose.utils.errors import UserError
from musepose.utils.files import write_error

if TYPE_CHECKING:
    import av

# x264's default distance of key frames: segments of so many frames have a key frame each, as one encoding has.
SEGMENT_FRAMES = 250
# Frames by which x264's decoding order may differ from the display order, with its default of pyramid B-frames.
REORDERING = 2


class SegmentJoiner(VideoWriter):
    """A VideoWriter that copies the pictures of `segments`, in order, and adds the sound.

    The segments have the size, the rate and the `crf` of this writer. They start with a key frame, as every file of
    VideoWriter does, and no picture refers to another segment. So the joined pictures are exactly the segments'.
    """

    def __init__(self, path: str | Path, segments: Sequence[Path], *arguments, **options) -> None:
        super().__init__(path, *arguments, **options)
        self.segments = segments

    def copy(self) -> None:
        """Copy all segments. Raises UserError: a segment cannot be read, or the file cannot be written."""
        import av

        for segment in self.segments:
            try:
                self._copy_segment(segment)
            except av.error.FFmpegError as error:
                raise UserError(f"{segment} cannot be read ({error.strerror}): delete it and start again") from None

    def _add_video(self) -> av.VideoStream:
        with open_media(self.segments[0]) as first:
            return self._container.add_stream_from_template(first.streams.video[0])

    def _flush_video(self) -> None:
        """Copied packets need no flush."""

    def _copy_segment(self, segment: Path) -> None:
        with open_media(segment) as source:
            stream, first = source.streams.video[0], self.frames
            if stream.codec_context.extradata != self._video.codec_context.extradata:
                raise UserError(f"{segment} has other settings than {self.segments[0]}: delete it and start again")
            frame = to_fraction(stream.time_base) * self.rate  # a time stamp's unit in frames
            for packet in source.demux(stream):
                if packet.dts is None:  # the empty packet that marks the end
                    continue
                packet.pts = round(packet.pts * frame) + first
                # Counted anew: a segment of few frames has a smaller delay than the one after it.
                packet.dts = self.frames - REORDERING
                packet.time_base, packet.duration, packet.stream = 1 / self.rate, 1, self._video
                self.frames += 1
                try:
                    self._container.mux_one(packet)
                except OSError as error:
                    raise write_error(self.path, error) from error
        if self._sound is not None:
            self._sound.write_until(self.frames / self.rate)
