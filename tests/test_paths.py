"""Paths: names that no file can have, inputs that are no files, outputs that are inputs, links to nothing."""

import os
import socket
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest
from pose_align_folder import pose_align_folder  # noqa: F401, a fixture

from musepose.inference.cases import claim_folder, make_plan
from musepose.inference.options import Settings
from musepose.media.image import read_image
from musepose.media.video_reader import list_media, probe
from musepose.utils.config_file import Config
from musepose.utils.errors import UserError
from musepose.utils.files import check_writable, project_file, require_file
from musepose.utils.options import build
from musepose.utils.paths import check_regular, refuse_inputs
from musepose.utils.published import PROJECT

READERS = [read_image, probe, require_file, lambda path: check_regular(path, "picture")]


def special(folder: Path, kind: str) -> Path:
    path = folder / "file.mp4"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(str(path))
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    return path


@pytest.mark.skipif(os.name != "posix", reason="pipes and devices as POSIX has them")
@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "folder"])
def test_only_regular_files_are_read(tmp_path, read, kind):
    path = special(tmp_path, kind)
    with pytest.raises(UserError, match="is a (pipe|folder)|not a file|cannot be read"):
        read(list_media(path, (".mp4",))[0] if kind == "pipe" else path)


@pytest.mark.parametrize("name", ["a\0b.png", "\ud800.png", "n" * 300 + ".png"])
@pytest.mark.parametrize("read", [*READERS, check_writable, lambda path: list_media(path, (".png",))])
def test_names_that_no_file_can_have_are_user_errors(tmp_path, read, name):
    with pytest.raises(UserError) as caught:
        read(project_file(tmp_path / name) if len(name) < 100 else tmp_path / name)
    assert "\0" not in str(caught.value)


def test_such_names_as_options(tmp_path):
    with pytest.raises(UserError, match=r"--output: .* cannot be the name of a file"):
        build(Settings, {"output": "a\0b"})


def unreadable(own_folder: Path) -> Path:
    path = own_folder / "unreadable.png"
    path.write_bytes(b"content")
    path.chmod(0)
    return path


@pytest.mark.parametrize("read", READERS)
def test_files_that_may_not_be_read_are_said_to_be_so(own_folder, read):
    with pytest.raises(UserError, match="Permission denied"):
        read(unreadable(own_folder))


@pytest.mark.parametrize("link", ["", "symbolic", "hard", "folder"])
def test_an_output_that_is_an_input_is_refused(tmp_path, link):
    given, other = tmp_path / "in" / "a.mp4", tmp_path / "out.mp4"
    given.parent.mkdir()
    given.write_bytes(b"content")
    if link == "symbolic":
        other.symlink_to(given)
    elif link == "hard":
        os.link(given, other)
    elif link == "folder":
        (tmp_path / "same").symlink_to(given.parent)
        other = tmp_path / "same" / "a.mp4"
    else:
        other = given
    with pytest.raises(UserError, match="would be overwritten"):
        refuse_inputs([None, other], [given])
    with pytest.raises(UserError, match="would be overwritten"):
        refuse_inputs([other], [None, given.parent])  # a folder of inputs
    refuse_inputs([tmp_path / "new.mp4"], [given, given.parent])


def test_a_link_to_nothing_is_no_output(tmp_path):
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    for output in ("gone", "gone/result.mp4"):
        with pytest.raises(UserError, match="gone is a link to nothing"):
            check_writable(tmp_path / output)


@pytest.mark.parametrize("flag", ["--save_keypoints", "--outfn", "--outfn_align_pose_video"])
@pytest.mark.parametrize("given", ["--yolox_ckpt", "--dwpose_config", "--keypoints", "--vidfn"])
def test_pose_align_overwrites_none_of_its_inputs(folder, flag, given):
    path = folder.path / "given.mp4"
    path.write_bytes((folder.save() if given == "--keypoints" else folder.video).read_bytes())
    before = path.read_bytes()
    others = [] if given == "--keypoints" else ["--keypoints", folder.save()]
    with pytest.raises(UserError, match="choose another output path"):
        folder.run(given, path, flag, path, *others)
    assert path.read_bytes() == before


def test_a_folder_of_pose_videos_is_no_output_if_a_result_would_replace_one(stage_2):
    config = stage_2.write_config(test_cases={"ref.png": ["ref_dance_3.5_20_1.mp4", "dance.mp4"]})
    (stage_2.path / "ref_dance_3.5_20_1.mp4").write_bytes(stage_2.pose.read_bytes())
    with pytest.raises(UserError, match="would be overwritten"):
        make_plan(config, {"output": "."}, datetime(2026, 1, 1))
    assert make_plan(config, {"output": "elsewhere"}, datetime(2026, 1, 1)).jobs


@pytest.mark.parametrize("output", ["poses", "link", "poses/../poses"])
def test_the_folder_of_pose_videos_is_no_output(stage_2, output):
    """The next run would take the results for pose videos."""
    (stage_2.path / "poses").mkdir()
    (stage_2.path / "link").symlink_to(stage_2.path / "poses")
    (stage_2.path / "poses" / "a.mp4").write_bytes(stage_2.pose.read_bytes())
    config = stage_2.write_config(test_cases={"ref.png": ["poses"]})
    with pytest.raises(UserError, match="is also a folder of pose videos"):
        make_plan(config, {"output": output}, datetime(2026, 1, 1))
    assert make_plan(config, {"output": "poses/results"}, datetime(2026, 1, 1)).jobs


def test_a_name_that_the_locale_lacks_names_the_remedy(tmp_path):
    code = "from musepose.utils.paths import checked_path; checked_path('\\u4eba')"
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    run = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **ascii_only}, capture_output=True, text=True, cwd=PROJECT
    )
    assert "set PYTHONUTF8=1, as this locale's encoding is ascii" in run.stderr


@pytest.mark.parametrize("fps", ["1e999999999", "1e-999999999", "9" * 100_000, "1/" + "9" * 100_000, "1e5", "nan"])
@pytest.mark.parametrize("by", ["flag", "yaml"])
def test_numbers_without_bounds_are_refused_at_once(fps, by):
    config = Config(Path("my.yaml"), {"fps": fps} if by == "yaml" else {})
    with pytest.raises(UserError, match="fps is .*: give ") as caught:
        build(Settings, {"fps": fps} if by == "flag" else {}, config)
    assert len(str(caught.value)) < 400
    with pytest.raises(UserError, match="seed is"):
        build(Settings, {}, Config(Path("my.yaml"), {"seed": 16**5000}))


def test_two_runs_of_the_same_second_have_folders_of_their_own(stage_2):
    plans = [make_plan(stage_2.write_config(), {}, datetime(2026, 1, 1)) for _ in range(2)]
    first, second = (claim_folder(plan).jobs[0].result for plan in plans)
    assert first == plans[0].jobs[0].result and second.name == first.name
    assert second.parent.name == f"{first.parent.name}-2" and second.parent.is_dir()


def test_names_that_are_too_long_together_name_the_remedy(stage_2):
    config = stage_2.write_config(test_cases={"r" * 150 + ".png": ["p" * 150 + ".mp4"]})
    (stage_2.path / ("r" * 150 + ".png")).write_bytes(stage_2.reference.read_bytes())
    (stage_2.path / ("p" * 150 + ".mp4")).write_bytes(stage_2.pose.read_bytes())
    with pytest.raises(UserError, match="File name too long.*rename the input files"):
        make_plan(config, {"output": "out"}, datetime(2026, 1, 1))
