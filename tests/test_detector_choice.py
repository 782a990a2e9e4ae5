"""--detector: which one runs, what it needs, what keypoint files say of it."""

import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from blazepose_weights import WEIGHTS, needs_blazepose

from musepose.cli import evaluate, pose_align
from musepose.evaluation import run
from musepose.media.video_reader import probe, read_frames
from musepose.media.video_writer import VideoWriter
from musepose.pose.detectors.blazepose.models import MODEL_FILES
from musepose.pose.detectors.choice import check_detector_files, load_chosen
from musepose.pose.keypoint_file import load_keypoints, save_keypoints
from musepose.pose.options import DetectorFiles
from musepose.training.data.clip_keypoints import load_clip_keypoints
from musepose.training.data.options import Settings
from musepose.training.data.preparation import load_detector, make_dataset, plan
from musepose.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
ASSETS = ROOT / "assets"
FRAMES = 6
MM = ("mmcv", "mmdet", "mmpose", "mmengine", "torch")
WITHOUT_MM = f"import sys; sys.modules.update(dict.fromkeys({MM}))\n"  # importing one of them raises ImportError
INPUTS = ("--imgfn_refer", ASSETS / "images/ref.png", "--vidfn", ASSETS / "videos/dance.mp4", "--max_frame", FRAMES)


def flags(folder: Path, *more) -> list[str]:
    outputs = ("--outfn_align_pose_video", folder / "aligned.mp4", "--outfn", folder / "demo.mp4")
    return [str(part) for part in (*INPUTS, *outputs, *more)]


def refused(folder: Path, *more) -> str:
    """The one line that a run ends with before any detector is loaded."""
    with pytest.raises(UserError) as error:
        pose_align.main(flags(folder, *more), load=lambda job: pytest.fail("a detector was loaded"))
    assert "\n" not in str(error.value) and not (folder / "aligned.mp4").exists()
    return str(error.value)


@pytest.fixture(scope="module")
def aligned(tmp_path_factory) -> Path:
    """The files of a run with BlazePose in a Python that has neither mm packages nor torch."""
    folder = tmp_path_factory.mktemp("aligned")
    arguments = flags(folder, "--detector", "blazepose", "--save_keypoints", folder / "found.npz")
    code = f"{WITHOUT_MM}from musepose.cli import entry, pose_align\nentry.run_script(pose_align.main)"
    process = subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    return folder


@needs_blazepose
def test_the_whole_chain_without_mm_packages(aligned):
    assert probe(aligned / "aligned.mp4").frames == probe(aligned / "demo.mp4").frames == FRAMES
    found = load_keypoints(aligned / "found.npz")
    assert found.detector == "blazepose"
    for part, rows in ((found.image_keypoints, 1), (found.video_keypoints, FRAMES)):
        assert (part.scores[:, 5:17] > 0.3).all()
        assert part.depth.shape == (rows, 133) and part.metres.shape == (rows, 23, 3)
        assert part.depth.any() and part.metres.any()


@needs_blazepose
def test_the_keypoint_file_decides_for_the_picture_too(aligned, tmp_path):
    keypoints = aligned / "found.npz"
    assert pose_align.main(flags(tmp_path, "--keypoints", keypoints), load=lambda job: pytest.fail("loaded")) == 0
    another = tmp_path / "another.png"
    another.write_bytes((ASSETS / "images/ref.png").read_bytes() + b"more")  # the same picture with another hash
    loaded = []

    def load(job):
        loaded.append(job.detector)
        return load_chosen(job.settings, "cpu", name=job.detector)

    arguments = flags(tmp_path, "--keypoints", keypoints, "--imgfn_refer", another)
    assert pose_align.main([*arguments, "--blazepose_dir", str(WEIGHTS)], load=load) == 0
    assert loaded == ["blazepose"]


@needs_blazepose
def test_another_detector_than_the_keypoint_files_is_refused(aligned, tmp_path):
    told = refused(tmp_path, "--keypoints", aligned / "found.npz", "--detector", "dwpose")
    assert told.startswith(
        f"{aligned / 'found.npz'} was made by --detector blazepose, not dwpose: give the same or none"
    )


@needs_blazepose
def test_the_detectors_resolution_is_dwposes(aligned, tmp_path):
    more = ("--keypoints", aligned / "found.npz", "--detect_resolution", 256)
    assert pose_align.main(flags(tmp_path, *more), load=lambda job: pytest.fail("loaded")) == 0


def test_files_that_do_not_say_are_dwposes(tmp_path):
    found = load_keypoints(ASSETS / "keypoints/img_ref_video_dance.npz")
    assert found.detector == "dwpose" and found.video_keypoints.depth is None
    told = refused(tmp_path, "--keypoints", ASSETS / "keypoints/img_ref_video_dance.npz", "--detector", "blazepose")
    assert "was made by --detector dwpose, not blazepose" in told


def test_a_file_of_an_unknown_detector_is_refused(tmp_path):
    found = load_keypoints(ASSETS / "keypoints/img_ref_video_dance.npz")
    save_keypoints(tmp_path / "found.npz", replace(found, detector="openpose"))
    told = refused(tmp_path, "--keypoints", tmp_path / "found.npz")
    assert told.endswith("was made by another detector, openpose: leave --keypoints out to detect anew")


@pytest.mark.parametrize("name", ["depth", "metres"])
def test_damaged_depths_are_told(tmp_path, name):
    found = load_keypoints(ASSETS / "keypoints/img_ref_video_dance.npz")
    video = replace(found.video_keypoints, **{name: np.zeros((3, 4), np.float32)})
    save_keypoints(tmp_path / "found.npz", replace(found, video_keypoints=video))
    assert f"video {name} of the shape (3, 4)" in refused(tmp_path, "--keypoints", tmp_path / "found.npz")


def test_whose_keypoints_a_file_holds_is_decided(tmp_path):
    told = refused(tmp_path, "--keypoints", ASSETS / "keypoints/img_ref_video_dance.npz", "--person", "left")
    assert "holds one person only, so that --person has no choice" in told


def test_missing_weights_of_dwpose_name_both_remedies(tmp_path):
    told = refused(tmp_path, "--yolox_ckpt", tmp_path / "gone.pth")
    assert told.startswith(f"{tmp_path / 'gone.pth'} is missing: give another with --yolox_ckpt")
    assert told.endswith("or take --detector blazepose")
    published = tmp_path / "weights/dwpose/yolox_l_8x8_300e_coco.pth"
    told = refused(tmp_path, "--yolox_ckpt", published)
    assert told.startswith(f"{published} is missing: run `python download_weights.py --dir {tmp_path / 'weights'}`, or")


def test_missing_networks_of_blazepose(tmp_path):
    told = refused(tmp_path, "--detector", "blazepose", "--blazepose_dir", tmp_path)
    assert told.startswith(f"{tmp_path / MODEL_FILES[0].file} is missing: run `python download_weights.py --only blaze")


def test_litert_is_missing(tmp_path, monkeypatch):
    for file in MODEL_FILES:
        (tmp_path / file.file).write_bytes(b"stands for a network")
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    with pytest.raises(UserError, match="needs LiteRT, which is not installed: pip install ai-edge-litert"):
        check_detector_files(DetectorFiles(detector="blazepose", blazepose_dir=tmp_path))


def test_people_are_counted_from_one(tmp_path):
    assert "--person" in refused(tmp_path, "--person", "0") and "--person" in refused(tmp_path, "--person", "middle")


def test_unknown_detector(tmp_path):
    assert "--detector is openpose" in refused(tmp_path, "--detector", "openpose")


@needs_blazepose
def test_a_data_set_by_blazepose(tmp_path):
    (tmp_path / "videos").mkdir()
    write_dance(tmp_path / "videos/dance.mp4")
    settings = Settings(
        video_dir=tmp_path / "videos", output=tmp_path / "set", detector="blazepose", blazepose_dir=WEIGHTS
    )
    assert make_dataset(settings, plan(settings), load_detector) == 0
    (keypoints,) = (tmp_path / "set").rglob("*.npz")
    found = load_clip_keypoints(keypoints)
    assert found.detector == "blazepose" and found.keypoints.metres.shape[1:] == (23, 3)
    again = plan(replace(settings, detector="dwpose", **dwpose_files(tmp_path)))
    assert again[0].detection != plan(settings)[0].detection  # so that a change of the detector detects anew


@needs_blazepose
def test_results_are_judged_by_blazepose(tmp_path, monkeypatch):
    written = {}
    monkeypatch.setattr(run, "save_json", lambda path, content: written.update(content))
    video = write_dance(tmp_path / "dance.mp4")
    mirrored = write_dance(tmp_path / "mirrored.mp4", mirrored=True)
    pairs = ["--pairs", str(video), str(video), str(mirrored), str(video)]
    chosen = ["--poses", "--detector", "blazepose", "--blazepose_dir", str(WEIGHTS), "--device", "cpu"]
    assert evaluate.main([*pairs, *chosen, "--json", str(tmp_path / "figures.json")]) == 0
    same, other = (row["pose_distance"] for row in written["pairs"])
    assert same == 0 and other > 0.1


def write_dance(path: Path, mirrored: bool = False) -> Path:
    """The beginning of the example dance."""
    with VideoWriter(path, 576, 576, Fraction(30)) as writer:
        for frame in read_frames(ASSETS / "videos/dance.mp4", count=FRAMES):
            writer.write(np.ascontiguousarray(frame[:, ::-1]) if mirrored else frame)
    return path


def dwpose_files(folder: Path) -> dict[str, Path]:
    names = ("yolox_config", "yolox_ckpt", "dwpose_config", "dwpose_ckpt")
    for name in names:
        (folder / name).write_bytes(b"stands for a file")
    return {name: folder / name for name in names}
