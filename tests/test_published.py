"""The remedy for a missing or broken file: download_weights.py is advised only for files that it fetches."""

from pathlib import Path

import pytest

from musepose.download.weights import WEIGHT_FILES
from musepose.utils.errors import UserError
from musepose.utils.files import PROJECT, require_file
from musepose.utils.published import OPTIONAL, PUBLISHED, missing_hint, other_hint, replace_hint, source_hint


def test_the_table_is_the_downloader_s():
    assert set(PUBLISHED) == {file.target for file in WEIGHT_FILES if file.group != "blazepose"}
    assert [file.target for file in WEIGHT_FILES if file.optional] == [OPTIONAL]


@pytest.mark.parametrize("target", PUBLISHED)
def test_published_files(target, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    base = " --with_base_unet" if target == OPTIONAL else ""
    for folder in (PROJECT / "pretrained_weights", Path("pretrained_weights"), tmp_path / "pretrained_weights"):
        assert source_hint(folder / target) == f"run `python download_weights.py{base}`"
    assert source_hint(Path("/data/w") / target) == f"run `python download_weights.py --dir /data/w{base}`"
    assert replace_hint(Path("/data/w") / target).startswith("delete it and run `python download_weights.py --dir")


def test_the_puppets_files_come_with_the_repository():
    path = PROJECT / "pretrained_weights/puppet/MusePose/pose_guider.pth"
    assert missing_hint(path) == other_hint(path) == "restore it from the repository"


@pytest.mark.parametrize("path", ["m.pth", "/x/denoising_unet.pth", "MusePose/mine.pth", "out/weights/pose_guider.pth"])
def test_other_files(path):
    hints = (missing_hint(path), replace_hint(path), other_hint(path))
    assert not any("download_weights" in hint for hint in hints)
    assert all(hints)


def test_what_is_no_file_is_said(tmp_path):
    (tmp_path / "empty").touch()
    for name, words in (
        ("gone", "is missing"),
        ("empty", "is empty"),
        (".", "is a folder"),
        ("x" * 300, "cannot be re"),
    ):
        with pytest.raises(UserError, match=words):
            require_file(tmp_path / name)
    with pytest.raises(UserError, match="null is not a file: check the path"):
        require_file(Path("/dev/null"))
