"""Parts of a video, read without decoding all before them."""

import numpy as np
import pytest
from media import frame_number, rewrite, write_video

from musepose.media import decoding
from musepose.media.damage import damaged_frames
from musepose.media.video_reader import VideoFrames, probe, read_frames
from musepose.pipelines.pose_frames import PoseFrames

KEY_UNIT = b"\x65\x88"  # header of an IDR slice


@pytest.mark.parametrize("options", [{"g": "10"}, {"g": "10", "bf": "0"}, {"g": "250"}], ids=str)
@pytest.mark.parametrize("step", [1, 3])
def test_a_part_is_the_same_as_in_the_whole(tmp_path, options, step):
    """Also between key pictures, with B pictures, and at both ends."""
    path = write_video(tmp_path / "a.mp4", 47, stream_options=options)
    whole = list(read_frames(path, step))
    frames = VideoFrames(probe(path), step, len(whole))
    assert len(frames) == len(whole) == len(list(frames))
    for part in (range(0, 3), range(7, 9), range(10, 15), range(14, len(whole)), range(5, 5)):
        np.testing.assert_array_equal(list(frames.read(part)), whole[part.start : part.stop], err_msg=str(part))
    assert len(list(frames.read(range(len(whole) - 2, 99)))) == 2


def test_a_part_decodes_little(tmp_path, monkeypatch):
    """From the last key picture on, and the first picture, which defines size and colours."""
    path = write_video(tmp_path / "a.mp4", 100)
    frames = VideoFrames(probe(path), 1, 100)
    seen = []
    monkeypatch.setattr(decoding, "_decode_packets", counting(decoding._decode_packets, seen))
    assert [frame_number(frame) for frame in frames.read(range(72, 75))] == [72, 73, 74]
    assert len(seen) < 40


def counting(decode, seen: list):
    def counted(*arguments):
        for packet, frames in decode(*arguments):
            seen.append(packet)
            yield packet, frames

    return counted


def test_a_damaged_key_picture_before_the_part(tmp_path):
    """The picture before it is shown up to the next key picture, as in the whole video."""
    path = write_video(tmp_path / "a.mp4", 40, container="matroska", stream_options={"g": "10", "bf": "0"})
    data = bytearray(path.read_bytes())
    start = data.index(KEY_UNIT, data.index(KEY_UNIT, data.index(KEY_UNIT) + 9) + 9)
    data[start + 6 : start + 16] = bytes(10)
    path.write_bytes(data)
    whole = list(read_frames(path))
    damaged = damaged_frames(probe(path))
    part = range(damaged[0] + 1, damaged[-1] + 3)
    assert len(damaged) > 2 and (whole[part.start] == whole[damaged[0] - 1]).all()
    np.testing.assert_array_equal(list(VideoFrames(probe(path), 1, 40).read(part)), whole[part.start : part.stop])


def test_decoding_starts_with_the_last_whole_key_picture(tmp_path, monkeypatch):
    """The first and the last two keys are whole, those between are damaged."""
    path = write_video(tmp_path / "a.mp4", 100, stream_options={"g": "10", "bf": "0", "sc_threshold": "0"})
    path = rewrite(path, lambda n, content: bytes(len(content)) if n in (50, 60, 70) else content)
    whole, seen = list(read_frames(path)), []
    monkeypatch.setattr(decoding, "_decode_packets", counting(decoding._decode_packets, seen))
    np.testing.assert_array_equal(list(VideoFrames(probe(path), 1, 100).read(range(75, 85))), whole[75:85])
    assert {frame_number(frame) for frame in whole[75:80]} == {49}
    assert 45 < len(seen) < 60  # from 40 on, and the beginnings


def test_pose_frames_of_a_part(tmp_path):
    """Only the wanted pictures are decoded, the last one where it pads; they are those of the whole video."""
    path = write_video(tmp_path / "a.mp4", 60)
    asked = []

    class Frames(VideoFrames):
        def read(self, frames):
            asked.append(frames)
            return super().read(frames)

    wanted = {*range(10, 14), *range(30, 33)}
    part = PoseFrames(Frames(probe(path), 1, 60), 32, 32, wanted)
    whole = PoseFrames(read_frames(path), 32, 32)
    assert asked == [range(10, 14), range(30, 33)]
    end = PoseFrames(Frames(probe(path), 1, 60), 32, 32, {60, 61})
    assert asked[2:] == [range(59, 60)]
    assert PoseFrames(Frames(probe(path), 1, 60), 32, 32, set()).length == part.length == whole.length == 60
    for frames in (range(10, 14), range(30, 33)):
        assert part.read(frames).equal(whole.read(frames))
    assert end.read(range(60, 62)).equal(whole.read(range(60, 62)))
    with pytest.raises(ValueError, match="pose frame 20 was not wanted"):
        part.read(range(20, 21))
