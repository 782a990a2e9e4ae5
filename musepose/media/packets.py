"""Reads what a container says of its streams, packet by packet, without decoding, and chooses picture and sound."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING

from musepose.media.containers import to_fraction
from musepose.utils.errors import is_out_of_memory

if TYPE_CHECKING:
    import av

# Codecs and containers where one packet is one picture.
ONE_PACKET_ONE_PICTURE = {"h264", "hevc", "av1", "vp9", "mpeg4", "prores"}
EXACT_CONTAINERS = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"}
NO_STAMP = -(1 << 63)
FARTHEST = 32  # packets by which decoding and display order differ at most


@dataclass
class Packets:
    """The packets of one stream in the order of the file."""

    stamps: array = field(default_factory=lambda: array("q"))  # ticks, or NO_STAMP
    decoded: array = field(default_factory=lambda: array("q"))  # likewise, when each is decoded
    durations: array = field(default_factory=lambda: array("q"))  # ticks; 0 if unknown
    keys: array = field(default_factory=lambda: array("b"))
    discarded: array = field(default_factory=lambda: array("b"))  # decoded, but not shown

    def add(self, packet: av.Packet) -> None:
        self.stamps.append(NO_STAMP if packet.pts is None else packet.pts)
        self.decoded.append(NO_STAMP if packet.dts is None else packet.dts)
        self.durations.append(packet.duration or 0)
        self.keys.append(packet.is_keyframe)
        self.discarded.append(packet.is_discard)

    def __len__(self) -> int:
        return len(self.stamps)

    def in_order_of_display(self) -> list[int] | None:
        """Time stamps of the packets that are shown, ascending; None where they do not tell the order of display."""
        shown = [stamp for stamp, hidden in zip(self.stamps, self.discarded, strict=True) if not hidden]
        if not shown or NO_STAMP in self.stamps or not self.keys[0]:
            return None
        top = NO_STAMP
        for stamp, key in zip(self.stamps, self.keys, strict=True):
            if key and stamp <= top:  # what is decoded before a key picture is shown before it
                return None
            top = max(top, stamp)
        in_order = sorted(shown)
        if len(set(in_order)) < len(in_order):
            return None
        places = {stamp: place for place, stamp in enumerate(in_order)}
        far = any(abs(places[stamp] - place) > FARTHEST for place, stamp in enumerate(shown))
        return None if far else in_order


@dataclass(frozen=True)
class Contents:
    """The chosen streams of a file, and what the container says of them."""

    stream: int  # index of the picture stream
    packets: Packets
    tick: Fraction  # seconds
    rates: tuple[Fraction, ...]  # frames a second, the most trusted first
    end: Fraction | None  # seconds of the container's clock, where the pictures end as it says
    size: tuple[int, int]  # width, height
    duration: Fraction | None  # of a Matroska file: seconds from 0 to the end of its longest track, as it says
    exact: bool  # one packet is one picture
    counted: bool  # AVI: it numbers pictures, and knows no other times
    sound: int | None  # index of the sound stream
    sound_packets: Packets
    sound_tick: Fraction
    whole: bool  # read to the end without an error


def read_contents(container: av.container.InputContainer) -> Contents | None:
    """Read all packets and choose the streams; None if no stream has pictures.

    Raises ValueError if no stream could have.
    """
    candidates, sounds = picture_streams(container), sound_streams(container)
    if not candidates:
        raise ValueError("no video stream that can be decoded")
    packets, whole = read_packets(container, [*candidates, *sounds])
    stream, sound = choose_picture(candidates, packets), choose_sound(sounds, packets)
    if stream is None:
        return None
    rates = [to_fraction(rate) for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate)]
    rates = tuple(rate for rate in rates if rate and rate > 0)
    tick = to_fraction(stream.time_base) or 1 / (rates or (Fraction(25),))[0]
    return Contents(
        stream=stream.index,
        packets=packets[stream.index],
        tick=tick,
        rates=rates,
        end=_stated_end(stream, tick),
        size=(stream.codec_context.width, stream.codec_context.height),
        exact=container.format.name in EXACT_CONTAINERS and stream.codec_context.name in ONE_PACKET_ONE_PICTURE,
        duration=_stated_duration(container),
        counted=container.format.name == "avi",
        sound=None if sound is None else sound.index,
        sound_packets=Packets() if sound is None else packets[sound.index],
        sound_tick=Fraction(1) if sound is None else to_fraction(sound.time_base) or Fraction(1),
        whole=whole,
    )


def read_packets(
    container: av.container.InputContainer, streams: Iterable[av.stream.Stream]
) -> tuple[dict[int, Packets], bool]:
    """The packets of each stream by its index, and whether the container was read to its end without an error."""
    import av

    streams = list(streams)
    found = {stream.index: Packets() for stream in streams}
    try:
        for packet in container.demux(streams):
            if packet.size:  # an empty packet marks the end
                found[packet.stream_index].add(packet)
    except (av.error.FFmpegError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        return found, False
    return found, True


def picture_streams(container: av.container.InputContainer) -> list[av.VideoStream]:
    """The streams that can be decoded, without cover pictures and thumbnails."""
    import av

    still = av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails
    still |= av.stream.Disposition.still_image
    return [s for s in container.streams.video if s.codec_context is not None and not s.disposition & still]


def sound_streams(container: av.container.InputContainer) -> list[av.AudioStream]:
    """The streams that can be decoded."""
    return [stream for stream in container.streams.audio if stream.codec_context is not None]


def choose_picture(streams: list[av.VideoStream], packets: dict[int, Packets]) -> av.VideoStream | None:
    """The default stream, else the longest; of several defaults the longest. One-picture streams only if all are."""
    import av

    streams = [stream for stream in streams if len(packets[stream.index])]
    streams = [stream for stream in streams if len(packets[stream.index]) > 1] or streams
    default = av.stream.Disposition.default
    return max(
        streams,
        key=lambda stream: (bool(stream.disposition & default), _seconds(stream, packets[stream.index])),
        default=None,
    )


def choose_sound(streams: list[av.AudioStream], packets: dict[int, Packets]) -> av.AudioStream | None:
    """The default stream, else the first; none that is empty."""
    import av

    streams = [stream for stream in streams if len(packets[stream.index])]
    default = [stream for stream in streams if stream.disposition & av.stream.Disposition.default]
    return next(iter(default or streams), None)


def _seconds(stream: av.stream.Stream, packets: Packets) -> Fraction:
    stamps = [stamp for stamp in packets.stamps if stamp != NO_STAMP]
    tick = to_fraction(stream.time_base) or Fraction(1)
    return (max(stamps) - min(stamps)) * tick if stamps else Fraction(len(packets)) * tick


def _stated_end(stream: av.VideoStream, tick: Fraction) -> Fraction | None:
    stated = _clock_time(stream.metadata.get("DURATION", ""))
    if stated is None and stream.duration is not None:
        stated = ((stream.start_time or 0) + stream.duration) * tick
    return stated


def _stated_duration(container: av.container.InputContainer) -> Fraction | None:
    if container.format.name != "matroska,webm" or not container.duration:
        return None
    return Fraction(container.duration, 1_000_000)


def _clock_time(text: str) -> Fraction | None:
    """Seconds of a text such as "00:01:02.500", as mkv files hold it."""
    try:
        hours, minutes, seconds = text.strip("\0 ").split(":")
        return (int(hours) * 60 + int(minutes)) * 60 + Fraction(seconds[:20])
    except (ValueError, ZeroDivisionError):
        return None
