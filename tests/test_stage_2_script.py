"""test_stage_2.py with a fake pipeline: files, resuming, failures, messages."""

import errno
import subprocess
import sys
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path

import pytest
from media import AAC_BLOCKS, corners, frame_number, numbered_frame, read_sound, write_picture, write_video

import test_stage_2
from musepose.media.video_reader import probe, read_frames
from musepose.media.video_writer import VideoWriter
from musepose.utils.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
RESULT, COMPARISON = Path("out/ref_dance_3.5_20_1.mp4"), Path("out/ref_dance_3.5_20_1_cmp.mp4")


class MirrorPipeline:
    """Draws each pose frame's number again and records its arguments. Fails for an image of 10 x 10."""

    def __init__(self, fail: BaseException | None = None) -> None:
        self.fail = fail
        self.calls = []

    def stream(self, image, pose_images, options, *, num_frames, progress):
        self.calls.append({"frames": num_frames, **asdict(options)})
        indices = [frame_number(frame) for frame in pose_images]
        assert len(indices) == num_frames
        for step in range(options.num_inference_steps):
            progress("denoising", step + 1, options.num_inference_steps)
        for place, index in enumerate(indices):
            if self.fail and place == 2 and image.size == (10, 10):
                raise self.fail
            yield numbered_frame(index, options.width, options.height)
            progress("decoding", place + 1, num_frames)


def never(plan):
    raise AssertionError("the models were to be loaded")


def run(stage_2, *flags, pipeline=None, load=None, **changes) -> int:
    """→ exit status of a run with --output out."""
    config = str(stage_2.write_config(**changes))
    return test_stage_2.main(["--config", config, "--output", "out", *flags], load or (lambda plan: pipeline))


def numbers(path: Path, columns: slice = slice(None)) -> list[int]:
    return [frame_number(frame[:, columns]) for frame in read_frames(path)]


def partial_files() -> list[Path]:
    return [path for path in Path("out").iterdir() if path.name not in (RESULT.name, COMPARISON.name)]


def test_result_has_size_rate_length_frames_and_sound_of_the_pose_video(stage_2):
    assert run(stage_2, pipeline=MirrorPipeline()) == 0
    result = probe(RESULT)
    assert (result.width, result.height, result.frames, result.rate) == (64, 48, 5, 15)
    assert numbers(RESULT) == [0, 2, 4, 6, 8]
    assert read_sound(RESULT)[2] == pytest.approx(5 / 15, abs=AAC_BLOCKS)


def test_comparison_shows_reference_pose_and_result(stage_2):
    write_picture(Path("ref.png"), "rgb", 96, 96)
    assert run(stage_2, pipeline=MirrorPipeline()) == 0
    comparison = probe(COMPARISON)
    assert (comparison.width, comparison.height, comparison.rate) == (48 + 64 + 64, 48, 15)  # the picture's side: 48
    assert numbers(COMPARISON, slice(48, 112)) == numbers(COMPARISON, slice(112, 176)) == [0, 2, 4, 6, 8]
    picture = next(read_frames(COMPARISON))[:, :48].astype(int)
    assert abs(picture - corners(48, 48)).mean() < 8


def test_panorama_is_squeezed_in_the_comparison(stage_2):
    """At the pose video's height it would be wider than H.264 can hold."""
    write_picture(Path("ref.png"), "rgb", 4000, 10)
    assert run(stage_2, pipeline=MirrorPipeline()) == 0
    assert (probe(COMPARISON).width, probe(COMPARISON).height) == (4 * 48 + 64 + 64, 48)


def test_sampling_arguments_reach_the_pipeline(stage_2):
    pipeline = MirrorPipeline()
    flags = "-W 64 -H 72 -L 7 -S 8 -O 2 --cfg 2.5 --seed 5 --shared_noise 0.5 --steps 3 --skip 0 --tail flush".split()
    assert run(stage_2, *flags, pipeline=pipeline) == 0
    expected = {
        "width": 64,
        "height": 72,
        "frames": 7,
        "num_inference_steps": 3,
        "guidance_scale": 2.5,
        "seed": 5,
        "shared_noise": 0.5,
        "context_frames": 8,
        "context_overlap": 2,
        "tail": "flush",
    }
    (call,) = pipeline.calls
    assert {key: call[key] for key in expected} == expected
    assert numbers(Path("out/ref_dance_2.5_3_0.mp4")) == [0, 1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("length", [1, 2, 3, 9, 10, 11])
@pytest.mark.parametrize("skip", [0, 1, 3, 12])
def test_which_frames_are_taken(stage_2, length, skip):
    assert run(stage_2, "-L", str(length), "--skip", str(skip), "--no_audio", pipeline=MirrorPipeline()) == 0
    expected = list(range(10))[:: skip + 1][: max(1, min(length, 10) // (skip + 1))]
    path = Path(f"out/ref_dance_3.5_20_{skip}.mp4")
    assert numbers(path) == expected
    assert not probe(path).has_audio


def test_fps(stage_2):
    assert run(stage_2, "--fps", "24000/1001", pipeline=MirrorPipeline()) == 0
    assert probe(RESULT).rate == Fraction(24000, 1001)
    assert numbers(RESULT) == [0, 2, 4, 6, 8]


def test_odd_sides_become_the_even_ones_below(stage_2):
    write_video(stage_2.pose, 4, 63, 49, codec="libx264", pix_fmt="yuv444p")
    assert run(stage_2, pipeline=MirrorPipeline()) == 0
    assert (probe(RESULT).width, probe(RESULT).height) == (62, 48)


def test_finished_case_is_skipped_without_loading(stage_2, capsys):
    assert run(stage_2, pipeline=MirrorPipeline()) == 0
    before = RESULT.read_bytes()
    assert run(stage_2, load=never) == 0
    assert RESULT.read_bytes() == before
    assert "0 done, 1 skipped, 0 failed" in capsys.readouterr().out


def test_overwrite_renders_again(stage_2):
    run(stage_2, pipeline=MirrorPipeline())
    RESULT.write_bytes(b"old")
    assert run(stage_2, "--overwrite", pipeline=MirrorPipeline()) == 0
    assert numbers(RESULT) == [0, 2, 4, 6, 8]


@pytest.mark.parametrize("file", [1, 2])
def test_overwriting_on_a_disk_that_fills_up_at_the_very_end_leaves_the_old_files(stage_2, monkeypatch, file):
    run(stage_2, pipeline=MirrorPipeline())
    before = RESULT.read_bytes(), COMPARISON.read_bytes()
    close, closed = VideoWriter._close_container, []

    def full(self, *exception):
        closed.append(self.path.name)
        close(self, *exception)
        if len(closed) == file:
            raise OSError(errno.ENOSPC, "No space left")

    with monkeypatch.context() as patch:
        patch.setattr(VideoWriter, "_close_container", full)
        assert run(stage_2, "--overwrite", pipeline=MirrorPipeline()) == 1
    assert len(closed) == 2
    assert (RESULT.read_bytes(), COMPARISON.read_bytes()) == before and not partial_files()


def test_case_without_its_comparison_is_not_finished(stage_2):
    run(stage_2, pipeline=MirrorPipeline())
    COMPARISON.unlink()
    assert run(stage_2, pipeline=MirrorPipeline()) == 0
    assert COMPARISON.is_file()


@pytest.mark.parametrize(
    "error, line",
    [
        (RuntimeError("CUDA out of memory. Tried to allocate\n9 GiB"), "out of memory (CUDA out of memory. Tried"),
        (MemoryError(), "out of memory (no reason given): lower -W and -H, or -S"),
        (ValueError("odd thing"), "ValueError: odd thing"),
        (OSError(errno.ENOSPC, "No space left"), "_cmp.mp4 (No space left): free some space"),
        (UserError("disk is full: free some"), "disk is full: free some"),
    ],
)
def test_failing_case_is_one_line_and_stops_no_other(stage_2, capsys, error, line):
    write_picture(Path("a_bad.png"), "rgb", 10, 10)
    cases = {"a_bad.png": ["dance.mp4"], "ref.png": ["dance.mp4"]}
    assert run(stage_2, pipeline=MirrorPipeline(error), test_cases=cases) == 1
    assert sorted(path.name for path in Path("out").iterdir()) == [RESULT.name, COMPARISON.name]
    printed = capsys.readouterr()
    reports = [text for text in printed.err.splitlines() if "failed:" in text]
    assert len(reports) == 1
    assert reports[0].startswith("[1/2] a_bad.png + dance.mp4: failed: ")
    assert line in reports[0]
    assert "1 done, 0 skipped, 1 failed" in printed.out


def test_interrupted_case_leaves_no_file(stage_2):
    write_picture(Path("ref.png"), "rgb", 10, 10)
    with pytest.raises(KeyboardInterrupt):
        run(stage_2, pipeline=MirrorPipeline(KeyboardInterrupt()))
    assert list(Path("out").iterdir()) == []


def test_pipeline_that_cannot_be_loaded_ends_the_run(stage_2):
    def broken(plan):
        raise UserError("the weights are cut off: download them again")

    with pytest.raises(UserError, match="cut off"):
        run(stage_2, load=broken)


def test_default_folder_is_new_and_never_skips(stage_2):
    config = str(stage_2.write_config())
    assert test_stage_2.main(["--config", config], lambda plan: MirrorPipeline()) == 0
    assert sorted(path.name for path in Path("output").glob("video-*/*/*")) == [RESULT.name, COMPARISON.name]


def test_unicode_names_with_spaces(stage_2):
    Path("ref.png").rename("Ünï ça 人.png")
    Path("dance.mp4").rename("tanz: 50 %d.mp4")
    assert run(stage_2, pipeline=MirrorPipeline(), test_cases={"Ünï ça 人.png": ["tanz: 50 %d.mp4"]}) == 0
    assert numbers(Path("out/Ünï ça 人_tanz: 50 %d_3.5_20_1.mp4")) == [0, 2, 4, 6, 8]


WITH_PATHS = f"import sys; sys.path[:0] = {[str(ROOT), str(ROOT / 'tests')]}"
KILLED = """
import sys, test_stage_2, test_stage_2_script as tests
class Stuck(tests.MirrorPipeline):
    def stream(self, *arguments, **options):
        for number, frame in enumerate(super().stream(*arguments, **options)):
            if number == 3:
                print("in the middle", flush=True)
                sys.stdin.read()
            yield frame
test_stage_2.main(["--config", "config.yaml", "--output", "out"], lambda plan: Stuck())
"""


def test_killed_run_leaves_nothing_under_a_final_name_and_the_next_one_completes_it(stage_2):
    stage_2.write_config()
    command = [sys.executable, "-c", WITH_PATHS + KILLED]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert any("in the middle" in line for line in process.stdout)
        process.kill()
    assert not RESULT.exists()
    assert not COMPARISON.exists()
    assert len(partial_files()) == 2  # the kill came while both were being written
    assert run(stage_2, pipeline=MirrorPipeline()) == 0
    assert numbers(RESULT) == [0, 2, 4, 6, 8]
    assert partial_files() == []


DISK_FULL = """
import resource, sys, test_stage_2, test_stage_2_script as tests
resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))  # what a full disk does, without one
sys.exit(test_stage_2.main(["--config", "config.yaml", "--output", "out"], lambda plan: tests.MirrorPipeline()))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs the resource module")
def test_full_disk_leaves_no_file_and_names_the_path(stage_2):
    stage_2.write_config()
    done = subprocess.run([sys.executable, "-c", WITH_PATHS + DISK_FULL], capture_output=True, text=True, timeout=600)
    assert done.returncode == 1
    assert f"failed: cannot write {RESULT}" in done.stderr or f"failed: cannot write {COMPARISON}" in done.stderr
    assert "free some space" in done.stderr
    assert list(Path("out").iterdir()) == []


def program(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "test_stage_2.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--steps", "0"], "error: --steps is 0: give 1 to 1000"),
        (["--stepps", "3"], "error: unrecognized arguments: --stepps 3: see python test_stage_2.py --help"),
        (["--steps"], "error: argument --steps: expected one argument: see python test_stage_2.py --help"),
        (["--config", "nowhere.yaml"], "error: nowhere.yaml is missing"),
    ],
)
def test_user_error_is_one_line_and_status_2(stage_2, flags, message):
    stage_2.write_config()
    done = program("--config", "config.yaml", *flags)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1


def test_checks_come_before_torch(stage_2):
    """A complete, well-formed run gets as far as loading without torch, diffusers or the detector's packages."""
    stage_2.write_config()
    code = f"""
import sys; sys.path.insert(0, {str(ROOT)!r})
import test_stage_2
def load(plan):
    heavy = {{"torch", "diffusers", "transformers", "mmengine", "mmcv", "mmdet", "mmpose"}} & sys.modules.keys()
    print("heavy:", sorted(heavy)); sys.exit(0)
test_stage_2.main(["--config", "config.yaml"], load)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert done.stdout == "heavy: []\n", done.stderr
