"""Recordings with chosen clocks: numbered pictures, beeps in the sound, packets with any time stamps or damage.

And what comes of them: frame numbers, and when beeps sound in a video that the project's writer made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from media import frame_number, numbered_frame, read_sound

from musepose.media.video_reader import probe, read_frames
from musepose.media.video_writer import VideoWriter

SOUND_RATE = 48000
MILLISECOND = Fraction(1, 1000)
Change = Callable[[float], float | None]  # seconds of a packet → its time in the file, or None: it is left out


def keep(time: float) -> float:
    return time


def write_recording(
    path: Path,
    pictures: Sequence[float],  # seconds at which numbered pictures are taken
    sound: float = 0,  # seconds of sound
    beeps: Sequence[float] = (),  # seconds at which a beep of 50 ms begins
    *,
    container: str = "matroska",
    move_picture: Change = keep,
    move_sound: Change = keep,
    rate: Fraction | int = 30,  # what the container says
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    damaged: Sequence[int] = (),  # numbers of video packets that hold zeros
    damaged_sound: Sequence[int] = (),  # numbers of sound packets that hold noise
    tracks: Sequence[str] = ("default",),  # disposition of each sound track; only the last one beeps
) -> Path:
    """Encode pictures and sound, then mux the packets with their times as `move_picture` and `move_sound` say."""
    tick = Fraction(1, 90000)
    with av.open(str(path), "w", format=container) as output:
        video = output.add_stream(codec, rate=rate, options=options or {"g": "12", "bf": "0", "sc_threshold": "0"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.codec_context.time_base = tick
        audio = [output.add_stream("aac", rate=SOUND_RATE, layout="mono") for _ in tracks if sound]
        for stream, disposition in zip(audio, tracks, strict=False):
            stream.disposition = getattr(av.stream.Disposition, disposition).value if disposition else 0
        packets = []
        for number, time in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(numbered_frame(number, 64, 48), format="rgb24")
            frame.pts, frame.time_base = round(time / tick), tick
            packets += video.encode(frame)
        packets += video.encode(None)
        for number in damaged:
            packets[number].update(bytes(packets[number].size))
        packets = _moved(packets, move_picture)
        for place, stream in enumerate(audio):
            silent = place < len(audio) - 1
            packets += _moved(_sound_packets(stream, sound, () if silent else beeps, damaged_sound), move_sound)
        for _, _, packet in sorted(packets, key=lambda entry: entry[:2]):
            output.mux_one(packet)
    return path


def _moved(packets: list[av.Packet], move: Change) -> list[tuple[float, int, av.Packet]]:
    """Packets with their places in the file, by the times at which they were decoded; those left out are missing."""
    moved = []
    for place, packet in enumerate(packets):
        time = float(packet.pts * packet.time_base)
        new = move(time)
        if new is None:
            continue
        order = float((packet.pts if packet.dts is None else packet.dts) * packet.time_base)
        shift = round((new - time) / packet.time_base)
        packet.pts += shift
        packet.dts = None if packet.dts is None else packet.dts + shift
        moved.append((order, place, packet))
    return moved


def _sound_packets(
    stream: av.AudioStream, seconds: float, beeps: Sequence[float], damaged: Sequence[int]
) -> list[av.Packet]:
    samples = np.zeros(round(seconds * SOUND_RATE), np.float32)
    time = np.arange(len(samples)) / SOUND_RATE
    samples += 0.02 * np.sin(2 * np.pi * 300 * time)  # so that packets are large enough to be damaged
    for start in beeps:
        samples += 0.7 * np.sin(2 * np.pi * 1000 * time) * ((time >= start) & (time < start + 0.05))
    packets = []
    for first in range(0, len(samples), 1024):
        block = av.AudioFrame.from_ndarray(samples[None, first : first + 1024], format="fltp", layout="mono")
        block.sample_rate, block.time_base, block.pts = SOUND_RATE, Fraction(1, SOUND_RATE), first
        packets += stream.encode(block)
    packets += stream.encode(None)
    for number in damaged:
        packets[number].update(b"\x6b" * packets[number].size)
    return packets


def through_the_project(path: Path, folder: Path) -> tuple[list[int], Fraction, list[float]]:
    """Read a video and write it with its sound: → numbers of the frames, their rate, seconds at which beeps begin."""
    info, numbers = probe(path), []
    with VideoWriter(folder / "written.mp4", 64, 48, info.rate, audio_from=path) as writer:
        for frame in read_frames(info):
            numbers.append(frame_number(frame))
            writer.write(frame)
    assert len(numbers) == info.frames
    return numbers, info.rate, find_beeps(folder / "written.mp4") if info.has_audio else []


def find_beeps(path: Path) -> list[float]:
    """Seconds at which beeps begin."""
    samples, rate, _ = read_sound(path)
    loud = np.flatnonzero(np.abs(samples[0]) > 0.2) / rate
    return [float(time) for place, time in enumerate(loud) if place == 0 or time > loud[place - 1] + 0.2]
