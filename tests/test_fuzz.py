"""Mutants of every kind of input file: each is read, or refused with one line, within limits of time and memory."""

import json
from collections.abc import Callable
from datetime import datetime
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path

import numpy as np
import pytest
import torch
from fuzz import byte_mutants, read_all, tree_mutants
from media import corners, write_video
from PIL import Image
from safetensors.torch import save_file
from tiny_states import TinyTraining

from musepose.inference.cases import make_plan
from musepose.media.image import read_image
from musepose.media.video_reader import probe, read_frames
from musepose.models.state_dicts import read_checkpoint
from musepose.pose.keypoint_file import KeypointFile, Keypoints, Source, load_keypoints, save_keypoints
from musepose.training.data.manifest import Clip, check_clip_files, load_manifest, save_manifest
from musepose.training.state_files import CHECKSUMS

if not Path("/proc/self/statm").exists():
    pytest.skip("needs /proc for the memory limit", allow_module_level=True)


def pictures(folder: Path) -> list[Path]:
    picture = Image.fromarray(corners(40, 32))
    made = {
        "rgb.png": (picture, {}),
        "palette.png": (picture.quantize(7), {}),
        "deep.png": (Image.fromarray((np.arange(640).reshape(20, 32) * 100).astype(np.uint16)), {}),
        "alpha.webp": (picture.convert("RGBA"), {"lossless": True}),
        "photo.jpg": (picture, {"quality": 80, "icc_profile": Image.new("RGB", (1, 1)).info.get("icc_profile")}),
        "progressive.jpg": (picture.convert("CMYK"), {"progressive": True}),
        "plain.bmp": (picture, {}),
    }
    for name, (image, options) in made.items():
        image.save(folder / name, **options)
    return [folder / name for name in made]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp"])
def test_pictures(tmp_path, suffix):
    seeds = [path for path in pictures(tmp_path) if path.suffix == suffix]
    valid = read_all(byte_mutants(seeds, 300), tmp_path / f"mutant{suffix}", read_image)
    assert 0 < valid < 300


def read_video(path: Path) -> None:
    info = probe(path)
    assert info.frames > 0 and Fraction(1, 1000) <= info.rate <= 1000
    for frame in islice(read_frames(path), 40):
        assert frame.shape == (info.height, info.width, 3)


@pytest.mark.parametrize("container", ["mp4", "matroska", "mpegts", "avi"])
def test_videos(tmp_path, container):
    seed = write_video(tmp_path / "seed", 12, container=container, sound=0 if container == "avi" else 0.3)
    valid = read_all(byte_mutants([seed], 80), tmp_path / "mutant.mp4", read_video)
    assert 0 < valid < 80


def keypoints(folder: Path) -> list[Path]:
    state = np.random.default_rng(0)

    def some(count: int) -> Keypoints:
        points, scores = state.uniform(size=(count, 133, 2)), state.uniform(size=(count, 133))
        return Keypoints(points.astype(np.float32), scores.astype(np.float32))

    content = KeypointFile(Source("a.png", "0" * 64), some(1), Source("a.mp4", "1" * 64), some(3), 512)
    save_keypoints(folder / "seed.npz", content)
    return [folder / "seed.npz"]


def test_keypoint_files(tmp_path):
    valid = read_all(byte_mutants(keypoints(tmp_path), 600), tmp_path / "mutant.npz", load_keypoints)
    assert 0 < valid < 600


def checkpoints(folder: Path) -> dict[str, Callable[[Path], None]]:
    tensors = {f"block.{index}.weight": torch.arange(12.0).reshape(3, 4) for index in range(4)}
    return {
        "mutant.safetensors": lambda path: save_file(tensors, path),
        "mutant.pth": lambda path: torch.save({"state_dict": tensors}, path),
        "mutant.bin": lambda path: torch.save(tensors, path, _use_new_zipfile_serialization=False),
    }


@pytest.mark.parametrize("name", ["mutant.safetensors", "mutant.pth", "mutant.bin"])
def test_checkpoints(tmp_path, name):
    seed = tmp_path / f"seed-{name}"
    checkpoints(tmp_path)[name](seed)
    valid = read_all(byte_mutants([seed], 500), tmp_path / name, read_checkpoint)
    assert 0 < valid < 500


def test_test_cases(stage_2):
    """Bytes and values of the YAML of test_stage_2.py."""
    settings = {"width": 64, "height": 64, "steps": 2, "length": 5, "fps": "30000/1001", "vram": "low", "seed": 3}
    seed = stage_2.write_config(**settings)
    tree = json.loads(seed.read_text())
    target = stage_2.path / "mutant.yaml"
    mutants = chain(tree_mutants(tree, 200), byte_mutants([seed], 100))
    valid = read_all(mutants, target, lambda path: make_plan(path, {}, datetime(2024, 1, 1)))
    assert 0 < valid < 300


def test_manifests(tmp_path):
    video = write_video(tmp_path / "a.mp4", 5)
    clips = [Clip(video, video, None, 5, Fraction(30), 64, 48)] * 2
    save_manifest(tmp_path / "meta.json", clips)
    tree = json.loads((tmp_path / "meta.json").read_text())
    mutants = chain(tree_mutants(tree, 200), byte_mutants([tmp_path / "meta.json"], 100))
    valid = read_all(mutants, tmp_path / "mutant.json", lambda path: check_clip_files(load_manifest([path])))
    assert 0 < valid < 300


@pytest.mark.parametrize("with_checksums", [True, False], ids=["checksums", "older"])
def test_training_states(tmp_path, with_checksums):
    """Any file of a state. Without checksums, as older versions wrote states, some damage cannot be noticed."""
    training = TinyTraining(tmp_path).train(1)
    state = tmp_path / "step-0000001"
    if not with_checksums:
        (state / CHECKSUMS).unlink()
    valid = 0
    for file in sorted(state.iterdir()):
        whole = file.read_bytes()
        valid += read_all(byte_mutants([file], 60), file, lambda _: training.states.load(str(state)))
        file.write_bytes(whole)
    files = len(list(state.iterdir()))
    assert valid < (files if with_checksums else 60 * files)  # a mutant may equal the file
    assert training.states.load(str(state)) == 1
