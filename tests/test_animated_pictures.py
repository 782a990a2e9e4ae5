"""Animated WebP, PNG and GIF as dances: all frames, at their times."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from media import colour_error, corners, frame_number, numbered_frame, truncate
from PIL import Image

from musepose.media import animated_webp
from musepose.media.video_reader import probe, read_frames
from musepose.utils.errors import UserError


def write_animation(path: Path, durations: list[int], frames: list[Image.Image] | None = None) -> Path:
    """`durations`: milliseconds, one for each frame."""
    first, *more = frames or [Image.fromarray(numbered_frame(n, 64, 48)) for n in range(len(durations))]
    lossless = {"lossless": True} if path.suffix == ".webp" else {}
    first.save(path, save_all=True, append_images=more, duration=durations, **lossless)
    return path


@pytest.mark.parametrize("suffix", [".webp", ".png", ".gif"])
def test_an_animation_is_a_dance(tmp_path, suffix):
    path = write_animation(tmp_path / f"a{suffix}", [40] * 6)
    info = probe(path)
    assert (info.width, info.height, info.frames, info.rate) == (64, 48, 6, Fraction(25))
    assert [frame_number(frame) for frame in read_frames(path)] == list(range(6))


@pytest.mark.parametrize("suffix", [".webp", ".png"])
def test_colours_and_transparency(tmp_path, suffix):
    pixels = np.dstack([corners(64, 48), np.full((48, 64), 255, np.uint8)])
    pixels[24:, :, 3] = 0
    frames = [Image.fromarray(pixels), Image.fromarray(corners(64, 48)).convert("RGBA")]
    whole = list(read_frames(write_animation(tmp_path / f"a{suffix}", [40, 40], frames)))
    np.testing.assert_array_equal(whole[0][:24], corners(64, 48)[:24])
    assert whole[0][24:].min() == 255 and colour_error(whole[1]) == 0


def test_a_damaged_animation_is_refused(tmp_path):
    path = write_animation(tmp_path / "a.webp", [40] * 6)
    with pytest.raises(UserError, match="a.webp is (damaged|cut off)"):
        list(read_frames(truncate(path, 0.7)))


def test_a_large_animation_is_refused_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr(animated_webp, "MAX_PIXELS", 1000)
    with pytest.raises(UserError, match="an animated WebP of 6 frames, too large: convert it to mp4"):
        probe(write_animation(tmp_path / "a.webp", [40] * 6))


NEEDS_AVIF = pytest.mark.skipif(".avif" not in Image.registered_extensions(), reason="this Pillow has no AVIF")


@pytest.mark.parametrize("suffix", [".webp", ".png", ".jpg", ".bmp", pytest.param(".avif", marks=NEEDS_AVIF)])
def test_a_picture_is_no_dance(tmp_path, suffix):
    Image.fromarray(corners(64, 48)).save(tmp_path / f"a{suffix}")
    with pytest.raises(UserError, match="picture without motion, not a video: give a video or an animation"):
        probe(tmp_path / f"a{suffix}")
