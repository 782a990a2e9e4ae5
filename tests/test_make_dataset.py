"""Puppet data sets: the files are consistent, interrupted runs resume, held-out scenes are refused."""

from pathlib import Path

import numpy as np
import pytest
from tolerance import assert_near

from musepose.media.video_reader import probe, read_frames
from musepose.pose.draw import draw_video_frame
from musepose.pose.keypoint_file import Source
from musepose.pose.types import to_pose
from musepose.training.data.clip_keypoints import load_clip_keypoints
from musepose.training.data.manifest import Clip, check_clip_files, load_manifest
from musepose.utils.errors import UserError
from puppet.make_dataset import RATE, SIZE, Kind, main, render_frames
from puppet.scenes import SPAN
from puppet.world import HELD_OUT

SPREAD = ("--frames", "2", "--spread", "--workers", "1")


def make(folder: Path, *flags: str) -> list[Clip]:
    assert main(["--output", str(folder), *flags]) == 0
    return load_manifest([folder / "meta.json"])


@pytest.fixture(scope="module")
def spread(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    """Two scenes of two moments each."""
    return make(tmp_path_factory.mktemp("data"), "--first", "7", "--scenes", "2", *SPREAD)


def test_the_manifest_lists_the_clips(spread: list[Clip]) -> None:
    check_clip_files(spread)
    assert [clip.video.name for clip in spread] == ["scene-0000007.mp4", "scene-0000008.mp4"]
    assert {(probe(clip.video).rate, clip.rate) for clip in spread} == {(1, 1)}


def test_the_video_shows_the_scene(spread: list[Clip]) -> None:
    truth = render_frames(7, Kind(2, spread=True))
    for frame, picture in zip(read_frames(spread[0].video), truth, strict=True):
        difference = np.abs(frame.astype(float) - picture.image).mean()
        assert difference < 3 < np.abs(frame.astype(float) - render_frames(8, Kind(2, True))[0].image).mean()


def test_the_pose_video_is_the_drawing_of_the_stored_keypoints(spread: list[Clip]) -> None:
    found = load_clip_keypoints(spread[1].keypoints)
    assert found.video == Source.of(spread[1].video)
    assert found.keypoints.points.dtype == found.keypoints.scores.dtype == np.float32
    for row, frame in enumerate(read_frames(spread[1].poses)):
        pose = to_pose(found.keypoints.points[row], found.keypoints.scores[row])
        drawing = draw_video_frame(pose, (SIZE, SIZE), (SIZE, SIZE)).astype(float)
        lit = drawing.max(axis=-1) > 60
        assert np.abs(frame - drawing)[lit].mean() < 0.2 * drawing[lit].mean()  # H.264 smears colours at the edges
    assert row == 1


def test_a_second_run_makes_only_what_is_missing(tmp_path: Path) -> None:
    first, second = make(tmp_path, "--scenes", "2", *SPREAD)
    before = first.video.stat().st_mtime_ns
    second.keypoints.unlink()
    (tmp_path / "meta.json").unlink()
    assert make(tmp_path, "--scenes", "3", *SPREAD)[:2] == [first, second]
    assert first.video.stat().st_mtime_ns == before and second.keypoints.exists()


def test_a_folder_holds_one_kind_of_videos(spread: list[Clip]) -> None:
    folder = spread[0].video.parents[1]
    with pytest.raises(UserError, match="holds videos with other --frames or --spread"):
        make(folder, "--first", "7", "--scenes", "2", "--frames", "2")


def test_several_processes_make_the_same_as_one(spread: list[Clip], tmp_path: Path) -> None:
    others = make(tmp_path, "--first", "7", "--scenes", "2", "--frames", "2", "--spread", "--workers", "2")
    for one, other in zip(spread, others, strict=True):
        for ours, theirs in zip(read_frames(one.video), read_frames(other.video), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_moments_are_in_a_row_or_spread_over_the_whole_scene() -> None:
    assert_near(np.diff(Kind(48, spread=False).moments(3)), 1 / RATE)
    moments = np.stack([Kind(6, spread=True).moments(number) for number in range(200)])
    assert (np.diff(moments, axis=1) > 0).all()
    assert moments.min() >= 0 and moments.max() <= SPAN and np.ptp(moments) > 0.95 * SPAN
    assert not np.allclose(moments[0], moments[1])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--first", str(HELD_OUT - 1), "--scenes", "2", "--frames", "2"), "kept for evaluation"),
        (("--scenes", "0", "--frames", "2"), "--scenes is 0"),
        (("--scenes", "1", "--frames", "91"), "a scene has 90"),
        (("--scenes", "1", "--frames", "2", "--workers", "0"), "--workers is 0"),
        (("--first", "-1", "--scenes", "1", "--frames", "2"), "--first is -1"),
        (("--scenes", "1"), "--frames"),
    ],
)
def test_wrong_flags_are_refused_before_anything_is_written(tmp_path: Path, flags: tuple, message: str) -> None:
    with pytest.raises(UserError, match=message):
        main(["--output", str(tmp_path / "data"), *flags])
    assert not (tmp_path / "data").exists()


def test_held_out_scenes_are_made_when_asked_for(tmp_path: Path) -> None:
    (clip,) = make(tmp_path, "--first", str(HELD_OUT), "--scenes", "1", "--frames", "1", "--held_out", "--workers", "1")
    assert clip.video.name == f"scene-{HELD_OUT}.mp4"
