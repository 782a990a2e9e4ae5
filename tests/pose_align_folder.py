"""Fixture of pose_align.py's tests: a folder with a picture, a dance video and their keypoints, to run it in."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from dancer import Detector, dance
from media import corners, write_video
from PIL import Image

from musepose.media.video_reader import read_frames
from musepose.pose.keypoint_file import KeypointFile, Keypoints, Source, save_keypoints
from pose_align import main

ROOT = Path(__file__).parents[1]
FRAMES = 8
IMAGE_ASPECT = 60 / 80


class Folder:
    """A folder with a picture, a dance video (numbered frames, a tone), and the keypoints of both."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.image, self.video, self.keypoints = path / "ref.png", path / "dance.mp4", path / "dance.npz"
        Image.fromarray(corners(60, 80)).save(self.image)
        write_video(self.video, FRAMES, width=64, height=48, rate=10, sound=2.0)
        self.aligned = path / "assets/poses/align/img_ref_video_dance.mp4"
        self.demo = path / "assets/poses/align_demo/img_ref_video_dance.mp4"

    def save(self, frames: int = FRAMES, missing: tuple[int, ...] = (), image_score: float = 1, **changes) -> Path:
        """Write a keypoint file for this folder's picture and video."""
        points, scores = dance(1, aspect=IMAGE_ASPECT)
        content = dict(
            image=Source.of(self.image),
            image_keypoints=Keypoints(points, scores * np.float32(image_score)),
            video=Source.of(self.video),
            video_keypoints=Keypoints(*dance(frames, missing, aspect=4 / 3)),
            detect_resolution=512,
        )
        save_keypoints(self.keypoints, KeypointFile(**{**content, **changes}))
        return self.keypoints

    def run(self, *flags, load=None) -> int:
        if load is None:
            load = refuse_to_load
        return main(["--imgfn_refer", str(self.image), "--vidfn", str(self.video), *map(str, flags)], load)

    def detect(self, *flags, detector: Detector | None = None, missing: tuple[int, ...] = ()) -> Detector:
        """Run with synthetic detections and placeholder files for the weights."""
        for flag in ("yolox_config", "dwpose_config", "yolox_ckpt", "dwpose_ckpt"):
            stand_in = self.path / flag
            stand_in.write_text("stands for the real one")
            flags = (*flags, f"--{flag}", stand_in)
        image, (points, scores) = dance(1, aspect=IMAGE_ASPECT), dance(FRAMES, missing, aspect=4 / 3)
        detector = detector or Detector((image[0][0], image[1][0]), *zip(points, scores, strict=True))
        assert self.run(*flags, load=lambda job: detector) == 0
        return detector

    def outputs(self) -> list[str]:
        return sorted(str(p.relative_to(self.path)) for p in (self.path / "assets").rglob("*") if p.is_file())


def refuse_to_load(job):
    raise AssertionError("the detector was loaded")


@pytest.fixture(name="folder")
def pose_align_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.chdir(tmp_path)
    return Folder(tmp_path)


def frames_of(path: Path) -> np.ndarray:
    return np.stack(list(read_frames(path)))


def panels(frame: np.ndarray) -> list[np.ndarray]:
    """The five pictures of a demo frame."""
    ends = np.cumsum([3 / 4, 3 / 4, 3 / 4, 4 / 3, 4 / 3])
    return np.split(frame, (ends[:-1] / ends[-1] * frame.shape[1]).round().astype(int), axis=1)


def run_script(folder: Folder, *flags) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "pose_align.py"), *map(str, flags)]
    return subprocess.run(command, cwd=folder.path, env=environment, capture_output=True, text=True, timeout=600)
