"""Uploaded files: what they are, and what is wrong with them, in one line, before anything else is done with them."""

from dataclasses import dataclass
from pathlib import Path

from musepose.app.options import Settings
from musepose.media.image import read_image
from musepose.media.video_reader import VideoInfo, probe
from musepose.pose.job import check_shape
from musepose.utils.errors import UserError

SUFFIX_HINT = "give an MP4, MOV, MKV, WebM or AVI file"


@dataclass(frozen=True)
class Checked:
    """A file as the page shows it: one line about it, or about what is wrong."""

    line: str
    good: bool
    seconds: float = 0.0  # of a video
    frames: int = 0
    limit: float = 0.0  # how much of it may be used, seconds


def check_picture(path: Path, limits: Settings) -> Checked:
    """Never raises UserError, but returns its line."""
    try:
        picture = read_image(path)
        check_shape(path, *picture.size)
        megapixels = picture.width * picture.height / 1e6
        if megapixels > limits.max_megapixels:
            raise UserError(
                f"{path} has {megapixels:.1f} megapixels, more than {limits.max_megapixels:g}: scale it down"
            )
    except UserError as error:
        return Checked(without_folder(error, path), False)
    return Checked(f"{picture.width} × {picture.height} pixels", True)


def check_dance(path: Path, limits: Settings) -> Checked:
    """Never raises UserError, but returns its line."""
    try:
        dance = probe(path)
        check_shape(path, dance.width, dance.height)
    except UserError as error:
        return Checked(without_folder(error, path), False)
    seconds, limit = float(dance.frames / dance.rate), limits.max_seconds
    line = f"{seconds:.1f} seconds, {dance.width} × {dance.height}, {float(dance.rate):.4g} frames a second"
    line += ", with sound" if dance.has_audio else ""
    line += f". At most {limit:g} seconds of it are used at a time" if seconds > limit else ""
    return Checked(line, True, seconds, dance.frames, limit)


def check_part(dance: VideoInfo, frames: int, limits: Settings) -> None:
    """Raises UserError: the part of the dance is too long."""
    seconds = float(frames / dance.rate)
    if seconds > limits.max_seconds * 1.001:
        raise UserError(
            f"{seconds:.1f} seconds of the dance are more than {limits.max_seconds:g}: choose a shorter part"
        )


def without_folder(error: UserError, path: Path) -> str:
    return " ".join(str(error).split()).replace(f"{path.parent}/", "")
