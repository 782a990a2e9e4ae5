"""Segments of a video, joined without encoding again."""

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from media import frame_number, numbered_frame, read_sound, write_video

from musepose.media.segments import SegmentJoiner
from musepose.media.video_reader import probe, read_frames
from musepose.media.video_writer import VideoWriter
from musepose.utils.errors import UserError

RATE = Fraction(30000, 1001)
SIZE = (64, 48)


def write_segments(folder: Path, cuts: list[int], **options) -> list[Path]:
    paths = []
    for first, stop in pairwise(cuts):
        paths.append(folder / f".{first}-{stop}.part")
        with VideoWriter(paths[-1], *SIZE, RATE, **options) as writer:
            for number in range(first, stop):
                writer.write(numbered_frame(number, *SIZE))
    return paths


@pytest.mark.parametrize("cuts", [[0, 40], [0, 17, 18, 20, 40], [0, 1, 2, 3, 40]], ids=["one", "four", "short ones"])
def test_joined_pictures_are_the_segments(tmp_path, cuts):
    """In order, to the last bit, one a frame time; decoding time stamps run on where segments meet."""
    segments = write_segments(tmp_path, cuts)
    with SegmentJoiner(tmp_path / "joined.mp4", segments, *SIZE, RATE) as joiner:
        joiner.copy()
    joined = list(read_frames(tmp_path / "joined.mp4"))
    assert [frame_number(frame) for frame in joined] == list(range(40))
    np.testing.assert_array_equal(joined, [frame for path in segments for frame in read_frames(path)])
    info = probe(tmp_path / "joined.mp4")
    assert (info.frames, info.rate, info.width, info.height) == (40, RATE, *SIZE)
    with av.open(str(tmp_path / "joined.mp4")) as container:
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.dts is not None]
        assert stream.duration * stream.time_base == 40 / RATE
    assert {packet.pts * packet.time_base for packet in packets} == {number / RATE for number in range(40)}
    assert all(one.dts < other.dts for one, other in pairwise(packets))
    assert all(packet.dts <= packet.pts for packet in packets)


def test_the_sound_runs_through(tmp_path):
    source = write_video(tmp_path / "source.mp4", 60, sound=2)
    with SegmentJoiner(
        tmp_path / "joined.mp4", write_segments(tmp_path, [0, 10, 30]), *SIZE, RATE, audio_from=source
    ) as joiner:
        joiner.copy()
    samples, rate, length = read_sound(tmp_path / "joined.mp4")
    assert abs(length - 30 / RATE) < 1024 / rate  # an AAC frame
    quiet = np.abs(samples[0, rate // 10 : -rate // 10]).reshape(-1)
    assert np.abs(quiet).max() > 0.4
    blocks = quiet[: len(quiet) // 441 * 441].reshape(-1, 441)  # 10 ms: more than four periods of the tone
    assert (blocks.max(1) > 0.3).all()


def test_a_segment_of_another_size_is_refused(tmp_path):
    segments = write_segments(tmp_path, [0, 5])
    with VideoWriter(tmp_path / ".other.part", 32, 32, RATE) as writer:
        writer.write(numbered_frame(0, 32, 32))
    with (
        pytest.raises(UserError, match="other settings than .*: delete it and start again"),
        SegmentJoiner(tmp_path / "joined.mp4", [*segments, tmp_path / ".other.part"], *SIZE, RATE) as joiner,
    ):
        joiner.copy()
    assert not (tmp_path / "joined.mp4").exists()


def test_a_spoilt_segment_is_named(tmp_path):
    segments = write_segments(tmp_path, [0, 5, 9])
    segments[1].write_bytes(b"not a video")
    with (
        pytest.raises(UserError, match=r"\.5-9\.part cannot be read"),
        SegmentJoiner(tmp_path / "joined.mp4", segments, *SIZE, RATE) as joiner,
    ):
        joiner.copy()
    assert not (tmp_path / "joined.mp4").exists()


def test_ffmpeg_plays_joined_segments_without_a_word(tmp_path):
    """From the start and from each segment's start; what is shown there does not depend on the segment before."""
    cuts = [0, 17, 18, 40]
    source = write_video(tmp_path / "source.mp4", 60, sound=2)
    with SegmentJoiner(
        tmp_path / "joined.mp4", write_segments(tmp_path, cuts), *SIZE, RATE, audio_from=source
    ) as joiner:
        joiner.copy()
    av.logging.set_level(av.logging.WARNING)
    try:
        with av.logging.Capture() as told, av.open(str(tmp_path / "joined.mp4")) as container:
            pictures = list(container.decode(video=0))
            container.seek(0)
            assert sum(frame.samples for frame in container.decode(audio=0)) > 0
            stream = container.streams.video[0]
            for start in cuts[:-1]:
                container.seek(pictures[start].pts, stream=stream)
                first = next(container.decode(stream))
                assert (first.pts, first.key_frame) == (pictures[start].pts, 1)
                np.testing.assert_array_equal(first.to_ndarray(), pictures[start].to_ndarray())
    finally:
        av.logging.set_level(None)
    assert told == []
    assert [frame.pts for frame in pictures] == sorted({frame.pts for frame in pictures})
    assert len(pictures) == 40 and not any(frame.is_corrupt for frame in pictures)
