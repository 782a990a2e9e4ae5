"""A data set's manifest: written, read, and refused if wrong."""

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from media import truncate, write_video

from musepose.training.data.manifest import Clip, check_clip_files, load_manifest, save_manifest
from musepose.utils.errors import UserError

ENTRY = {
    "video_path": "videos/a.mp4",
    "kps_path": "poses/a.mp4",
    "keypoints_path": "keypoints/a.npz",
    "frames": 48,
    "rate": "30000/1001",
    "width": 64,
    "height": 48,
}


def write(path: Path, entries: object) -> Path:
    path.write_text(json.dumps(entries), encoding="utf-8")
    return path


@pytest.fixture
def clip(tmp_path: Path) -> Clip:
    """A whole clip of 5 frames."""
    (tmp_path / "a.npz").write_bytes(b"stands for keypoints")
    video = write_video(tmp_path / "a.mp4", 5, width=64, height=48, rate=10)
    poses = write_video(tmp_path / "a_poses.mp4", 5, width=96, height=64, rate=10)
    return Clip(video, poses, tmp_path / "a.npz", 5, Fraction(10), 64, 48)


def test_paths_are_relative_to_the_manifests_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (clip,) = load_manifest([write(tmp_path / "meta.json", [{**ENTRY, "kps_path": "/elsewhere/a.mp4"}])])
    assert clip.video == tmp_path / "videos/a.mp4" and clip.poses == Path("/elsewhere/a.mp4")
    assert clip.rate == Fraction(30000, 1001) and (clip.frames, clip.width, clip.height) == (48, 64, 48)


def test_what_is_saved_is_loaded_and_moves_with_its_folder(clip: Clip, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    inside = replace(clip, video=tmp_path / "set/videos/b.mp4", keypoints=None, rate=Fraction(24000, 1001))
    save_manifest(tmp_path / "set/meta.json", [inside, clip])
    assert load_manifest([tmp_path / "set/meta.json"]) == [inside, clip]
    (tmp_path / "set").rename(tmp_path / "moved")
    assert load_manifest([tmp_path / "moved/meta.json"])[0].video == tmp_path / "moved/videos/b.mp4"


def test_several_files_are_read_in_their_order(tmp_path: Path) -> None:
    paths = [write(tmp_path / name, [{**ENTRY, "video_path": name}]) for name in ("b", "a")]
    assert [clip.video.name for clip in load_manifest(paths)] == ["b", "a"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *(({key: ...}, f"lacks '{key}'") for key in ENTRY if key != "keypoints_path"),
        ({"video_path": ""}, "'video_path' ''"),
        ({"kps_path": 3}, "'kps_path' 3"),
        ({"keypoints_path": 3}, "'keypoints_path' 3"),
        ({"frames": 0}, "'frames' 0"),
        ({"frames": "48"}, "'frames' '48'"),
        ({"frames": True}, "'frames' True"),
        ({"width": -2}, "'width' -2"),
        ({"height": 1.5}, "'height' 1.5"),
        ({"rate": 15}, "'rate' 15"),
        ({"rate": "fast"}, "'rate' 'fast'"),
        ({"rate": "1/0"}, "'rate' '1/0'"),
        ({"rate": "-15"}, "'rate' '-15'"),
        ({"rate": "1e999999999"}, "'rate' '1e999999999'"),
        ({"rate": "nan"}, "'rate' 'nan'"),
        ({"rate": "9" * 5000}, "999…, not a positive"),
        ({"frames": float("inf")}, "'frames' inf"),
        ({"video_path": "a" * 300 + ".mp4"}, "aaa…, not a path"),
        ({"kps_path": "a\0b.mp4"}, "'kps_path' 'a\\x00b.mp4', not a path"),
        ({"keypoints_path": "\ud800.npz"}, "'keypoints_path' '\\ud800.npz', not a path"),
    ],
)
def test_an_error_names_the_entrys_number(tmp_path: Path, change: dict, message: str) -> None:
    wrong = {key: value for key, value in {**ENTRY, **change}.items() if value is not ...}
    with pytest.raises(UserError, match="entry 1") as error:
        load_manifest([write(tmp_path / "meta.json", [ENTRY, wrong])])
    assert message in str(error.value) and len(str(error.value)) < 400


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not a JSON"),
        ('{"a": 1}', "is not a manifest"),
        ("[3]", "entry 0, is not a JSON object"),
        ("[]", "no clips"),
    ],
)
def test_a_file_that_is_no_manifest_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "meta.json").write_text(content)
    with pytest.raises(UserError, match=message):
        load_manifest([tmp_path / "meta.json"])


def test_a_missing_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"meta.json is missing: make it with python prepare_dataset.py"):
        load_manifest([tmp_path / "meta.json"])


def test_whole_clips_pass_the_check(clip: Clip) -> None:
    check_clip_files([clip, replace(clip, keypoints=None)])


def test_the_check_names_the_first_broken_clip_and_counts_them(clip: Clip, tmp_path: Path) -> None:
    missing = replace(clip, video=tmp_path / "gone.mp4")
    with pytest.raises(UserError, match=r"gone.mp4 cannot be trained on .* 1 more of 3 clips"):
        check_clip_files([clip, missing, replace(clip, poses=tmp_path / "gone too.mp4")])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": 6}, "it has 5 frames, its pose video 5, and the manifest says 6"),
        ({"width": 66}, "it is 64 x 48, and the manifest says 66 x 48"),
        ({"keypoints": Path("gone.npz")}, "gone.npz is missing"),
        ({"poses": Path("gone.mp4")}, "gone.mp4"),
    ],
)
def test_the_check_compares_files_and_manifest(clip: Clip, change: dict, message: str) -> None:
    with pytest.raises(UserError) as error:
        check_clip_files([replace(clip, **change)])
    assert message in str(error.value)


def test_the_check_finds_pose_videos_of_another_length_and_damaged_ones(clip: Clip) -> None:
    write_video(clip.poses, 4, width=96, height=64, rate=10)
    with pytest.raises(UserError, match="its pose video 4"):
        check_clip_files([clip])
    truncate(clip.video)
    with pytest.raises(UserError, match="cut off"):
        check_clip_files([clip])
