"""Videos in and out: sizes, counts, rates, colours, sound; and nothing half-written under a final name."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
from fractions import Fraction
from pathlib import Path

import av
import media
import numpy as np
import pytest
from media import CORNERS, corners, frame_number, numbered_frame, read_sound, write_video

from musepose.containers import missing_bytes
from musepose.errors import UserError
from musepose.video import VIDEO_SUFFIXES, VideoWriter, even_size, list_media, probe, read_frames

KINDS = {  # suffix: what to put into it
    ".mp4": {},
    ".mov": {"container": "mov"},
    ".mkv": {"container": "matroska"},
    ".webm": {"container": "webm", "codec": "libvpx", "stream_options": {"auto-alt-ref": "1", "lag-in-frames": "8"}},
    ".avi": {"container": "avi", "codec": "mpeg4"},
}
CODECS = [("libx264", "mp4"), ("libx264", "avi"), ("libx264", "mpegts"), ("libvpx-vp9", "webm"), ("mjpeg", "avi")]


def writer(path, width=64, height=48, rate=30, **options):
    return VideoWriter(path, width, height, rate, **options)


def write_numbered(path: Path, frames: int, rate=30, **options) -> Path:
    with writer(path, rate=rate, **options) as output:
        for index in range(frames):
            output.write(numbered_frame(index, 64, 48))
    return path


def colour_error(frame: np.ndarray) -> int:
    height, width = frame.shape[:2]
    places = [(y, x) for y in (height // 4, 3 * height // 4) for x in (width // 4, 3 * width // 4)]
    return int(np.abs([frame[place].astype(int) for place in places] - np.array(CORNERS)).max())


# Reading


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
def test_variable_rate_is_averaged(tmp_path, container):
    times = [0, 20, 100, 120, 300, 310, 330, 600, 610, 900, 1000]  # 10 steps in 1 s, most of them shorter
    info = probe(write_video(tmp_path / "a.bin", 11, times=times, container=container))
    assert info.frames == 11 and abs(info.rate - 10) < 0.05


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
        cover.disposition = av.stream.Disposition.attached_pic
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


@pytest.mark.parametrize("suffix", VIDEO_SUFFIXES)
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


# Writing


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize("rate", [Fraction(15), Fraction(15000, 1001)])
def test_round_trip(tmp_path, suffix, rate):
    path = write_numbered(tmp_path / "neu" / f"Ergebnis ü{suffix}", 20, rate)
    info = probe(path)
    assert (info.width, info.height, info.frames, info.rate) == (64, 48, 20, rate)
    assert [frame_number(frame) for frame in read_frames(path)] == list(range(20))
    assert os.listdir(path.parent) == [path.name]


def test_colours_survive_and_are_tagged(tmp_path):
    with writer(tmp_path / "a.mp4", 128, 96) as output:
        for _ in range(5):
            output.write(corners(128, 96))
    assert max(colour_error(frame) for frame in read_frames(tmp_path / "a.mp4")) < 4
    with av.open(str(tmp_path / "a.mp4")) as container:
        context = container.streams.video[0].codec_context
        tags = (context.colorspace, context.color_primaries, context.color_trc, context.color_range)
        assert context.name == "h264" and context.pix_fmt == "yuv420p" and tags == (1, 1, 1, 1)


def test_index_stands_in_front(tmp_path):
    data = write_numbered(tmp_path / "a.mp4", 5).read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_odd_sizes_are_refused(tmp_path):
    for size in ((63, 48), (64, 47), (0, 48)):
        with pytest.raises(ValueError, match="even"):
            writer(tmp_path / "a.mp4", *size)
    assert even_size(63, 48) == (62, 48) and even_size(1, 721) == (2, 720)


@pytest.mark.parametrize("frame", [np.zeros((48, 66, 3), np.uint8), np.zeros((48, 64, 3), np.float32)])
def test_other_frames_are_refused(tmp_path, frame):
    with pytest.raises(ValueError, match="for a video"), writer(tmp_path / "a.mp4") as output:
        output.write(numbered_frame(0, 64, 48))
        output.write(frame)
    assert not os.listdir(tmp_path)


def test_a_video_without_frames_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="no frame"), writer(tmp_path / "a.mp4"):
        pass
    assert not os.listdir(tmp_path)


def test_unknown_suffix_is_refused(tmp_path):
    with pytest.raises(UserError, match="end its name in"):
        writer(tmp_path / "a.webp")


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_exception_leaves_the_old_file(tmp_path, error):
    path = write_numbered(tmp_path / "a.mp4", 5)
    before = path.read_bytes()
    with pytest.raises(error), writer(path) as output:
        output.write(numbered_frame(0, 64, 48))
        raise error
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["a.mp4"]


def test_errors_of_the_caller_are_not_the_writers(tmp_path):
    with pytest.raises(FileNotFoundError), writer(tmp_path / "a.mp4") as output:
        output.write(numbered_frame(0, 64, 48))
        (tmp_path / "nowhere").stat()
    assert not os.listdir(tmp_path)


def test_a_name_as_long_as_names_can_be(tmp_path):
    path = write_numbered(tmp_path / ("舞" * 83 + ".mp4"), 3)
    assert probe(path).frames == 3


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), lambda path: None])
def test_a_place_that_cannot_be_written(tmp_path, make):
    (tmp_path / "file").write_text("x")
    path = tmp_path / "a.mp4"
    path = path if make(path) is None and path.is_dir() else tmp_path / "file" / "a.mp4"
    with pytest.raises(UserError, match="cannot write"):
        write_numbered(path, 3)
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".part")]


# Sound


def test_sound_is_cut_to_the_video(tmp_path):
    source = write_video(tmp_path / "dance.mp4", 45, sound=1.5)
    samples, rate, seconds = read_sound(write_numbered(tmp_path / "a.mp4", 30, audio_from=source))
    assert rate == 44100 and seconds == pytest.approx(1, abs=0.002)
    assert np.abs(samples[0, 2000:40000]).max() == pytest.approx(0.5, abs=0.1)
    assert probe(tmp_path / "a.mp4").frames == 30


def test_sound_keeps_step_at_another_rate(tmp_path):
    source = write_video(tmp_path / "dance.mp4", 45, sound=1.5)
    _, _, seconds = read_sound(write_numbered(tmp_path / "a.mp4", 15, rate=15, audio_from=source))
    assert seconds == pytest.approx(1, abs=0.002)


def test_sound_can_begin_later_in_the_source(tmp_path):
    source = write_video(tmp_path / "dance.mp4", 40, sound=0.8, sound_start=0.4)
    path = write_numbered(tmp_path / "a.mp4", 20, audio_from=source, audio_start=Fraction(3, 10))
    samples, rate, _ = read_sound(path)
    loud = np.flatnonzero(np.abs(samples[0]) > 0.25)
    assert loud[0] / rate == pytest.approx(0.1, abs=0.03)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_shorter_sound_is_fine(tmp_path, suffix):
    source = write_video(tmp_path / "dance.mp4", 10, sound=0.3)
    path = write_numbered(tmp_path / f"a{suffix}", 40, audio_from=source)
    with av.open(str(path)) as container:
        assert sum(frame.samples for frame in container.decode(audio=0)) / 44100 == pytest.approx(0.3, abs=0.05)
    assert probe(path).frames == 40


def test_later_sound_begins_later(tmp_path):
    source = write_video(tmp_path / "dance.mp4", 40, sound=0.8, sound_start=0.4)
    samples, rate, _ = read_sound(write_numbered(tmp_path / "a.mp4", 30, audio_from=source))
    loud = np.flatnonzero(np.abs(samples[0]) > 0.25)
    assert loud[0] / rate == pytest.approx(0.4, abs=0.03)  # an AAC block is 0.023 s


def test_no_sound_gives_none(tmp_path):
    path = write_numbered(tmp_path / "a.mp4", 3, audio_from=write_video(tmp_path / "dance.mp4", 3))
    assert not probe(path).has_audio


def test_sound_can_come_from_the_target_itself(tmp_path):
    path = write_video(tmp_path / "dance.mp4", 30, sound=1)
    write_numbered(path, 15, audio_from=path)
    assert probe(path).has_audio and probe(path).frames == 15


def test_missing_sound_source_is_refused_first(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        writer(tmp_path / "a.mp4", audio_from=tmp_path / "nowhere.mp4").__enter__()
    assert not os.listdir(tmp_path)


# Full disks and killed runs


def run_python(code: str, *arguments, **options) -> subprocess.Popen:
    """Run code that may use `np`, `VideoWriter` and `sys.argv` in a process of its own."""
    head = "import sys\nimport numpy as np\nfrom musepose.video import VideoWriter\n"
    return subprocess.Popen(
        [sys.executable, "-c", head + textwrap.dedent(code), *map(str, arguments)],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


FULL_DISK = """
    import resource, signal
    from musepose.errors import run_script
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
    noise = np.random.default_rng(0)
    def main():
        with VideoWriter(sys.argv[1], 256, 192, 30) as output:
            for _ in range(70):
                output.write(noise.integers(0, 255, (192, 256, 3), dtype=np.uint8))
    run_script(main)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on the size of files")
@pytest.mark.parametrize("limit", [0, 300_000, -200])
def test_a_full_disk(tmp_path, limit):
    """At once, in the middle, and when the last 200 bytes do not fit."""
    path = tmp_path / "a.mp4"
    if limit < 0:
        whole = run_python(FULL_DISK, path, 1 << 40)
        assert whole.wait() == 0
        limit += path.stat().st_size
        path.unlink()
    process = run_python(FULL_DISK, path, limit)
    _, errors = process.communicate()
    assert process.returncode == 2
    last = errors.strip().splitlines()[-1]
    assert last.startswith(f"error: cannot write {path} (") and last.endswith("free some space and start again")
    assert not os.listdir(tmp_path)


def test_a_disk_that_fills_while_synchronising(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="free some space"):
        write_numbered(tmp_path / "a.mp4", 3)
    assert not os.listdir(tmp_path)


ENDLESS = """
    with VideoWriter(sys.argv[1], 64, 48, 30) as output:
        output.write(np.zeros((48, 64, 3), np.uint8))
        print("writing", flush=True)
        sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_killed_runs_leave_no_result_and_are_cleaned_up_after(tmp_path):
    path = tmp_path / "a.mp4"
    killed, living = (run_python(ENDLESS, path, stdin=subprocess.PIPE) for _ in range(2))
    try:
        assert killed.stdout.readline() == living.stdout.readline() == "writing\n"
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
        left = os.listdir(tmp_path)
        assert len(left) == 2 and all(name.startswith(".") and name.endswith(".part") for name in left)

        write_numbered(path, 3)
        assert len(os.listdir(tmp_path)) == 2  # the result, and the living run's file: only the dead run's is gone
        living.communicate("")
        assert living.returncode == 0
    finally:
        for process in (killed, living):
            process.kill()
    assert os.listdir(tmp_path) == ["a.mp4"] and probe(path).frames == 1
