"""Reading videos: sizes, frame counts, rates, colours, rotation, bad files."""

from fractions import Fraction

import av
import media
import numpy as np
import pytest
from media import colour_error, corners, frame_number, write_video

from musepose.media import video_reader
from musepose.media.color import FrameConverter
from musepose.media.containers import missing_bytes
from musepose.media.video_reader import VIDEO_SUFFIXES, list_media, probe, read_frames, read_frames_at
from musepose.utils.errors import UserError

KINDS = {  # suffix: what to put into it
    ".mp4": {},
    ".mov": {"container": "mov"},
    ".mkv": {"container": "matroska"},
    ".webm": {"container": "webm", "codec": "libvpx", "stream_options": {"auto-alt-ref": "1", "lag-in-frames": "8"}},
    ".avi": {"container": "avi", "codec": "mpeg4"},
    ".m4v": {},
    ".3gp": {"container": "3gp"},
    ".ts": {"container": "mpegts"},
    ".mts": {"container": "mpegts", "options": {"mpegts_m2ts_mode": "1"}},
    ".m2ts": {"container": "mpegts", "codec": "mpeg2video", "options": {"mpegts_m2ts_mode": "1"}},
    ".flv": {"container": "flv"},
    ".wmv": {"container": "asf", "codec": "msmpeg4"},
    ".mpg": {"container": "mpeg", "codec": "mpeg1video"},
    ".mpeg": {"container": "vob", "codec": "mpeg2video"},
}
CODECS = [("libx264", "mp4"), ("libx264", "avi"), ("libx264", "mpegts"), ("libvpx-vp9", "webm"), ("mjpeg", "avi")]


@pytest.mark.parametrize("suffix", VIDEO_SUFFIXES)
def test_every_listed_suffix_is_read(tmp_path, suffix):
    path = write_video(tmp_path / f"Tänze: 100 %d 舞{suffix}", 12, rate=25, **KINDS[suffix])
    info = probe(path)
    assert (info.path, info.width, info.height, info.frames, info.rate) == (path, 64, 48, 12, 25)
    assert not info.has_audio
    assert [frame_number(frame) for frame in read_frames(path)] == list(range(12))


@pytest.mark.parametrize("codec, container", CODECS)
def test_counts_are_those_of_decoding(tmp_path, codec, container):
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    path = write_video(tmp_path / "a.bin", 23, codec=codec, container=container, pix_fmt=pix_fmt, stream_options={})
    assert probe(path).frames == 23 == sum(1 for _ in read_frames(path))


@pytest.mark.parametrize("step, count", [(1, None), (2, None), (2, 3), (3, 100), (1, 0), (7, 2)])
def test_step_and_count(tmp_path, step, count):
    path = write_video(tmp_path / "a.mp4", 11)
    assert [frame_number(frame) for frame in read_frames(path, step, count)] == list(range(0, 11, step))[:count]


def test_step_must_be_positive(tmp_path):
    with pytest.raises(ValueError, match="step 0"):
        read_frames(tmp_path / "a.mp4", step=0)


def test_frames_stream(tmp_path):
    frames = read_frames(write_video(tmp_path / "a.mp4", 40))
    assert frame_number(next(frames)) == 0
    frames.close()


SOUGHT = {
    "B frames": {"stream_options": {"g": "10", "bf": "3"}},
    "Matroska": {"container": "matroska", "stream_options": {"g": "7"}},
    "VP9": {"container": "webm", "codec": "libvpx-vp9", "stream_options": {"g": "8", "lag-in-frames": "8"}},
    "MPEG-4": {"container": "avi", "codec": "mpeg4", "stream_options": {"g": "6"}},
    "open groups": {"stream_options": {"x264-params": "open-gop=1:keyint=10:bframes=3:scenecut=0"}},
    "gradual refresh": {"stream_options": {"x264-params": "intra-refresh=1:keyint=10:bframes=0"}},
    "variable rate": {"times": [20 * i + i % 3 * 7 for i in range(30)], "stream_options": {"g": "9"}},
    "late start": {"times": [500 + 40 * i for i in range(30)], "stream_options": {"g": "9"}},
}


@pytest.mark.parametrize("name", SOUGHT)
def test_single_frames_are_those_of_the_whole_video(tmp_path, name):
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 255, (48, 64, 3), dtype=np.uint8) for _ in range(30)]
    path = write_video(tmp_path / "a.bin", noise, **SOUGHT[name])
    every = list(read_frames(path))
    end = len(every)
    for numbers in ([29, 5, 0, 5, 22], [13], [end, 8], [11, 12, 13, 14], [end - 1]):
        found = read_frames_at(path, numbers)
        assert found.keys() == {number for number in numbers if number < end}
        assert all(np.array_equal(picture, every[number]) for number, picture in found.items())


def test_single_frames_are_turned_and_scaled_as_the_first(tmp_path):
    path = media.write_rotated_video(tmp_path / "a.mp4")
    assert np.array_equal(read_frames_at(path, [3])[3], list(read_frames(path))[3])


def test_single_frames_are_decoded_from_their_key_frame_on_and_nothing_else_is_converted(tmp_path, monkeypatch):
    decoded, converted = [], []
    convert, decode = FrameConverter.__call__, video_reader.decode_pictures

    def counting(*arguments):
        for picture in decode(*arguments):
            decoded.append(picture.frame.pts)
            yield picture

    monkeypatch.setattr(video_reader, "decode_pictures", counting)
    monkeypatch.setattr(FrameConverter, "__call__", lambda s, f, *r: converted.append(f.pts) or convert(s, f, *r))
    path = write_video(tmp_path / "a.mp4", 100, stream_options={"g": "10", "sc_threshold": "0"})
    assert {n: frame_number(frame) for n, frame in read_frames_at(path, [97, 52, 54]).items()} == {
        52: 52,
        54: 54,
        97: 97,
    }
    assert len(decoded) == 1 + 5 + 8 and len(converted) == 3


@pytest.mark.parametrize("size", [(48, 64), (66, 34), (2, 2), (500, 20)])
def test_odd_shapes(tmp_path, size):
    info = probe(write_video(tmp_path / "a.mp4", 3, *size))
    assert (info.width, info.height) == size


def test_odd_sides(tmp_path):
    path = write_video(tmp_path / "a.mp4", 3, 63, 47, pix_fmt="yuv444p")
    assert (probe(path).width, probe(path).height) == (63, 47)
    assert next(read_frames(path)).shape == (47, 63, 3)


def test_one_frame(tmp_path):
    info = probe(write_video(tmp_path / "a.mp4", 1, rate=24))
    assert (info.frames, info.rate) == (1, 24)


@pytest.mark.parametrize("rate", [Fraction(30000, 1001), Fraction(24000, 1001), Fraction(25, 2), Fraction(60)])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_rates_are_fractions(tmp_path, rate, suffix):
    assert probe(write_video(tmp_path / f"a{suffix}", 40, rate=rate, **KINDS[suffix])).rate == rate


@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_a_variable_rate_becomes_constant(tmp_path, container):
    """Each picture appears in the frame nearest to its time, and stays until the next one appears."""
    times = [0, 20, 100, 120, 300, 310, 330, 600, 610, 900, 1000]  # milliseconds; the median distance is 20
    path = write_video(tmp_path / "a.bin", 11, times=times, container=container)
    info = probe(path)
    assert (info.frames, info.rate) == (51, 50) and info.resampling is not None
    numbers = [frame_number(frame) for frame in read_frames(path)]
    assert numbers == [max(n for n, time in enumerate(times) if (time + 10) // 20 <= k) for k in range(51)]


MATRICES = {  # display matrix (a, b, c, d): what has to be stored so that it shows the corners upright
    "quarter": ((0, 1, -1, 0), lambda picture: np.rot90(picture, 1)),
    "half": ((-1, 0, 0, -1), lambda picture: np.rot90(picture, 2)),
    "three quarters": ((0, -1, 1, 0), lambda picture: np.rot90(picture, 3)),
    "mirrored": ((-1, 0, 0, 1), np.fliplr),
    "mirrored quarter": ((0, 1, 1, 0), lambda picture: picture.swapaxes(0, 1)),
}


@pytest.mark.parametrize("name", MATRICES)
def test_rotation_flag_is_honoured(tmp_path, name):
    matrix, store = MATRICES[name]
    path = write_video(tmp_path / "a.mp4", [np.ascontiguousarray(store(corners(48, 64)))] * 3)
    media.set_display_matrix(path, *matrix)
    info, frames = probe(path), list(read_frames(path))
    assert (info.width, info.height) == (48, 64)
    assert {frame.shape for frame in frames} == {(64, 48, 3)}
    assert max(colour_error(frame) for frame in frames) <= 8  # the helper's file is plain x264 at its default quality


def test_colour_tags_are_followed(tmp_path):
    """The same colours through either matrix and either range."""
    for space, tag in (("ITU709", 1), ("ITU601", 6)):
        for colour_range, value in (("MPEG", 1), ("JPEG", 2)):
            path = tmp_path / f"{space}-{colour_range}.mp4"
            with av.open(str(path), "w") as output:
                stream = output.add_stream("libx264", rate=30, options={"crf": "4"})
                stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
                stream.codec_context.colorspace, stream.codec_context.color_range = tag, value
                frame = av.VideoFrame.from_ndarray(corners(128, 96), format="rgb24")
                frame = frame.reformat(format="yuv420p", dst_colorspace=space, dst_color_range=colour_range)
                output.mux(stream.encode(frame))
                output.mux(stream.encode(None))
            assert colour_error(next(read_frames(path))) < 4, path.name


def test_cover_art_is_no_video(tmp_path):
    song = tmp_path / "song.mp4"
    with av.open(str(song), "w", format="mp4") as output:
        cover = output.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic.value  # PyAV 17.0 takes no other
        audio = output.add_stream("aac", rate=44100, layout="mono")
        output.mux(
            cover.encode(av.VideoFrame.from_ndarray(corners(64, 48), format="rgb24").reformat(format="yuvj420p"))
        )
        output.mux(cover.encode(None))
        media.write_tone(output, audio, 0.5, 0)
    with pytest.raises(UserError, match="no video"):
        probe(song)


def test_has_audio(tmp_path):
    assert probe(write_video(tmp_path / "a.mp4", 5, sound=0.2)).has_audio


def picture(path):
    corners_path = media.write_picture(path.with_suffix(".png"), "rgb")
    return corners_path.replace(path)


def cut_off_index_last(path):
    return media.truncate(write_video(path, 30))


def cut_off_index_first(path):
    return media.truncate(write_video(path, 30, options={"movflags": "+faststart"}), 0.9)


def cut_off_mkv(path):
    return media.truncate(write_video(path, 30, container="matroska"), 0.9)


def cut_off_avi(path):
    return media.truncate(write_video(path, 30, container="avi", codec="mpeg4"), 0.9)


def scrambled(path):
    """Whole by its structure, but the first pictures are noise."""
    data = bytearray(write_video(path, 10, options={"movflags": "+faststart"}).read_bytes())
    start = data.index(b"mdat") + 4
    data[start:] = np.random.default_rng(0).bytes(len(data) - start)
    path.write_bytes(data)
    return path


BAD = {
    "missing": (lambda path: path, "does not exist"),
    "folder": (lambda path: path.mkdir() or path, "is a folder"),
    "empty": (media.write_empty, "is empty"),
    "text": (media.write_text, "not a video"),
    "picture": (picture, "not a video"),
    "sound only": (media.write_audio_only, "no video"),
    "no frames": (media.write_video_without_frames, "no frames"),
    "cut, index last": (cut_off_index_last, "cut off"),
    "cut, index first": (cut_off_index_first, "cut off"),
    "cut mkv": (cut_off_mkv, "cut off"),
    "cut avi": (cut_off_avi, "cut off"),
    "scrambled": (scrambled, "damaged"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_videos_are_refused(tmp_path, name):
    make, words = BAD[name]
    path = make(tmp_path / "dance.mp4")
    with pytest.raises(UserError, match=words) as caught:
        probe(path)
    assert str(path) in str(caught.value) and ": " in str(caught.value)
    with pytest.raises(UserError):
        list(read_frames(path))


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".3gp"])  # which state lengths
def test_whole_files_miss_no_bytes(tmp_path, suffix):
    path = write_video(tmp_path / f"a{suffix}", 12, **KINDS[suffix])
    assert missing_bytes(path) == 0
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-1])
    assert missing_bytes(path) == 1
    path.write_bytes(path.read_bytes() + b"x" + bytes(100))  # padding behind the end is no harm
    assert path.stat().st_size == size + 100 and missing_bytes(path) == 0


def test_list_media_finds_videos(tmp_path):
    for name in ("2.mov", "1.MP4", "note.txt"):
        media.write_empty(tmp_path / name)
    assert [path.name for path in list_media(tmp_path, VIDEO_SUFFIXES)] == ["1.MP4", "2.mov"]
