"""pose_align.py as a whole: files in, files out, and every input it refuses."""

import errno
import os
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
from dancer import Detector, dance
from media import (
    CORNERS,
    corners,
    frame_number,
    read_sound,
    truncate,
    write_empty,
    write_picture,
    write_rotated_video,
    write_text,
    write_video,
    write_video_without_frames,
)
from PIL import Image

from musepose.media.side_by_side import fit
from musepose.media.video_reader import probe, read_frames
from musepose.media.video_writer import VideoWriter
from musepose.pose.draw import draw_pose_map, draw_video_frame
from musepose.pose.keypoint_file import KeypointFile, Keypoints, Source, load_keypoints, save_keypoints
from musepose.pose.runner import load_detector
from musepose.pose.types import to_pose
from musepose.utils.errors import UserError
from pose_align import main, parse
from random_models.mm_weights import tiny_files

ROOT = Path(__file__).parents[1]
FRAMES = 8
IMAGE_ASPECT = 60 / 80


class Folder:
    """A folder with a picture, a dance of numbered frames with a tone, and the keypoints of both."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.image, self.video, self.keypoints = path / "ref.png", path / "dance.mp4", path / "dance.npz"
        Image.fromarray(corners(60, 80)).save(self.image)
        write_video(self.video, FRAMES, width=64, height=48, rate=10, sound=2.0)
        self.aligned = path / "assets/poses/align/img_ref_video_dance.mp4"
        self.demo = path / "assets/poses/align_demo/img_ref_video_dance.mp4"

    def save(self, frames: int = FRAMES, missing: tuple[int, ...] = (), image_score: float = 1, **changes) -> Path:
        """Write a keypoint file for this folder's picture and video."""
        points, scores = dance(1, aspect=IMAGE_ASPECT)
        content = dict(
            image=Source.of(self.image),
            image_keypoints=Keypoints(points, scores * np.float32(image_score)),
            video=Source.of(self.video),
            video_keypoints=Keypoints(*dance(frames, missing, aspect=4 / 3)),
            detect_resolution=512,
        )
        save_keypoints(self.keypoints, KeypointFile(**{**content, **changes}))
        return self.keypoints

    def run(self, *flags, load=None) -> int:
        if load is None:
            load = refuse_to_load
        return main(["--imgfn_refer", str(self.image), "--vidfn", str(self.video), *map(str, flags)], load)

    def detect(self, *flags, detector: Detector | None = None, missing: tuple[int, ...] = ()) -> Detector:
        """Run with detections that are made up, and weights that stand for real ones."""
        for flag in ("yolox_config", "dwpose_config", "yolox_ckpt", "dwpose_ckpt"):
            stand_in = self.path / flag
            stand_in.write_text("stands for the real one")
            flags = (*flags, f"--{flag}", stand_in)
        image, (points, scores) = dance(1, aspect=IMAGE_ASPECT), dance(FRAMES, missing, aspect=4 / 3)
        detector = detector or Detector((image[0][0], image[1][0]), *zip(points, scores, strict=True))
        assert self.run(*flags, load=lambda job: detector) == 0
        return detector

    def outputs(self) -> list[str]:
        return sorted(str(p.relative_to(self.path)) for p in (self.path / "assets").rglob("*") if p.is_file())


def refuse_to_load(job):
    raise AssertionError("the detector was loaded")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.chdir(tmp_path)
    return Folder(tmp_path)


def run_script(folder: Folder, *flags) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "pose_align.py"), *map(str, flags)]
    return subprocess.run(command, cwd=folder.path, env=environment, capture_output=True, text=True, timeout=600)


def test_both_videos_appear_or_none(folder, monkeypatch):
    close = VideoWriter._close_container

    def full(self, *exception):
        close(self, *exception)
        if self.path.resolve() == folder.aligned.resolve():
            raise OSError(errno.ENOSPC, "No space left")

    monkeypatch.setattr(VideoWriter, "_close_container", full)
    with pytest.raises(UserError, match="free some space"):
        folder.run("--keypoints", folder.save())
    assert folder.outputs() == []


def frames_of(path: Path) -> np.ndarray:
    return np.stack(list(read_frames(path)))


def panels(frame: np.ndarray) -> list[np.ndarray]:
    """The five pictures of a demo frame."""
    ends = np.cumsum([3 / 4, 3 / 4, 3 / 4, 4 / 3, 4 / 3])
    return np.split(frame, (ends[:-1] / ends[-1] * frame.shape[1]).round().astype(int), axis=1)


def test_the_script_writes_both_videos_without_models(folder):
    folder.save()
    done = run_script(folder, "--imgfn_refer", "ref.png", "--vidfn", "dance.mp4", "--keypoints", "dance.npz")
    assert done.returncode == 0, done.stderr
    aligned, demo = probe(folder.aligned), probe(folder.demo)
    assert (aligned.width, aligned.height, aligned.frames, aligned.rate) == (576, 768, FRAMES, 10)
    assert (demo.frames, demo.rate) == (FRAMES, 10)
    assert aligned.has_audio and demo.has_audio
    assert "wrote assets/poses/align/img_ref_video_dance.mp4" in done.stdout


def test_the_script_reports_a_user_error_in_one_line_and_exits_2(folder):
    done = run_script(folder, "--imgfn_refer", "nobody.png", "--vidfn", "dance.mp4")
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["error: nobody.png does not exist: check the path of the picture"]
    assert not done.stdout


def test_torch_is_not_imported_where_nothing_is_detected(folder):
    folder.save()
    code = (
        "import sys, pose_align; pose_align.main(sys.argv[1:]);"
        "print(sorted({'torch', 'mmdet', 'mmpose', 'mmengine', 'diffusers'} & set(sys.modules)))"
    )
    flags = ["--imgfn_refer", "ref.png", "--vidfn", "dance.mp4", "--keypoints", "dance.npz"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code, *flags],
        cwd=folder.path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_the_aligned_video_shows_the_aligned_poses(folder):
    """Same proportions, larger in the picture: the pose video must show the picture's own pose in the first frame."""
    folder.save()
    folder.run("--keypoints", folder.keypoints)
    points, scores = dance(1, aspect=IMAGE_ASPECT)
    expected = draw_video_frame(to_pose(points[0], scores[0]), (64, 48), (60, 80))
    shown = frames_of(folder.aligned)
    off = [np.abs(shown[index].astype(int) - expected).mean() for index in (0, 3)]
    assert off[0] < 1  # what the encoding costs
    assert off[1] > 3 * off[0]  # and then he moves


def test_the_demo_shows_picture_and_dance_in_true_colours(folder):
    folder.save()
    folder.run("--keypoints", folder.keypoints)
    strip = frames_of(folder.demo)
    picture = panels(strip[0])[0]
    height, width = picture.shape[:2]
    for row, column, colour in zip((1, 1, 7, 7), (1, 7, 1, 7), CORNERS, strict=True):
        assert np.abs(picture[row * height // 8, column * width // 8].astype(int) - colour).max() < 12
    assert [frame_number(panels(frame)[3]) for frame in strip] == list(range(FRAMES))


def test_the_demo_shows_the_poses_of_picture_and_dance_beside_them(folder):
    folder.save(missing=(4,))
    folder.run("--keypoints", folder.keypoints)
    strip = frames_of(folder.demo)
    points, scores = dance(1, aspect=IMAGE_ASPECT)
    own = panels(strip[0])[1]
    expected = fit(draw_pose_map(to_pose(points[0], scores[0]), (60, 80), 512, 720), own.shape[1], own.shape[0])
    assert np.abs(own.astype(int) - expected).mean() < 1.5
    assert [int(panels(frame)[4].max()) > 100 for frame in strip] == [index != 4 for index in range(FRAMES)]


def test_the_sound_is_cut_to_the_aligned_video(folder):
    folder.save()
    folder.run("--keypoints", folder.keypoints)
    seconds = read_sound(folder.aligned)[2]
    assert seconds == pytest.approx(FRAMES / 10, abs=0.05)


def test_with_a_later_align_frame_video_and_sound_start_there(folder):
    write_video(folder.video, FRAMES, rate=10, sound=0.5)  # the tone is over with frame 5
    folder.save()
    folder.run("--keypoints", folder.keypoints)
    assert read_sound(folder.aligned)[2] == pytest.approx(0.5, abs=0.05)
    folder.run("--keypoints", folder.keypoints, "--align_frame", 3)
    assert read_sound(folder.aligned)[2] == pytest.approx(0.2, abs=0.05)
    assert probe(folder.aligned).frames == FRAMES - 3
    assert [frame_number(panels(frame)[3]) for frame in frames_of(folder.demo)] == [3, 4, 5, 6, 7]


def test_max_frame_says_how_many_are_used_and_zero_means_all(folder, capsys):
    folder.save()
    folder.run("--keypoints", folder.keypoints, "--max_frame", 5)
    assert "using 5 of 8 frames" in capsys.readouterr().out
    assert probe(folder.aligned).frames == 5
    folder.run("--keypoints", folder.keypoints, "--max_frame", 0)
    assert "using" not in capsys.readouterr().out
    assert probe(folder.aligned).frames == FRAMES


def test_frames_without_a_person_are_empty_counted_and_reported(folder, capsys):
    folder.save(missing=(2, 3, 4, 6))
    folder.run("--keypoints", folder.keypoints)
    assert "the dancer was not found in 4 of 8 frames, drawn empty: 2-4, 6" in capsys.readouterr().out
    bright = [int(frame.max()) > 100 for frame in frames_of(folder.aligned)]
    assert bright == [True, True, False, False, False, True, False, True]


def test_detected_keypoints_are_those_that_are_saved_and_give_the_same_video(folder, capsys):
    detector = folder.detect("--save_keypoints", folder.keypoints, missing=(5,))
    assert detector.calls == 1 + FRAMES
    saved = load_keypoints(folder.keypoints)
    points, scores = dance(FRAMES, (5,), aspect=4 / 3)
    np.testing.assert_array_equal(saved.video_keypoints.points, points)
    np.testing.assert_array_equal(saved.video_keypoints.scores, scores)
    first = frames_of(folder.aligned), frames_of(folder.demo)
    folder.run("--keypoints", folder.keypoints)
    np.testing.assert_array_equal(first[0], frames_of(folder.aligned))
    np.testing.assert_array_equal(first[1], frames_of(folder.demo))


def test_for_another_picture_only_the_picture_is_detected_again(folder):
    folder.save()
    Image.fromarray(corners(90, 80)).save(folder.image)
    points, scores = dance(1, aspect=90 / 80)
    detector = folder.detect("--keypoints", folder.keypoints, detector=Detector((points[0], scores[0])))
    assert detector.calls == 1
    assert probe(folder.aligned).width == 864


def test_scale_from_video_differs_where_the_align_frame_is_foreshortened(folder):
    points, scores = dance(FRAMES, aspect=4 / 3)
    points[0] = dance(1, aspect=4 / 3, arms=0.05)[0][0]
    folder.save(video_keypoints=Keypoints(points, scores))
    folder.run("--keypoints", folder.keypoints)
    as_published = frames_of(folder.aligned)
    folder.run("--keypoints", folder.keypoints, "--scale_from", "video")
    over_the_video = frames_of(folder.aligned)
    lit = [int((frames[4].max(axis=-1) > 60).sum()) for frames in (as_published, over_the_video)]
    assert lit[0] > 1.2 * lit[1]  # arms three times too long in the former


def test_scale_from_video_measures_the_frames_before_the_align_frame_too(folder):
    points, scores = dance(FRAMES, aspect=4 / 3)
    points[4:] = dance(1, aspect=4 / 3, arms=0.05)[0][0]
    folder.save(video_keypoints=Keypoints(points, scores))
    folder.run("--keypoints", folder.keypoints, "--align_frame", 4)
    as_published = frames_of(folder.aligned)
    folder.run("--keypoints", folder.keypoints, "--align_frame", 4, "--scale_from", "video")
    over_the_video = frames_of(folder.aligned)
    lit = [int((frames[0].max(axis=-1) > 60).sum()) for frames in (as_published, over_the_video)]
    assert lit[0] > 1.2 * lit[1]  # as long as the picture's, but for the foreshortening


def test_what_comes_with_the_project_is_found_from_another_folder(folder):
    settings = parse([])
    for path in (settings.imgfn_refer, settings.vidfn, settings.yolox_config, settings.dwpose_config):
        assert path.is_file() and ROOT in path.parents
    (folder.path / "assets/images").mkdir(parents=True)
    here = folder.image.rename(folder.path / "assets/images/ref.png")
    assert parse([]).imgfn_refer.resolve() == here  # what is here goes first


def test_a_turned_dance_of_one_frame_and_a_grey_picture_work(folder):
    write_rotated_video(folder.video, frames=1)
    write_picture(folder.image, "grey", 60, 80)
    folder.save(frames=1, video_keypoints=Keypoints(*dance(1, aspect=3 / 4)))
    folder.run("--keypoints", folder.keypoints)
    assert (probe(folder.aligned).frames, probe(folder.aligned).width) == (1, 576)


def test_names_with_spaces_and_other_scripts_work(folder):
    folder.image = folder.image.rename(folder.path / "ein Bild ü.png")
    folder.video = folder.video.rename(folder.path / "踊り 1.mp4")
    folder.save()
    folder.run("--keypoints", folder.keypoints, "--outfn", "neue Ordner/Übersicht.mp4")
    assert folder.outputs() == ["assets/poses/align/img_ein Bild ü_video_踊り 1.mp4"]
    assert probe(folder.path / "neue Ordner/Übersicht.mp4").frames == FRAMES


def damage_first_array(path: Path) -> None:
    """Overwrite the start of the first array's compressed data with a block type that does not exist."""
    with zipfile.ZipFile(path) as file:
        start = file.infolist()[0].header_offset
    content = bytearray(path.read_bytes())
    name, extra = (int.from_bytes(content[start + at : start + at + 2], "little") for at in (26, 28))
    content[start + 30 + name + extra] = 0xFF
    path.write_bytes(content)


def break_keypoints(change: str):
    def apply(folder: Folder):
        folder.save()
        if change == "empty":
            write_empty(folder.keypoints)
        elif change == "truncated":
            truncate(folder.keypoints)
        elif change == "damaged":
            damage_first_array(folder.keypoints)
        elif change == "text":
            write_text(folder.keypoints)
        elif change == "foreign":
            np.savez(folder.keypoints, a=np.zeros(3))
        elif change == "pickle":
            np.save(folder.keypoints.with_suffix(".npy"), np.array([{}], dtype=object), allow_pickle=True)
            folder.keypoints.with_suffix(".npy").replace(folder.keypoints)
        elif change == "shape":
            folder.save(video_keypoints=Keypoints(np.zeros((8, 17, 2), np.float32), np.zeros((8, 17), np.float32)))
        elif change == "nan":
            points, scores = dance(FRAMES)
            points[3, 3] = np.nan
            folder.save(video_keypoints=Keypoints(points, scores))
        return ("--keypoints", folder.keypoints)

    return apply


def with_keypoints(*flags, **changes):
    def apply(folder: Folder):
        return ("--keypoints", folder.save(**changes), *flags)

    return apply


def with_files(*makers, flags=()):
    def apply(folder: Folder):
        for name, make in makers:
            make(getattr(folder, name))
        return flags

    return apply


def blocked_output(folder: Folder):
    (folder.path / "file").write_text("no folder")
    return ("--keypoints", folder.save(), "--outfn", "file/demo.mp4")


def other_video(folder: Folder):
    folder.save()
    write_video(folder.video, FRAMES, rate=12)
    return ("--keypoints", folder.keypoints)


def of_shape(name: str, width: int, height: int):
    def apply(folder: Folder):
        if name == "image":
            Image.new("RGB", (width, height)).save(folder.image)
        else:
            write_video(folder.video, FRAMES, width=width, height=height)
        return ("--keypoints", folder.save())

    return apply


BAD = {
    "picture missing": (with_files(("image", os.remove)), "ref.png does not exist"),
    "picture empty": (with_files(("image", write_empty)), "ref.png is empty"),
    "picture truncated": (with_files(("image", truncate)), "ref.png is damaged or cut off"),
    "picture is text": (with_files(("image", write_text)), "ref.png is not a picture"),
    "video missing": (with_files(("video", os.remove)), "dance.mp4 does not exist"),
    "video empty": (with_files(("video", write_empty)), "dance.mp4 is empty"),
    "video truncated": (with_files(("video", truncate)), "dance.mp4 is cut off"),
    "video is text": (with_files(("video", write_text)), "dance.mp4 is damaged or not a video"),
    "video without frames": (with_files(("video", write_video_without_frames)), "dance.mp4"),
    "align_frame negative": (with_keypoints("--align_frame", -1), "--align_frame is -1: give at least 0"),
    "align_frame behind the end": (with_keypoints("--align_frame", 8), "has 8 frames: give at most 7"),
    "align_frame behind max_frame": (with_keypoints("--align_frame", 5, "--max_frame", 4), "give at most 3"),
    "det_every": (with_keypoints("--det_every", 0), "--det_every is 0: give at least 1"),
    "max_frame negative": (with_keypoints("--max_frame", -5), "--max_frame is -5: give at least 0"),
    "no number": (with_keypoints("--max_frame", "many"), "--max_frame is .many.: give a whole number"),
    "detect_resolution": (with_keypoints("--detect_resolution", 10), "--detect_resolution is 10: give 64 to 4096"),
    "image_resolution": (with_keypoints("--image_resolution", 0), "--image_resolution is 0: give 64 to 4096"),
    "scale_from": (with_keypoints("--scale_from", "moon"), "--scale_from is moon: choose from frame, video"),
    "unknown flag": (with_keypoints("--speed", 2), "unrecognized arguments: --speed 2: see .*--help"),
    "output is no video": (with_keypoints("--outfn", "demo.gif"), "demo.gif: end its name in .mp4"),
    "output folder": (blocked_output, "cannot write file/demo.mp4"),
    "output is a folder": (with_keypoints("--save_keypoints", "."), "it is a folder"),
    "output is the input": (with_keypoints("--outfn", "dance.mp4"), "dance.mp4 is to be written, but it is also"),
    "same output twice": (with_keypoints("--outfn", "a.mp4", "--outfn_align_pose_video", "./a.mp4"), "it is also"),
    "picture of no shape for a person": (of_shape("image", 442, 40), "ref.png is 442 x 40, .*crop it to at most 10"),
    "video of no shape for a person": (of_shape("video", 16, 180), "dance.mp4 is 16 x 180, .*crop it to at most 10"),
    "no configs": (with_files(flags=("--yolox_config", "none.py")), "none.py is missing: .*--yolox_config"),
    "no weights": (with_files(flags=("--yolox_ckpt", "none.pth")), "none.pth is missing: run `python download_weig"),
    "keypoints missing": (with_files(flags=("--keypoints", "none.npz")), "none.npz does not exist"),
    "keypoints of another video": (other_video, "made for another video"),
    "keypoints of too few frames": (with_keypoints(frames=6), "holds 6 frames, but 8 are wanted: give --max_frame 6"),
    "keypoints of another resolution": (with_keypoints("--detect_resolution", 640), "give the same"),
    "nobody in the picture": (with_keypoints(image_score=0.1), "no person was found in .*ref.png"),
    "nobody in the align frame": (
        with_keypoints(missing=(0, 1)),
        "the dancer was not found in frame 0 .*--align_frame 2",
    ),
    "nobody in the video": (with_keypoints(missing=tuple(range(8))), "no person was found in .*dance.mp4"),
    **{
        f"keypoints {change}": (break_keypoints(change), "dance.npz is (empty|no whole keypoint file)")
        for change in ("empty", "truncated", "damaged", "text", "foreign", "pickle", "shape", "nan")
    },
}


@pytest.mark.parametrize("name", BAD)
def test_refuses(name, folder):
    prepare, message = BAD[name]
    with pytest.raises(UserError, match=message) as caught:
        folder.run(*prepare(folder))
    assert "\n" not in str(caught.value) and ": " in str(caught.value)
    assert not (folder.path / "assets").exists() or folder.outputs() == []


def test_nobody_in_the_picture_is_said_before_the_video_is_searched(folder):
    points, scores = dance(1)
    detector = Detector((points[0], scores[0] * 0))
    with pytest.raises(UserError, match="no person was found in .*ref.png"):
        folder.detect(detector=detector)
    assert detector.calls == 1


def test_what_was_detected_is_kept_where_the_alignment_fails(folder):
    with pytest.raises(UserError, match="in frame 0 .*--align_frame 1"):
        folder.detect("--save_keypoints", folder.keypoints, missing=(0,))
    assert folder.run("--keypoints", folder.keypoints, "--align_frame", 1) == 0
    assert probe(folder.aligned).frames == FRAMES - 1


def test_a_run_that_breaks_leaves_no_file(folder, monkeypatch):
    folder.save()
    monkeypatch.setattr("musepose.pose.runner.side_by_side", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        folder.run("--keypoints", folder.keypoints)
    assert folder.outputs() == []


def in_turns(items, depth):
    """Takes the place of `prefetch`: nothing is done before it is asked for."""
    yield from items


def test_working_ahead_changes_nothing(folder, monkeypatch):
    """Compared before encoding: x264 itself does not always write the same bytes."""
    written = []

    class RecordingWriter(VideoWriter):
        def write(self, frame):
            written[-1].setdefault(self.path, []).append(frame.copy())
            super().write(frame)

    monkeypatch.setattr("musepose.pose.runner.VideoWriter", RecordingWriter)
    for _ in range(2):
        written.append({})
        folder.detect("--align_frame", 1, missing=(5,))
        monkeypatch.setattr("musepose.pose.runner.prefetch", in_turns)
        monkeypatch.setattr("musepose.pose.box_tracking.prefetch", in_turns)
    together, one_by_one = written
    assert together.keys() == one_by_one.keys() and len(together) == 2
    for path, frames in one_by_one.items():
        np.testing.assert_array_equal(np.stack(together[path]), np.stack(frames))


class Following(Detector):
    """Notes how many people it was told where to look for."""

    told = 0

    def detect_inside(self, pictures, boxes, box_scores):
        self.told += len(boxes)
        return self.detect(pictures)


def test_with_det_every_only_some_frames_are_searched_for_persons(folder):
    image, (points, scores) = dance(1, aspect=IMAGE_ASPECT), dance(FRAMES, aspect=4 / 3)
    detector = Following((image[0][0], image[1][0]), *zip(points, scores, strict=True))
    folder.detect("--det_every", 3, "--save_keypoints", folder.keypoints, detector=detector)
    assert (detector.calls, detector.told) == (1 + FRAMES, FRAMES - 3)
    np.testing.assert_array_equal(load_keypoints(folder.keypoints).video_keypoints.points, points)


def broken_off(path, count):
    yield from read_frames(path, count=5)


def broken(path, count):
    yield from read_frames(path, count=5)
    raise UserError("dance.mp4 is damaged: give a whole video file")


@pytest.mark.parametrize("known", [False, True], ids=["detecting", "drawing"])
@pytest.mark.parametrize("frames, message", [(broken_off, "breaks off after 5 of 8 frames"), (broken, "is damaged")])
def test_a_video_that_breaks_in_the_middle_is_one_error_and_leaves_nothing(folder, monkeypatch, known, frames, message):
    if known:
        folder.save()
    monkeypatch.setattr("musepose.pose.runner.read_frames", frames)
    with pytest.raises(UserError, match=message) as caught:
        folder.run("--keypoints", folder.keypoints) if known else folder.detect()
    assert folder.outputs() == [] and left_running(caught) == []


def left_running(caught: pytest.ExceptionInfo) -> list[str]:
    """The threads that still run while the exception keeps alive whatever was at work."""
    assert caught.tb is not None
    return [thread.name for thread in threading.enumerate() if thread.name == "musepose-prefetch"]


def test_ctrl_c_while_detecting_leaves_no_thread_and_no_file(folder):
    class Interrupted(Detector):
        def __call__(self, rgb):
            if self.calls == 5:
                raise KeyboardInterrupt
            return super().__call__(rgb)

    points, scores = dance(1 + FRAMES)
    with pytest.raises(KeyboardInterrupt) as caught:
        folder.detect("--save_keypoints", folder.keypoints, detector=Interrupted(*zip(points, scores, strict=True)))
    assert folder.outputs() == [] and left_running(caught) == [] and not folder.keypoints.exists()


def test_ctrl_c_while_writing_leaves_no_thread_and_no_file(folder, monkeypatch):
    write = VideoWriter.write

    def interrupted(self, frame):
        if self.frames == 3:
            raise KeyboardInterrupt
        write(self, frame)

    folder.save()
    monkeypatch.setattr(VideoWriter, "write", interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        folder.run("--keypoints", folder.keypoints)
    assert folder.outputs() == [] and left_running(caught) == []


def test_the_progress_bars_count_every_frame(folder, capsys):
    folder.detect("--align_frame", 2)
    bars = capsys.readouterr().err
    assert f"{FRAMES}/{FRAMES}" in bars and f"{FRAMES - 2}/{FRAMES - 2}" in bars


def test_the_mm_models_are_built_and_asked_as_the_flags_say(folder):
    """Random tiny weights find junk; what must work is the way from their detections to the files, or to the reason."""
    write_video(folder.video, 2)
    flags = [part for name, path in tiny_files(folder.path).items() for part in (f"--{name}", path)]
    flags += ["--device", "cpu", "--detect_resolution", 64, "--save_keypoints", folder.keypoints]
    try:
        status = folder.run(*flags, load=load_detector)
    except UserError as error:
        assert "no limb is visible" in str(error) or "the align frame" in str(error)
    else:
        assert status == 0
        assert probe(folder.aligned).frames == probe(folder.demo).frames == 2
    found = load_keypoints(folder.keypoints)
    assert found.video_keypoints.scores.shape == (2, 133) and found.detect_resolution == 64
    assert found.image_keypoints.scores.max() > 0.3
