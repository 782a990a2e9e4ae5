"""Damaged videos go on without what is damaged, and say so; which stream of several is meant; files beyond reason."""

import errno
import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from clocked import through_the_project, write_recording
from media import corners, frame_number, rewrite, write_video

from musepose.media import stored_video
from musepose.media.damage import damaged_frames, describe_damage
from musepose.media.video_reader import probe, read_frames, read_frames_at
from musepose.media.video_writer import VideoWriter
from musepose.utils.errors import UserError

HALF_A_FRAME = 1 / 60  # seconds: a sound that is a frame early or late is out of step
PICTURES = [number / 30 for number in range(60)]
NO_REFERENCES = {"g": "20", "bf": "0", "x264-params": "ref=1"}


@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_a_picture_that_does_not_decode_is_left_out_and_named(tmp_path, container):
    """A B picture: no other refers to it."""
    options = {"g": "20", "bf": "1", "b-pyramid": "none", "sc_threshold": "0", "b_strategy": "0"}
    path = write_recording(tmp_path / "a.mkv", PICTURES, options=options, container=container)
    with av.open(str(path)) as file:
        packets = [packet for packet in file.demux(video=0) if packet.size]
        number = next(n for n, packet in enumerate(packets) if n > 20 and packet.pts < packets[n - 1].pts)
        shown = round(float(packets[number].pts * packets[number].time_base) * 30)
    path = rewrite(path, lambda n, content: content[:5] + b"\xff" * (len(content) - 5) if n == number else content)
    info = probe(path)
    damaged = damaged_frames(info)
    assert damaged == [shown] and (info.frames, info.rate) == (60, 30)
    expected = [number if number != shown else shown - 1 for number in range(60)]
    assert [frame_number(frame) for frame in read_frames(info)] == expected
    assert {n: frame_number(f) for n, f in read_frames_at(path, [shown, 59]).items()} == {shown: shown - 1, 59: 59}
    assert describe_damage(path, [shown]).endswith(f"left out, the one before is shown instead: {shown}")


@pytest.mark.parametrize("kind", ["refused", "wrong"])
def test_damage_lasts_to_the_next_key_picture(tmp_path, kind):
    """Later pictures refer to it, and FFmpeg marks the first one only."""
    noise = [np.random.default_rng(n).integers(0, 255, (48, 64, 3), dtype=np.uint8) for n in range(60)]
    path = write_video(tmp_path / "a.mp4", noise, stream_options=NO_REFERENCES | {"sc_threshold": "0"})
    whole = list(read_frames(path))

    def change(number, content):
        if number != 26:
            return content
        half = len(content) // 2
        return bytes(len(content)) if kind == "refused" else content[:half] + bytes(len(content) - half)

    path = rewrite(path, change)
    assert damaged_frames(probe(path)) == list(range(26, 40))
    shown = list(read_frames(path))
    for number in range(60):
        assert np.array_equal(shown[number], whole[25 if 26 <= number < 40 else number]), number


def test_a_damaged_first_picture_moves_the_start(tmp_path):
    """To the next key picture, and the sound with it."""
    path = write_recording(tmp_path / "a.mkv", PICTURES, 2, [1.0], damaged=[0])
    numbers, rate, beeps = through_the_project(path, tmp_path)
    assert numbers == list(range(12, 60)) and beeps == pytest.approx([18 / 30], abs=HALF_A_FRAME)
    assert "pictures are left out" in probe(path).notes[0] and not damaged_frames(probe(path))


def test_a_decoder_that_takes_no_packets_after_damage_is_flushed(tmp_path):
    """FFmpeg says EAGAIN where VP9 packets in turn are damaged, as where it cannot start a thread."""
    options = {"g": "12", "lag-in-frames": "0"}
    path = write_recording(tmp_path / "a.webm", PICTURES, container="webm", codec="libvpx-vp9", options=options)
    path = rewrite(path, lambda number, content: bytes(len(content)) if number in (17, 18) else content)
    info, damaged = probe(path), range(17, 24)  # to the next key picture
    assert info.frames == 60 and set(damaged_frames(info)) <= set(damaged)
    expected = [16 if number in damaged else number for number in range(60)]
    assert [frame_number(frame) for frame in read_frames(info)] == expected


def test_runs_of_damaged_frames_are_named():
    line = describe_damage(Path("a.mp4"), [3, *range(10, 60_000), 70_001])
    assert line.endswith(": 3, 10 to 59999, 70001") and "59992 frames are damaged" in line


def test_less_than_half_is_refused(tmp_path):
    options = {"g": "1"}
    path = write_video(tmp_path / "a.mp4", 40, stream_options=options)
    assert len(damaged_frames(probe(rewrite(path, lambda n, c: bytes(len(c)) if n % 2 else c)))) == 20
    broken = rewrite(path, lambda n, c: bytes(len(c)) if n % 2 or n == 20 else c)
    with pytest.raises(UserError, match="only 19 of 40 pictures can be decoded"):
        damaged_frames(probe(broken))


def test_only_the_frames_in_use_count(tmp_path):
    path = write_video(tmp_path / "a.mp4", 40, stream_options={"g": "1"})
    path = rewrite(path, lambda n, c: bytes(len(c)) if n >= 10 else c)
    assert damaged_frames(probe(path), 15) == [10, 11, 12, 13, 14]


@pytest.mark.parametrize("packets", [[0], [10, 11, 40]])
def test_a_damaged_sound_packet_costs_its_own_time(tmp_path, packets, caplog):
    path = write_recording(tmp_path / "a.mkv", PICTURES, 2, [1.5], damaged_sound=packets)
    _, _, beeps = through_the_project(path, tmp_path)
    assert beeps == pytest.approx([1.5], abs=HALF_A_FRAME)
    assert f"{len(packets)} damaged packet" in caplog.text


def test_lost_frames_of_an_mkv_are_told(tmp_path):
    """A damaged stretch of the file is skipped in silence by FFmpeg."""
    path = write_recording(tmp_path / "a.mkv", PICTURES)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    path.write_bytes(data)
    info = probe(path)
    assert info.frames < 60 and any("damaged" in note and "earlier than it says" in note for note in info.notes)


def test_a_video_that_is_shortened_meanwhile_is_noticed(tmp_path):
    path = write_video(tmp_path / "a.mp4", 20)
    info = probe(path)
    os.replace(write_video(tmp_path / "b.mp4", 10), path)
    with pytest.raises(UserError, match="was changed while it was in use"):
        list(read_frames(info))
    with pytest.raises(UserError, match="was changed while it was in use"):
        damaged_frames(info)


# Which stream


def add_streams(path, streams, sounds=0):
    """A file of several video streams: (number of frames, first number, disposition) each."""
    with av.open(str(path), "w", format="matroska" if path.suffix == ".mkv" else "mp4") as output:
        added = []
        for _, _, disposition in streams:
            stream = output.add_stream("libx264", rate=30)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            stream.disposition = getattr(av.stream.Disposition, disposition).value if disposition else 0
            added.append(stream)
        from media import numbered_frame

        for stream, (count, first, _) in zip(added, streams, strict=True):
            for number in range(count):
                frame = av.VideoFrame.from_ndarray(numbered_frame(first + number, 64, 48), format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, 30)
                output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
    return path


STREAMS = {
    "thumbnail first": ([(1, 100, ""), (20, 0, "default")], 0, 20),
    "thumbnail first, called default": ([(1, 100, "default"), (20, 0, "")], 0, 20),
    "the default, though shorter": ([(30, 100, ""), (20, 0, "default")], 0, 20),
    "no default: the longest": ([(10, 100, ""), (20, 0, "")], 0, 20),
    "two defaults: the longest": ([(10, 100, "default"), (20, 0, "default")], 0, 20),
    "only one picture": ([(1, 7, "default")], 7, 1),
}


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
@pytest.mark.parametrize("name", STREAMS)
def test_the_stream_that_is_meant(tmp_path, name, suffix):
    streams, first, frames = STREAMS[name]
    if suffix == ".mp4" and name.startswith("no default"):
        pytest.skip("FFmpeg's mp4 muxer calls the first stream default then")
    path = add_streams(tmp_path / f"a{suffix}", streams)
    assert [frame_number(frame) for frame in read_frames(path)] == list(range(first, first + frames))
    assert probe(path).frames == frames


@pytest.mark.parametrize("tracks, heard", [(("", "default"), True), (("default", ""), False), (("default",), True)])
def test_the_default_sound_track_is_heard(tmp_path, tracks, heard):
    """Only the last track beeps."""
    path = write_recording(tmp_path / "a.mkv", PICTURES, 2, [1.0], tracks=tracks)
    assert (len(through_the_project(path, tmp_path)[2]) == 1) == heard


# Beyond reason


@pytest.mark.parametrize("spacing", [1e-6, 5000])
def test_rates_beyond_reason_are_refused(tmp_path, spacing):
    times = [number * spacing for number in range(12)]
    with av.open(str(tmp_path / "a.mp4"), "w") as output:
        stream = output.add_stream("libx264", rate=30, options={"bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000000)
        for time in times:
            frame = av.VideoFrame.from_ndarray(corners(64, 48), format="rgb24")
            frame.pts, frame.time_base = round(time * 1000000), Fraction(1, 1000000)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    with pytest.raises(UserError, match="frames a second: give a video of 1/1000 to 1000"):
        probe(tmp_path / "a.mp4")


def test_sizes_beyond_reason_are_refused(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mp4", 2)
    monkeypatch.setattr(stored_video, "MOST_PIXELS", 64 * 48 - 1)
    stored_video._measure.cache_clear()
    with pytest.raises(UserError, match="is 64 x 48, which is too large: scale it down"):
        probe(path)


@pytest.mark.parametrize("error", [av.error.MemoryError(errno.ENOMEM, ""), av.error.BlockingIOError(errno.EAGAIN, "")])
def test_too_little_memory_is_not_blamed_on_the_video(tmp_path, monkeypatch, error):
    """FFmpeg says EAGAIN where it cannot start a thread."""
    path = write_video(tmp_path / "a.mp4", 2)

    def full(path):
        raise error

    monkeypatch.setattr(stored_video, "open_media", full)
    with pytest.raises(UserError, match="needs more memory than there is"):
        probe(path)


def test_an_animated_gif_is_a_video_with_its_own_times(tmp_path):
    from media import numbered_frame
    from PIL import Image

    frames = [Image.fromarray(numbered_frame(number, 64, 48)) for number in range(6)]
    durations = [100, 100, 300, 100, 100, 100]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=durations)
    info = probe(tmp_path / "a.gif")
    assert info.rate == 10
    assert [frame_number(frame) for frame in read_frames(info)][:8] == [0, 1, 2, 2, 2, 3, 4, 5]


def test_written_videos_are_read_as_they_were_written(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", 64, 48, 30) as writer:
        for frame in read_frames(write_video(tmp_path / "b.mp4", 9)):
            writer.write(frame)
    info = probe(tmp_path / "a.mp4")
    assert (info.frames, info.rate, info.resampling, info.notes) == (9, 30, None, ())
