"""Writes the unusual images and videos of the tests; PyAV is imported only for videos."""

from __future__ import annotations

import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    import av

# A colour for each corner, so that turns, mirrorings and exchanged channels show: top left, right, bottom left, right.
CORNERS = ((220, 30, 40), (30, 200, 60), (40, 60, 210), (230, 220, 40))


# What the length and the beginning of a sound are known by, in seconds: AAC's blocks are 1,024 samples long, the last
# one is filled up, and a window reaches over two of them.
AAC_BLOCKS = 2 * 1024 / 44_100


def corners(width: int, height: int) -> np.ndarray:
    """An image of four coloured quarters, RGB uint8 (height, width, 3)."""
    picture = np.zeros((height, width, 3), np.uint8)
    for index, colour in enumerate(CORNERS):
        rows, columns = divmod(index, 2)
        picture[rows * (height // 2) :, columns * (width // 2) :] = colour
        if not columns:
            picture[rows * (height // 2) :, width // 2 :] = 0
    return picture


def numbered_frame(index: int, width: int, height: int) -> np.ndarray:
    """A frame that shows its index (0 to 255) as eight light and dark bars; at least 16 pixels wide to be read back."""
    bits = np.array([index >> bit & 1 for bit in range(8)])
    row = (40 + 175 * bits[np.arange(width) * 8 // width]).astype(np.uint8)
    return np.broadcast_to(row[None, :, None], (height, width, 3)).copy()


def frame_number(frame: np.ndarray) -> int:
    """The index of a `numbered_frame` after any encoding and scaling."""
    centres = [round((bit + 0.5) * frame.shape[1] / 8 - 0.5) for bit in range(8)]
    return sum(int(frame[:, x].mean() > 128) << bit for bit, x in enumerate(centres))


def write_video(
    path: Path,
    frames: list[np.ndarray] | int = 10,  # pictures, or how many numbered ones
    width: int = 64,
    height: int = 48,
    rate: Fraction | int = 30,
    *,
    times: list[int] | None = None,  # milliseconds of each frame, for a variable rate
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    container: str = "mp4",
    sound: float = 0,  # seconds of a 440 Hz tone
    sound_start: float = 0,
    options: dict[str, str] | None = None,
    stream_options: dict[str, str] | None = None,
) -> Path:
    """Write a video by PyAV alone (not by the project's writer). Colours are BT.601, and not tagged."""
    import av

    if isinstance(frames, int):
        frames = [numbered_frame(index, width, height) for index in range(frames)]
    with av.open(f"file:{path}", "w", format=container, options=options or {}) as output:
        video = output.add_stream(codec, rate=rate, options=stream_options or {"g": "10"})
        height, width = frames[0].shape[:2]
        video.width, video.height, video.pix_fmt = width, height, pix_fmt
        if times:
            video.time_base = video.codec_context.time_base = Fraction(1, 1000)
        audio = output.add_stream("aac", rate=44100, layout="mono") if sound else None
        for index, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = times[index] if times else index
            frame.time_base = Fraction(1, 1000) if times else 1 / Fraction(rate)
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
        if audio:
            write_tone(output, audio, sound, sound_start)
    return path


def rewrite(path: Path, change: Callable[[int, bytes], bytes | None]) -> Path:
    """Copy a video with packets changed by `change(number, content)`, None: left out."""
    import av

    copy = path.with_name(f"changed{path.suffix}")
    with av.open(str(path)) as source, av.open(str(copy), "w", format=source.format.name.split(",")[0]) as target:
        stream = source.streams.video[0]
        added, number = target.add_stream_from_template(stream), 0
        for packet in source.demux(stream):
            if packet.dts is None and not packet.size:
                continue
            content = change(number, bytes(packet))
            number += 1
            if content is not None:
                packet.update(content)
                packet.stream = added
                target.mux_one(packet)
    return copy


def write_tone(output: av.container.OutputContainer, stream: av.AudioStream, seconds: float, start: float) -> None:
    """A 440 Hz tone of constant loudness, beginning at `start` seconds."""
    import av

    samples = np.sin(2 * np.pi * 440 * np.arange(round(seconds * 44100)) / 44100).astype(np.float32) * 0.5
    for offset in range(0, len(samples), 1024):
        block = av.AudioFrame.from_ndarray(samples[None, offset : offset + 1024], format="fltp", layout="mono")
        block.sample_rate, block.time_base, block.pts = 44100, Fraction(1, 44100), offset + round(start * 44100)
        output.mux(stream.encode(block))
    output.mux(stream.encode(None))


def read_sound(path: Path) -> tuple[np.ndarray, int, float]:
    """The first audio stream: samples (channels, n) from time 0 on, their rate, and its length in seconds."""
    import av

    with av.open(f"file:{path}") as container:
        stream = container.streams.audio[0]
        frames = list(container.decode(stream))
        lead = np.zeros((frames[0].to_ndarray().shape[0], max(0, round(frames[0].time * frames[0].sample_rate))))
        samples = np.concatenate([lead] + [frame.to_ndarray() for frame in frames], axis=1)
        return samples, stream.codec_context.sample_rate, float(stream.duration * stream.time_base)


def set_display_matrix(path: Path, a: int, b: int, c: int, d: int) -> Path:
    """Write a turn or mirroring (x' = ax + cy, y' = bx + dy) into the track header of an mp4 file, as phones do."""
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4  # version 0: the matrix stands 40 bytes behind the type
    data[start + 40 : start + 76] = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def truncate(path: Path, share: float = 0.6) -> Path:
    """Truncate a file to this fraction of its bytes."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def write_empty(path: Path) -> Path:
    """A file of no bytes."""
    path.write_bytes(b"")
    return path


def write_text(path: Path) -> Path:
    """Write a text file under any name."""
    path.write_text("This is neither a picture nor a video.\n" * 20, encoding="utf-8")
    return path


def write_video_without_frames(path: Path) -> Path:
    """A whole, valid container with a video stream and not one frame in it."""
    write_video(path, 1, options={"movflags": "+frag_keyframe+empty_moov+default_base_moof"})
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"moof") - 4])
    return path


def write_audio_only(path: Path) -> Path:
    """An mp4 file with sound and no picture."""
    import av

    with av.open(f"file:{path}", "w", format="mp4") as output:
        write_tone(output, output.add_stream("aac", rate=44100, layout="mono"), 0.5, 0)
    return path


def write_rotated_video(path: Path, frames: int = 5) -> Path:
    """A portrait clip as phones store it: 64 x 48 pixels to be turned a quarter clockwise; shows `corners(48, 64)`."""
    stored = np.ascontiguousarray(np.rot90(corners(48, 64)))
    return set_display_matrix(write_video(path, [stored] * frames), 0, 1, -1, 0)


def write_picture(path: Path, kind: str, width: int = 64, height: int = 48) -> Path:
    """The four corners as a picture of the given kind: rgb, grey, grey16, palette, rgba, cmyk, exif.

    rgba: the bottom half is transparent black. exif: stored turned, upright for a person.
    """
    picture = Image.fromarray(corners(width, height))
    grey = np.asarray(picture.convert("L"))
    if kind == "grey16":
        Image.fromarray(grey.astype(np.uint16) * 257).save(path)
    elif kind == "rgba":
        pixels = np.dstack([corners(width, height), np.full((height, width), 255, np.uint8)])
        pixels[height // 2 :] = 0
        Image.fromarray(pixels, "RGBA").save(path)
    elif kind == "exif":
        exif = Image.Exif()
        exif[0x0112] = 6  # Orientation: turn a quarter clockwise to show
        Image.fromarray(np.ascontiguousarray(np.rot90(picture))).save(path, exif=exif, quality=95, subsampling=0)
    else:
        mode = {"rgb": "RGB", "grey": "L", "palette": "P", "cmyk": "CMYK"}[kind]
        options = {"quality": 95, "subsampling": 0} if kind == "cmyk" else {}
        (picture.quantize(16) if mode == "P" else picture.convert(mode)).save(path, **options)
    return path


def colour_error(frame: np.ndarray) -> int:
    """By how many levels a frame of `corners` is off, at most, in the middle of a quarter."""
    height, width = frame.shape[:2]
    places = [(y, x) for y in (height // 4, 3 * height // 4) for x in (width // 4, 3 * width // 4)]
    return int(np.abs([frame[place].astype(int) for place in places] - np.array(CORNERS)).max())
