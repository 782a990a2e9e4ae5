"""Conversion of videos to animated WebP files."""

from pathlib import Path

import pytest
from media import write_video
from PIL import Image

import puppet.moving_picture as program
from musepose.utils.errors import UserError


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr("sys.argv", ["moving_picture", *map(str, arguments)])
    program.main()


def test_every_frame_is_kept_at_the_given_height_and_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_video(tmp_path / "a.mp4", frames=5, width=96, height=64, rate=25)
    run(monkeypatch, tmp_path / "a.mp4", tmp_path / "a.webp", "--height", 32)
    picture = Image.open(tmp_path / "a.webp")
    assert (picture.size, picture.n_frames) == ((48, 32), 5)
    for number in range(5):
        picture.seek(number)
        picture.load()
        assert picture.info["duration"] == 40


@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        ("a.gif", (), "end its name in .webp"),
        ("a.webp", ("--height", 0), "--height is 0"),
        ("a.webp", ("--quality", 101), "--quality is 101"),
    ],
)
def test_bad_input_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, flags: tuple, message: str
):
    write_video(tmp_path / "a.mp4", frames=2)
    with pytest.raises(UserError, match=message):
        run(monkeypatch, tmp_path / "a.mp4", tmp_path / name, *flags)
    assert not (tmp_path / name).exists()
