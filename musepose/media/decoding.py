"""Decodes a video's pictures, and tells which of them are whole."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from musepose.media.containers import to_fraction
from musepose.utils.errors import is_out_of_memory

if TYPE_CHECKING:
    import av

LOOKAHEAD = 16  # pictures; none is decoded further ahead of its display (ITU-T H.264, A.3.1)
REMEMBERED = 64  # packets


@dataclass(frozen=True)
class Picture:
    """A decoded picture."""

    frame: av.VideoFrame
    whole: bool  # neither damaged itself nor, as far as can be known, a picture that it refers to
    ratio: Fraction | None = None  # sample aspect ratio that the coded video states for it; None: unknown


def decode_pictures(
    container: av.container.InputContainer,
    stream: av.VideoStream,
    wait_for_key: bool = False,  # pictures before the first key picture are not whole
    one_packet_one_picture: bool = False,  # a packet whose picture never comes is damaged
) -> Iterator[Picture]:
    """The pictures in the order of display; those that do not decode are missing.

    FFmpeg marks the first of several wrong pictures only, so all those count as damaged that are decoded after a
    damaged one, up to the next key picture; not so if no other picture refers to the damaged one. `stream` decodes with
    one thread: with several, some damage is not marked, and which is a matter of chance. A damaged container ends the
    video early.
    """
    damage = _Damage(wait_for_key, one_packet_one_picture)
    for packet, frames in _decode_packets(container, stream):
        if packet is not None:
            damage.see_packet(packet, to_fraction(stream.codec_context.sample_aspect_ratio))
        for frame in frames if frames is not None else ():
            damage.see_frame(frame)
        if frames is None:
            damage.see_loss(packet)
        yield from damage.ready()
    yield from damage.ready(end=True)


def _decode_packets(
    container: av.container.InputContainer, stream: av.VideoStream
) -> Iterator[tuple[av.Packet | None, list[av.VideoFrame] | None]]:
    """Each packet with the frames that it completes; None for an undecodable packet. No packet at the end."""
    import av

    for packet, frames in decode_packets(container, stream):
        if not packet.size:
            yield None, frames or []
            return
        yield packet, frames
    try:
        yield None, stream.codec_context.decode(None)
    except (av.error.FFmpegError, ValueError, EOFError):
        return


def decode_packets(
    container: av.container.InputContainer, stream: av.VideoStream | av.AudioStream
) -> Iterator[tuple[av.Packet, list[av.VideoFrame] | list[av.AudioFrame] | None]]:
    """Each packet with the frames that it completes, the empty one at the end included; None: it does not decode.

    A damaged container ends early, without the empty packet. Raises errors of memory.
    """
    import av

    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except (av.error.FFmpegError, ValueError) as error:
            if is_out_of_memory(error):
                raise
            return
        if packet is None:
            return
        try:
            frames = _decode_packet(packet)
        except (av.error.FFmpegError, ValueError) as error:
            if is_out_of_memory(error):
                raise
            frames = None
        yield packet, frames


def _decode_packet(packet: av.Packet) -> list[av.VideoFrame] | list[av.AudioFrame]:
    """The frames that a packet completes; raises FFmpegError, ValueError.

    After some damage a decoder (VP9's) takes no packet any more before it is flushed: FFmpeg calls that EAGAIN.
    """
    import av

    try:
        return packet.decode()
    except av.error.BlockingIOError:
        packet.stream.codec_context.flush_buffers()
        return packet.decode()


class _Damage:
    """Holds pictures back until it is known whether one that they may refer to is damaged."""

    def __init__(self, wait_for_key: bool, one_packet_one_picture: bool) -> None:
        self._key = None if wait_for_key else -1  # place in the file of the last key picture shown
        self._complete = one_packet_one_picture
        self._packets = 0
        self._places: dict[int, int] = {}  # time stamp → place, of the last packets
        self._tops: dict[int, int] = {}  # place → latest time stamp up to there
        self._referred: dict[int, bool] = {}  # place → whether other pictures may refer to this one
        self._ratios: dict[int, Fraction | None] = {}  # place → sample aspect ratio
        self._awaited: set[int] = set()  # time stamps of packets whose pictures have not come
        self._breaks: list[tuple[int, int | None]] = []  # place and time stamp of damaged pictures that others refer to
        self._waiting: deque[tuple[av.VideoFrame, int, int | None]] = deque()  # frame, place, stamp to wait for
        self._shown: int | None = None  # the latest time stamp that has come

    def see_packet(self, packet: av.Packet, ratio: Fraction | None) -> None:
        place, stamp = self._packets, packet.pts
        self._packets += 1
        self._ratios[place] = ratio
        self._referred[place] = may_be_referred_to(packet)
        top = self._tops.get(place - 1)
        self._tops[place] = stamp if top is None else top if stamp is None else max(top, stamp)
        if stamp is not None:
            self._places[stamp] = place
            if self._complete and not packet.is_discard:
                self._awaited.add(stamp)
        for table in (self._tops, self._referred, self._places, self._ratios):
            while len(table) > REMEMBERED:
                del table[next(iter(table))]

    def see_loss(self, packet: av.Packet) -> None:
        """The decoder refused the last packet."""
        self._awaited.discard(packet.pts)
        if self._referred[self._packets - 1]:
            self._breaks.append((self._packets - 1, packet.pts))

    def see_frame(self, frame: av.VideoFrame) -> None:
        stamp = frame.pts
        place = self._places.get(stamp, self._packets - 1)
        if frame.is_corrupt and self._referred.get(place, True):
            self._breaks.append((place, stamp))
        if stamp is not None:
            self._awaited.discard(stamp)
            for missing in [late for late in self._awaited if late < stamp]:
                self._awaited.discard(missing)
                lost = self._places.get(missing)
                if lost is not None and self._referred.get(lost, True) and self._key is not None:
                    self._breaks.append((lost, missing))
            self._shown = stamp if self._shown is None else max(self._shown, stamp)
        top = self._tops.get(place)
        self._waiting.append((frame, place, None if stamp is None or top is None or top <= stamp else top))

    def ready(self, end: bool = False) -> Iterator[Picture]:
        """The pictures that need not wait any more."""
        while self._waiting:
            frame, place, awaited = self._waiting[0]
            late = awaited is not None and (self._shown is None or self._shown < awaited)
            if late and not end and len(self._waiting) <= LOOKAHEAD:
                return
            self._waiting.popleft()
            if frame.key_frame and (self._key is None or place >= self._key):
                self._key = place
                # Pictures that are decoded after the key picture and shown before it are referred to by none behind.
                self._breaks = [one for one in self._breaks if one[0] >= place and not _earlier(one[1], frame.pts)]
            whole = self._key is not None and not frame.is_corrupt
            whole = whole and not any(self._key <= one <= place for one, _ in self._breaks)
            yield Picture(frame, whole, self._ratios.get(place))


def _earlier(stamp: int | None, other: int | None) -> bool:
    return stamp is not None and other is not None and stamp < other


def may_be_referred_to(packet: av.Packet) -> bool:
    """Whether other pictures may refer to the packet's; True if unknown.

    Reads the header of the first coded slice: nal_ref_idc (ITU-T H.264, 7.4.1); the even types below 16 and the
    leading pictures, types 6 to 9 (ITU-T H.265, 7.4.2.2).
    """
    context = packet.stream.codec_context
    if context.name not in ("h264", "hevc"):
        return True
    data, hevc = memoryview(packet), context.name == "hevc"
    for position in _unit_starts(data, context.extradata, 21 if hevc else 4):
        header = data[position]
        kind = header >> 1 & 63 if hevc else header & 31
        if not hevc and 1 <= kind <= 5:
            return bool(header & 0x60)
        if hevc and kind < 32:
            return kind >= 16 or (kind not in (6, 7, 8, 9) and kind % 2 == 1)
    return True


def _unit_starts(
    data: memoryview,
    extradata: bytes | None,
    width_at: int,  # where extradata holds the width of the lengths, less one (ISO/IEC 14496-15, 5.3.3 and 8.3.3)
) -> Iterator[int]:
    """Positions of the NAL units' headers: behind start codes, or behind lengths as in mp4 and mkv."""
    head = bytes(data[:4096])
    if not extradata or extradata[0] != 1:
        position = head.find(b"\0\0\1")
        while 0 <= position < len(head) - 3:
            yield position + 3
            position = head.find(b"\0\0\1", position + 3)
        return
    width = (extradata[width_at] & 3) + 1 if len(extradata) > width_at else 4
    position = 0
    while position + width < len(data):
        yield position + width
        position += width + int.from_bytes(data[position : position + width], "big")
