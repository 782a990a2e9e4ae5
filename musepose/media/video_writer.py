"""Writes frames to an H.264 file, with sound from another video. The file appears only when it is complete."""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from musepose.media.audio import AudioTrack, SoundPlan, open_sound, plan_sound
from musepose.media.image import check_file
from musepose.utils.errors import UserError
from musepose.utils.files import CompleteFiles, complete_file, write_error

if TYPE_CHECKING:
    import av

# Suffix → FFmpeg muxer; all hold H.264 and AAC.
VIDEO_OUTPUTS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}
CONTAINERS = VIDEO_OUTPUTS | {".part": "mp4"}  # a segment, see segments.py
BT709 = 1  # FFmpeg's AVCOL_SPC_BT709; primaries and transfer characteristics have the same number
LIMITED_RANGE = 1  # FFmpeg's AVCOL_RANGE_MPEG


@cache
def exact_scaling() -> av.video.reformatter.Interpolation:
    """Scaler flags for accurate rounding and full chroma resolution: a quarter of the default's error on patterns."""
    from av.video.reformatter import Interpolation

    flags = Interpolation.BICUBIC
    for name in ("ACCURATE_RND", "FULL_CHR_H_INT", "FULL_CHR_H_INP"):
        flags |= getattr(Interpolation, name, 0)  # missing in PyAV 17
    return flags


def even_size(width: int, height: int) -> tuple[int, int]:
    """The largest size within (width, height) that yuv420p supports: both even, at least 2."""
    return max(2, width // 2 * 2), max(2, height // 2 * 2)


class VideoWriter:
    """Write RGB frames to `path` as H.264, yuv420p, BT.709, constant frame rate; a context manager.

    The file is written under a temporary hidden name in the same folder. Leaving without an exception renames it to
    `path`; any exception removes it. `audio_from`: a file whose sound is added as AAC, from its first frame on, cut to
    the length written; it may have no sound. `crf`: x264's constant rate factor, 18 is visually lossless.

    Raises ValueError for an odd size, a rate that is not positive, a frame of another size or type, or no frame at all;
    UserError for an unknown suffix, an unreadable `audio_from`, and a file that cannot be written, as on a full disk.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        width: int,  # pixels, even
        height: int,
        rate: Fraction | int,  # frames per second
        audio_from: str | os.PathLike | None = None,
        crf: int = 18,
        audio_start: Fraction | int = 0,  # seconds into `audio_from`, for a video that begins later
        files: CompleteFiles | None = None,
        comment: str = "",
    ) -> None:
        if width < 2 or height < 2 or width % 2 or height % 2:
            raise ValueError(f"a video of {width} x {height}: both sides must be even, see even_size")
        if rate <= 0:
            raise ValueError(f"a rate of {rate} frames a second")
        self.path = Path(path)
        if self.path.suffix.lower() not in CONTAINERS:
            raise UserError(f"cannot write a video called {self.path.name}: end its name in {', '.join(VIDEO_OUTPUTS)}")
        self.width, self.height, self.rate, self.crf = width, height, Fraction(rate), crf
        self.audio_from = None if audio_from is None else Path(audio_from)
        self.audio_start = Fraction(audio_start)
        self.comment = comment
        self._complete_file = complete_file if files is None else files.file
        self.frames = 0  # written so far
        self._plan: SoundPlan | None = None
        from av.video.reformatter import VideoReformatter

        self._scaler = VideoReformatter()  # reused: building its tables costs a quarter of a conversion

    def __enter__(self) -> VideoWriter:
        with ExitStack() as stack:
            source = self._open_sound(stack)
            self._partial = stack.enter_context(self._complete_file(self.path))
            try:
                self._open(source)
            except OSError as error:
                raise write_error(self.path, error) from error
            stack.push(self._close_container)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception) -> None:
        if exception[0] is None and self.frames == 0:
            exception = (ValueError, ValueError(f"no frame was written to {self.path}"), None)
            self._stack.__exit__(*exception)
            raise exception[1]
        self._stack.__exit__(*exception)

    def write(self, frame: np.ndarray) -> None:
        """Append one frame, RGB uint8 (height, width, 3)."""
        import av

        if frame.shape != (self.height, self.width, 3) or frame.dtype != np.uint8:
            raise ValueError(f"a frame {frame.shape} {frame.dtype} for a video ({self.height}, {self.width}, 3) uint8")
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        picture = self._scaler.reformat(
            picture, format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG", interpolation=exact_scaling()
        )
        picture.colorspace, picture.color_range = BT709, LIMITED_RANGE
        picture.pts, picture.time_base = self.frames, 1 / self.rate
        self.frames += 1
        try:
            self._container.mux(self._video.encode(picture))
            if self._sound is not None:
                self._sound.write_until(self.frames / self.rate)
        except OSError as error:
            raise write_error(self.path, error) from error

    def _open_sound(self, stack: ExitStack) -> av.container.InputContainer | None:
        if self.audio_from is None:
            return None
        check_file(self.audio_from, "video")
        self._plan = plan_sound(self.audio_from)
        return None if self._plan is None else stack.enter_context(open_sound(self._plan))

    def _open(self, source: av.container.InputContainer | None) -> None:
        import av

        kind = CONTAINERS[self.path.suffix.lower()]
        # With the index in front, players and browsers start before they have the whole file.
        options = {} if kind == "matroska" else {"movflags": "+faststart"}
        self._container = av.open(f"file:{self._partial}", "w", format=kind, options=options)
        if self.comment:
            self._container.metadata["comment"] = self.comment
        self._video = self._add_video()
        self._sound = None if source is None else AudioTrack(source, self._plan, self._container, self.audio_start)

    def _add_video(self) -> av.VideoStream:
        stream = self._container.add_stream("libx264", rate=self.rate, options={"crf": str(self.crf)})
        stream.width, stream.height, stream.pix_fmt = self.width, self.height, "yuv420p"
        context = stream.codec_context
        context.time_base = 1 / self.rate
        context.colorspace = context.color_primaries = context.color_trc = BT709
        context.color_range = LIMITED_RANGE
        return stream

    def _flush_video(self) -> None:
        self._container.mux(self._video.encode(None))

    def _close_container(self, kind, *_) -> None:
        """Flush and close the file; after an exception only close it."""
        import av

        if kind is not None:
            with suppress(OSError, av.error.FFmpegError):  # the first exception is the one to report
                self._container.close()
            return
        try:
            self._flush_video()
            if self._sound is not None:
                self._sound.finish(self.frames / self.rate)
            self._container.close()
        except BaseException as error:
            self._close_container(type(error))
            if isinstance(error, OSError):
                raise write_error(self.path, error) from error
            raise
