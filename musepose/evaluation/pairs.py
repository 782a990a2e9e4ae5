"""Pairs of result and ground truth: matching files, checks, and comparison frame by frame."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from musepose.evaluation.metrics import (
    SSIM_WINDOW,
    FrameDifferences,
    joint_distances,
    mean_or_none,
    psnr,
    ssim,
    to_float,
)
from musepose.media.damage import damaged_frames, describe_damage
from musepose.media.image import check_file
from musepose.media.video_reader import (
    VIDEO_SUFFIXES,
    VideoInfo,
    list_media,
    probe,
    read_frames,
)
from musepose.pose.detectors.base import Detector
from musepose.pose.person_tracking import follow
from musepose.pose.types import Pose, to_pose
from musepose.utils.errors import UserError
from musepose.utils.paths import checked_path

if TYPE_CHECKING:  # it imports torch, which the other metrics do not need
    from musepose.evaluation.networks import Fvd, Lpips

LIST_SUFFIXES = (".txt", ".csv", ".tsv")
PCK_THRESHOLD = 0.08  # torso lengths; a joint within this distance counts as correct (percentage of correct keypoints)


@dataclass(frozen=True)
class Pair:
    """A checked pair: the first `frames` of the result, and frames 0, step, 2·step, … of the ground truth."""

    result: VideoInfo
    truth: VideoInfo
    frames: int
    step: int
    notes: tuple[str, ...] = ()  # what is unusual about the videos, a line each

    def pictures(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Frames of result and ground truth, uint8; the result is resized to the ground truth's size (Lanczos)."""
        size = (self.truth.width, self.truth.height)
        results = read_frames(self.result, count=self.frames)
        truths = read_frames(self.truth, self.step, self.frames)
        for result, truth in zip(results, truths, strict=True):
            if result.shape != truth.shape:
                result = np.asarray(Image.fromarray(result).resize(size, Image.Resampling.LANCZOS))
            yield result, truth


@dataclass(frozen=True)
class Instruments:
    """Networks for the metrics that need one; None if not requested."""

    lpips: "Lpips | None" = None
    fvd: "Fvd | None" = None
    detector: Detector | None = None


def find_pairs(arguments: Sequence[str]) -> list[tuple[Path, Path]]:
    """→ (result, truth) from the arguments of --pairs: RESULT TRUTH …, two folders, or a list file.

    In two folders, videos with the same stem are pairs. A list has one pair per line, separated by a comma, a tab or
    blanks; paths are relative to its folder; empty lines and lines that start with # are skipped. Raises UserError: an
    odd number of paths, a line that is not a pair, a result without a ground truth.
    """
    paths = [checked_path(argument) for argument in arguments]
    if len(paths) == 1 and paths[0].suffix.lower() in LIST_SUFFIXES:
        return _from_list(paths[0])
    if len(paths) % 2:
        raise UserError(f"--pairs has {len(paths)} paths: give RESULT TRUTH [RESULT TRUTH ...], or a .txt or .csv file")
    pairs = []
    for result, truth in zip(paths[::2], paths[1::2], strict=True):
        if result.is_dir() != truth.is_dir():
            raise UserError(f"{result} and {truth} are a folder and a file: give two folders or two videos")
        pairs += _from_folders(result, truth) if result.is_dir() else [(result, truth)]
    return pairs


def _from_list(path: Path) -> list[tuple[Path, Path]]:
    check_file(path, "list of pairs")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise UserError(f"{path} is not text: write one pair per line") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): check the path and its permissions") from None
    pairs = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        separator = next((mark for mark in ",\t" if mark in line), None)
        try:
            fields = next(csv.reader([line], delimiter=separator)) if separator else line.split()
        except csv.Error as error:  # a field of more than 131,072 characters, for one
            raise UserError(f"{path}, line {number} cannot be read ({error}): write RESULT, TRUTH") from None
        if len(fields) != 2 or not all(field.strip() for field in fields):
            raise UserError(f"{path}, line {number} has {len(fields)} entries: write RESULT, TRUTH")
        pairs.append(tuple(checked_path(path.parent / field.strip()) for field in fields))
    if not pairs:
        raise UserError(f"{path} holds no pair: write RESULT, TRUTH, one pair per line")
    return pairs


def _from_folders(results: Path, truths: Path) -> list[tuple[Path, Path]]:
    by_stem = {path.stem: path for path in list_media(truths, VIDEO_SUFFIXES)}
    found = list_media(results, VIDEO_SUFFIXES)
    stems = {result.stem for result in found}
    pairs = []
    for result in found:
        if result.stem not in by_stem:
            if result.stem.endswith("_cmp") and result.stem.removesuffix("_cmp") in stems:
                print(f"skipped {result}: test_stage_2.py's comparison, no result", flush=True)
                continue
            raise UserError(f"{result} has no ground truth of that name in {truths}: add it, or give a list of pairs")
        pairs.append((result, by_stem[result.stem]))
    return pairs


def check_pairs(paths: Sequence[tuple[Path, Path]], frames: int | None, step: int, resize: bool) -> list[Pair]:
    """Probe all videos. `frames`: how many to compare; by default lengths must match. Raises UserError."""
    return [_check_pair(probe(result), probe(truth), frames, step, resize) for result, truth in paths]


def _check_pair(result: VideoInfo, truth: VideoInfo, frames: int | None, step: int, resize: bool) -> Pair:
    sizes = [(info.width, info.height) for info in (result, truth)]
    if sizes[0] != sizes[1] and not resize:
        (a, b), (c, d) = sizes
        raise UserError(f"{result.path} is {a} x {b}, {truth.path} {c} x {d}: give --resize to resize it")
    if min(sizes[1]) < SSIM_WINDOW:
        raise UserError(f"{truth.path} is {truth.width} x {truth.height}: give at least {SSIM_WINDOW} on each side")
    lengths = result.frames, -(-truth.frames // step)
    if frames is None and lengths[0] != lengths[1]:
        each = "" if step == 1 else f" (every {step}. of {truth.frames})"
        raise UserError(
            f"{result.path} has {lengths[0]} frames, {truth.path} {lengths[1]}{each}: compare the first ones with "
            "--frames N; for a result of every second frame (--skip 1) give --truth_step 2"
        )
    if frames is not None and frames > min(lengths):
        most = min(lengths)
        raise UserError(f"--frames is {frames}, but {result.path} or its ground truth has {most}: give at most {most}")
    if abs(result.rate * step / truth.rate - 1) > Fraction(1, 100):
        rates = f"{float(result.rate):g} frames a second, {truth.path} {float(truth.rate):g}"
        every = f", of which every {step}. is taken" if step > 1 else ""
        print(f"note: {result.path} has {rates}{every}: they are compared frame by frame, not by time", flush=True)
    frames = frames or lengths[0]
    notes = (*_notes(result, frames), *_notes(truth, (frames - 1) * step + 1))
    return Pair(result, truth, frames, step, notes)


def _notes(info: VideoInfo, frames: int) -> list[str]:
    """What is unusual about a video's first frames. Raises UserError: fewer than half of them can be decoded."""
    damaged = damaged_frames(info, frames)
    return [*info.notes, *([describe_damage(info.path, damaged)] if damaged else [])]


def compare(pair: Pair, instruments: Instruments) -> dict[str, Any]:
    """All metrics of one pair; None where one is undefined. Frames are streamed.

    PSNR (dB), SSIM, LPIPS: means over the frames. change: mean |frame difference| in levels of 255; change_ratio: the
    result's change over the ground truth's; change_error: mean |difference of the two frame differences|.
    pose_distance: mean distance of the joints found in both, in torso lengths; pose_near: PCK, the share of the ground
    truth's joints that are within PCK_THRESHOLD torso lengths.
    """
    lists: dict[str, list[float]] = {"psnr": [], "ssim": [], "lpips": []}
    changes = FrameDifferences()
    if instruments.fvd:
        instruments.fvd.start_video()
    for result, truth in pair.pictures():
        x, y = to_float(result), to_float(truth)
        lists["psnr"].append(psnr(x, y))
        lists["ssim"].append(ssim(x, y))
        changes.add(x, y)
        if instruments.lpips:
            lists["lpips"].append(instruments.lpips(result, truth))
        if instruments.fvd:
            instruments.fvd.add(result, truth)
    figures = {"result": str(pair.result.path), "truth": str(pair.truth.path), "frames": pair.frames}
    figures |= {name: mean_or_none(values) for name, values in lists.items()}
    figures |= {"change": mean_or_none(changes.result), "true_change": mean_or_none(changes.truth)}
    still = not figures["true_change"]
    figures["change_ratio"] = None if still else figures["change"] / figures["true_change"]
    figures["change_error"] = mean_or_none(changes.error)
    return figures | (_pose_figures(pair, instruments.detector) if instruments.detector else {})


def _pose_figures(pair: Pair, detector: Detector) -> dict[str, float | None]:
    """Joint metrics of the main persons; a separate pass, because tracking looks some frames ahead."""
    found, near = [], []
    results = read_frames(pair.result, count=pair.frames)
    truths = read_frames(pair.truth, pair.step, pair.frames)
    aspect = pair.truth.width / pair.truth.height
    for pose, truth in zip(_poses(results, detector), _poses(truths, detector), strict=True):
        distances = joint_distances(pose, truth, aspect)
        found += distances[np.isfinite(distances)].tolist()
        near += (distances[~np.isnan(distances)] <= PCK_THRESHOLD).tolist()
    return {"pose_distance": mean_or_none(found), "pose_near": mean_or_none(near)}


def _poses(frames: Iterator[np.ndarray], detector: Detector) -> Iterator[Pose | None]:
    for people, person in follow(detector.find(frames)):
        yield None if person is None else to_pose(people.keypoints[person], people.scores[person])
