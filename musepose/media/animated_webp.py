"""Animated WebP as a video: FFmpeg does not decode it, so Pillow does, and FFmpeg gets the frames as Matroska."""

from __future__ import annotations

import io
import warnings
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from musepose.media.image import DECODE_ERRORS, decode_error
from musepose.utils.errors import UserError

MAX_PIXELS = 2**29  # of all frames: losslessly compressed they lie in memory
ANIMATION = 0x02  # a flag of the extended header
MILLISECOND = Fraction(1, 1000)


def is_animated_webp(path: Path) -> bool:
    """By the extended header (RFC 9649, 2.7)."""
    with open(path, "rb") as file:
        head = file.read(21)
    return len(head) == 21 and head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X" and bool(head[20] & ANIMATION)


def as_matroska(path: Path) -> io.BytesIO:
    """The animation, once through, with its time stamps: FFV1 with transparency.

    Raises UserError: it is damaged, or has too many pixels to be kept in memory.
    """
    import av

    result = io.BytesIO()
    try:
        with warnings.catch_warnings(), Image.open(path, formats=["WEBP"]) as image:
            warnings.simplefilter("ignore")
            if image.n_frames * image.width * image.height > MAX_PIXELS:
                raise UserError(f"{path} is an animated WebP of {image.n_frames} frames, too large: convert it to mp4")
            with av.open(result, "w", format="matroska") as output:
                stream = output.add_stream("ffv1", rate=30)
                stream.width, stream.height, stream.pix_fmt = image.width, image.height, "bgra"
                stream.time_base = stream.codec_context.time_base = MILLISECOND
                for number in range(image.n_frames):
                    image.seek(number)
                    frame = av.VideoFrame.from_ndarray(np.asarray(image.convert("RGBA")), format="rgba")
                    frame = frame.reformat(format="bgra")
                    frame.pts, frame.time_base = image.info["timestamp"], MILLISECOND
                    output.mux(stream.encode(frame))
                output.mux(stream.encode(None))
    except (*DECODE_ERRORS, Image.DecompressionBombError) as error:
        raise decode_error(path, error) from None
    result.seek(0)
    return result
