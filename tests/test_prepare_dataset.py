"""prepare_dataset.py as a whole: a folder of videos becomes a data set; broken videos are skipped and listed."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dancer import OneByOne, dance
from media import frame_number, numbered_frame, truncate, write_audio_only, write_text, write_video

from musepose.media.video_reader import VideoInfo, probe, read_frames
from musepose.pose.draw import draw_video_frame, video_size
from musepose.pose.keypoint_file import Source
from musepose.pose.types import People, to_pose
from musepose.training.data.clip_keypoints import load_clip_keypoints
from musepose.training.data.manifest import check_clip_files, load_manifest
from musepose.training.data.preparation import Settings, load_detector
from musepose.utils.errors import UserError
from prepare_dataset import main

FRAMES, WIDTH, HEIGHT = 6, 64, 48
DETECTOR_FILES = ("yolox_config", "dwpose_config", "yolox_ckpt", "dwpose_ckpt")
EMPTY_FROM = 100  # frames that are numbered from here on show nobody


class Detector(OneByOne):
    """Returns the keypoints that belong to the frame's number, and records the call."""

    def __init__(self, notes: Path) -> None:
        self.notes = notes
        self.points, self.scores = dance(FRAMES, aspect=WIDTH / HEIGHT)

    def __call__(self, rgb: np.ndarray) -> People:
        number = frame_number(rgb)
        with open(self.notes, "a") as file:
            print(number, file=file)
        height, width = rgb.shape[:2]
        there = slice(0, 0 if number >= EMPTY_FROM else 1)
        row = [min(number, FRAMES - 1)]
        box = np.array([[0, 0, width, height]], float)[there]
        points, scores = self.points[row].astype(float)[there], self.scores[row].astype(float)[there]
        return People(box, np.ones(len(box)), points, scores, size=(width, height))


def load(settings: Settings, worker: int) -> Detector:
    return Detector(settings.output.parent / f"asked-{worker}")


def refuse_to_load(settings: Settings, worker: int) -> Detector:
    raise AssertionError("the detector was loaded")


class Folder:
    """A folder with two dances, one in a subfolder, and placeholder files of the detector."""

    def __init__(self, path: Path) -> None:
        self.path, self.videos, self.output = path, path / "videos", path / "data"
        (self.videos / "deep").mkdir(parents=True)
        self.first = write_video(self.videos / "a.mp4", FRAMES, width=WIDTH, height=HEIGHT, rate=10)
        self.second = write_video(self.videos / "deep" / "take.2.mov", FRAMES, width=WIDTH, height=HEIGHT, rate=10)
        for flag in DETECTOR_FILES:
            (path / flag).write_text("stands for the real one")

    def run(self, *flags: object, load=load) -> int:
        files = [word for flag in DETECTOR_FILES for word in (f"--{flag}", self.path / flag)]
        words = ["--video_dir", self.videos, "--output", self.output, *files, *flags]
        return main([str(word) for word in words], load)

    def clips(self) -> list:
        return load_manifest([self.output / "meta.json"])

    def asked(self) -> list[int]:
        """The numbers of the frames that a detector saw, in all runs and processes."""
        return sorted(int(line) for notes in self.path.glob("asked-*") for line in notes.read_text().split())

    def broken(self) -> dict[str, str]:
        entries = json.loads((self.output / "broken.json").read_text())
        return {Path(entry["video_path"]).name: entry["reason"] for entry in entries}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_a_folder_becomes_a_data_set(folder: Folder) -> None:
    assert folder.run() == 0
    clips = folder.clips()
    check_clip_files(clips)
    assert [clip.video for clip in clips] == [folder.first, folder.second]
    assert clips[1].poses == folder.output / "poses/deep/take.2.mp4"
    assert {(clip.frames, clip.rate, clip.width, clip.height) for clip in clips} == {(FRAMES, 10, WIDTH, HEIGHT)}
    assert folder.broken() == {}


def test_each_frame_has_its_keypoints(folder: Folder) -> None:
    folder.run("--detect_resolution", "128")
    found = load_clip_keypoints(folder.clips()[0].keypoints)
    points, scores = dance(FRAMES, aspect=WIDTH / HEIGHT)
    np.testing.assert_array_equal(found.keypoints.points, points)
    np.testing.assert_array_equal(found.keypoints.scores, scores)
    assert found.video == Source.of(folder.first) and found.detect_resolution == 128


@pytest.mark.parametrize("face", [False, True])
def test_pose_videos_are_drawn_as_at_inference_and_faces_only_when_asked(folder: Folder, face: bool) -> None:
    folder.run(*(["--draw_face"] if face else []))
    points, scores = dance(FRAMES, aspect=WIDTH / HEIGHT)
    size = (WIDTH, HEIGHT)
    for row, frame in enumerate(read_frames(folder.clips()[0].poses)):
        drawing = draw_video_frame(to_pose(points[row], scores[row]), size, size)
        assert frame.shape == drawing.shape == (*video_size(*size)[::-1], 3)
        # H.264 smears the strokes' edges. All that is drawn has a mean of more than twice that.
        assert np.abs(frame.astype(float) - drawing).mean() < min(4, drawing.mean() / 2)
        # The dancer's chin, a circle of points below the nose, lies off every drawn line.
        x, y = (points[row, 23 + 12] * video_size(*size)).astype(int)
        assert (frame[y - 1 : y + 2, x - 1 : x + 2].min() > 150) == face
        assert (drawing[y, x] == 0).all()
    assert row == FRAMES - 1


def test_finished_videos_are_skipped_and_replaced_ones_done_again(folder: Folder) -> None:
    folder.run()
    clips = folder.clips()
    assert folder.run(load=refuse_to_load) == 0 and folder.clips() == clips
    write_video(folder.first, FRAMES - 2, width=WIDTH, height=HEIGHT, rate=10)
    folder.run()
    assert [clip.frames for clip in folder.clips()] == [FRAMES - 2, FRAMES]
    assert len(folder.asked()) == 2 * FRAMES + FRAMES - 2
    check_clip_files(folder.clips())


def test_what_an_interrupted_run_has_made_is_kept(folder: Folder) -> None:
    def interrupted(settings: Settings, worker: int):
        class Interrupted(Detector):
            def __call__(self, rgb: np.ndarray) -> People:
                if len(folder.asked()) == FRAMES + 2:
                    raise KeyboardInterrupt
                return super().__call__(rgb)

        return Interrupted(folder.path / "asked-0")

    with pytest.raises(KeyboardInterrupt):
        folder.run(load=interrupted)
    assert not (folder.output / "meta.json").exists()
    folder.run()
    assert len(folder.asked()) == FRAMES + 2 + FRAMES
    check_clip_files(folder.clips())


def test_drawing_again_detects_nothing(folder: Folder) -> None:
    folder.run()
    before = folder.clips()[0].poses.read_bytes()
    assert folder.run("--draw_face", load=refuse_to_load) == 0
    assert folder.clips()[0].poses.read_bytes() != before
    assert folder.run(load=refuse_to_load) == 0
    assert folder.clips()[0].poses.read_bytes() == before


def test_other_settings_or_weights_detect_again(folder: Folder) -> None:
    folder.run()
    folder.run("--detect_resolution", "128")
    (folder.path / "yolox_ckpt").write_text("stands for others")
    folder.run("--detect_resolution", "128")
    assert len(folder.asked()) == 3 * 2 * FRAMES


def test_lost_files_are_made_again(folder: Folder) -> None:
    folder.run()
    first, second = folder.clips()
    first.poses.unlink()
    second.keypoints.write_bytes(b"damaged")
    folder.run(load=refuse_to_load)  # poses are drawn from the keypoints
    check_clip_files(folder.clips())
    second.poses.unlink()
    folder.run()
    assert len(folder.asked()) == 3 * FRAMES
    assert len(load_clip_keypoints(second.keypoints).keypoints.points) == FRAMES


@pytest.mark.parametrize(
    "change",
    [
        {"frames": 999},
        {"frames": "6"},
        {"rate": "1e999999999"},
        {"rate": None},
        {"left_out": 5},
        *({key: ...} for key in ("frames", "draw_face", "left_out", "detection")),
        "[]",
        "{",
        "[" * 100_000,
    ],
)
def test_what_a_spoilt_record_describes_is_made_anew(folder: Folder, change: dict | str) -> None:
    folder.second.unlink()
    folder.run()
    record = folder.output / "records/a.json"
    whole, clips = json.loads(record.read_text()), folder.clips()
    changed = change if isinstance(change, str) else {k: v for k, v in (whole | change).items() if v is not ...}
    record.write_text(changed if isinstance(changed, str) else json.dumps(changed))
    folder.run()
    assert folder.clips() == clips and json.loads(record.read_text()) == whole


def test_a_truncated_pose_video_is_drawn_again(folder: Folder) -> None:
    folder.run()
    truncate(folder.clips()[0].poses)
    assert folder.run(load=refuse_to_load) == 0
    check_clip_files(folder.clips())


def test_several_workers_make_the_same(folder: Folder) -> None:
    folder.run()
    one = {path: path.read_bytes() for path in folder.output.rglob("*.*") if path.is_file()}
    shutil.rmtree(folder.output)
    folder.run("--workers", "2")
    assert {path: path.read_bytes() for path in folder.output.rglob("*.*") if path.is_file()} == one
    assert len(folder.asked()) == 4 * FRAMES


def test_broken_videos_are_left_out_and_listed(folder: Folder, capsys: pytest.CaptureFixture) -> None:
    truncate(folder.first)
    write_text(folder.videos / "text.mp4")
    write_audio_only(folder.videos / "sound.mp4")
    write_video(folder.videos / "wide.mp4", FRAMES, width=240, height=16)
    assert folder.run() == 0
    assert [clip.video for clip in folder.clips()] == [folder.second]
    assert set(folder.broken()) == {"a.mp4", "text.mp4", "sound.mp4", "wide.mp4"}
    printed = capsys.readouterr().out
    assert all(reason in printed for reason in folder.broken().values()) and "4 left out" in printed


def test_a_truncated_video_is_left_out(folder: Folder) -> None:
    data = bytearray(folder.first.read_bytes())
    start = data.index(b"mdat") + 4
    data[start + 700 : start + 2000] = bytes(1300)
    broken = folder.videos / "b.mp4"
    broken.write_bytes(data)
    try:
        decoded = len(list(read_frames(broken)))
    except UserError:
        decoded = 0
    assert decoded < FRAMES  # or this test tests nothing
    folder.run()
    assert set(folder.broken()) == {"b.mp4"}


def test_a_video_with_fewer_frames_than_it_states_is_left_out(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    def states_one_more(path: Path) -> VideoInfo:
        return replace(probe(path), frames=FRAMES + (path == folder.first))

    monkeypatch.setattr("musepose.training.data.video_preparation.probe", states_one_more)
    folder.run()
    assert [clip.video for clip in folder.clips()] == [folder.second]
    assert f"has {FRAMES} frames instead of {FRAMES + 1}" in folder.broken()["a.mp4"]


@pytest.mark.parametrize(("shown", "used"), [(3, True), (2, False), (0, False)])
def test_a_video_needs_its_person_in_half_the_frames(folder: Folder, shown: int, used: bool) -> None:
    numbers = [*range(shown), *range(EMPTY_FROM, EMPTY_FROM + FRAMES - shown)]
    write_video(folder.first, [numbered_frame(number, WIDTH, HEIGHT) for number in numbers])
    folder.run()
    assert (folder.first in [clip.video for clip in folder.clips()]) == used
    if used:
        frames = list(read_frames(folder.clips()[0].poses))
        assert [frame.max() > 100 for frame in frames] == [True] * shown + [False] * (FRAMES - shown)
    else:
        assert f"shows a person in only {shown} of {FRAMES} frames" in folder.broken()["a.mp4"]
        assert folder.run(load=refuse_to_load) == 0  # the verdict is remembered
        assert "a.mp4" in folder.broken()


def test_no_video_that_can_be_used_is_an_error(folder: Folder) -> None:
    truncate(folder.first)
    truncate(folder.second)
    with pytest.raises(UserError, match="none of the 2 videos can be used"):
        folder.run(load=refuse_to_load)
    assert set(folder.broken()) == {"a.mp4", "take.2.mov"}
    assert not (folder.output / "meta.json").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--video_dir", "nowhere"), "nowhere is not a folder"),
        (("--video_dir", "none"), "has no .mp4"),
        (("--output", "videos/data"), "lies in --video_dir"),
        (("--output", "a_file"), "cannot write a_file/meta.json"),
        (("--workers", "0"), "--workers is 0"),
        (("--detect_resolution", "63"), "--detect_resolution is 63"),
        (("--yolox_ckpt", "nowhere.pth"), "nowhere.pth is missing: give another with --yolox_ckpt"),
        (("--max_frame", "3"), "unrecognized arguments"),
    ],
)
def test_wrong_input_is_refused_before_the_detector_loads(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, str], message: str
) -> None:
    monkeypatch.chdir(folder.path)
    (folder.path / "none").mkdir()
    (folder.path / "a_file").write_text("a file")
    with pytest.raises(UserError) as error:
        folder.run(*flags, load=refuse_to_load)
    assert message in str(error.value)
    assert not folder.output.exists()


def test_the_data_sets_own_pose_videos_are_no_videos(folder: Folder) -> None:
    poses = folder.output / "poses"
    poses.mkdir(parents=True)
    shutil.copy(folder.first, poses / "one.mkv")  # its pose video, one.mp4, would be a video of the next run
    with pytest.raises(UserError, match="is the data set's own folder of poses"):
        folder.run("--video_dir", poses, load=refuse_to_load)
    assert [path.name for path in poses.iterdir()] == ["one.mkv"]


def test_videos_that_would_write_the_same_files_are_refused(folder: Folder) -> None:
    shutil.copy(folder.first, folder.first.with_suffix(".mkv"))
    with pytest.raises(UserError, match="differ only in the suffix"):
        folder.run(load=refuse_to_load)


def test_a_detector_that_fails_to_load_is_an_error_and_no_broken_video(folder: Folder) -> None:
    def fail(settings: Settings, worker: int) -> Detector:
        raise UserError("--device nope is not available: try --device cpu")

    with pytest.raises(UserError, match="--device nope"):
        folder.run(load=fail)
    assert not (folder.output / "broken.json").exists()


def test_the_real_detector_is_loaded_with_the_settings(folder: Folder) -> None:
    from random_models.mm_weights import tiny_files  # here, as worker processes import this file, and it imports torch

    files = tiny_files(folder.path)
    for flag in DETECTOR_FILES:
        shutil.copy(files[flag], folder.path / f"{flag}{files[flag].suffix}")
    flags = [word for flag in DETECTOR_FILES for word in (f"--{flag}", folder.path / f"{flag}{files[flag].suffix}")]
    seen = []

    def watched(settings: Settings, worker: int):
        detector = load_detector(settings, worker)
        seen.append(detector.detect_resolution)
        return detector

    folder.second.unlink()
    pictures = [numbered_frame(number, WIDTH, HEIGHT) for number in range(1, FRAMES + 1)]  # 0 is of one colour
    write_video(folder.first, pictures, rate=10)
    folder.run(*flags, "--detect_resolution", "64", "--device", "cpu,cpu", load=watched)
    assert seen == [64]
    check_clip_files(folder.clips())
    assert load_clip_keypoints(folder.clips()[0].keypoints).keypoints.scores.any(axis=1).all()
