"""Writing videos: sizes, rates, colours, sound; and no incomplete file under a final name."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from media import AAC_BLOCKS, colour_error, corners, frame_number, numbered_frame, read_sound, write_video

from musepose.media.video_reader import probe, read_frames
from musepose.media.video_writer import VideoWriter, even_size
from musepose.utils.errors import UserError

MILLISECONDS = 2 / 1000  # an mp4 file counts in them where a track begins and ends


def writer(path, width=64, height=48, rate=30, **options):
    return VideoWriter(path, width, height, rate, **options)


def write_numbered(path: Path, frames: int, rate=30, **options) -> Path:
    with writer(path, rate=rate, **options) as output:
        for index in range(frames):
            output.write(numbered_frame(index, 64, 48))
    return path


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
    assert rate == 44100 and seconds == pytest.approx(1, abs=MILLISECONDS)
    # The tone's amplitude is 0.5: neither silence, nor clipped, nor half of it; AAC changes a tone by far less.
    assert np.abs(samples[0, 2000:40000]).max() == pytest.approx(0.5, abs=0.1)
    assert probe(tmp_path / "a.mp4").frames == 30


def test_sound_keeps_step_at_another_rate(tmp_path):
    source = write_video(tmp_path / "dance.mp4", 45, sound=1.5)
    _, _, seconds = read_sound(write_numbered(tmp_path / "a.mp4", 15, rate=15, audio_from=source))
    assert seconds == pytest.approx(1, abs=MILLISECONDS)


def test_sound_can_begin_later_in_the_source(tmp_path):
    source = write_video(tmp_path / "dance.mp4", 40, sound=0.8, sound_start=0.4)
    path = write_numbered(tmp_path / "a.mp4", 20, audio_from=source, audio_start=Fraction(3, 10))
    samples, rate, _ = read_sound(path)
    loud = np.flatnonzero(np.abs(samples[0]) > 0.25)
    assert loud[0] / rate == pytest.approx(0.1, abs=AAC_BLOCKS)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_shorter_sound_is_fine(tmp_path, suffix):
    source = write_video(tmp_path / "dance.mp4", 10, sound=0.3)
    path = write_numbered(tmp_path / f"a{suffix}", 40, audio_from=source)
    with av.open(str(path)) as container:
        assert sum(frame.samples for frame in container.decode(audio=0)) / 44100 == pytest.approx(0.3, abs=AAC_BLOCKS)
    assert probe(path).frames == 40


def test_later_sound_begins_later(tmp_path):
    source = write_video(tmp_path / "dance.mp4", 40, sound=0.8, sound_start=0.4)
    samples, rate, _ = read_sound(write_numbered(tmp_path / "a.mp4", 30, audio_from=source))
    loud = np.flatnonzero(np.abs(samples[0]) > 0.25)
    assert loud[0] / rate == pytest.approx(0.4, abs=AAC_BLOCKS)


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
    """Run code that uses `np`, `VideoWriter` and `sys.argv` in a subprocess."""
    head = "import sys\nimport numpy as np\nfrom musepose.media.video_writer import VideoWriter\n"
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
    from musepose.cli.entry import run_script
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
