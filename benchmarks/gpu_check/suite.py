"""Part 4, the rest: the tests that need a CUDA device, and the pose stage if the mm packages are installed."""

import re
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.gpu_check.scale import Check
from benchmarks.measure import ROOT, median_times

MM = ("mmengine", "mmcv", "mmdet", "mmpose", "munkres", "pycocotools", "shapely", "terminaltables", "addict", "yapf")
TESTS_TIMEOUT = 240
MARK = "mark.requires_cuda"


def cuda_tests(check: Check) -> None:
    """Run the tests marked requires_cuda. Files without the mark are not imported: they may need other packages."""
    what = "tests marked requires_cuda"
    files = [p for p in sorted((ROOT / "tests").glob("test_*.py")) if MARK in p.read_text(encoding="utf-8")]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "requires_cuda", "-p", "no:cacheprovider", *map(str, files)]
    timeout = max(1.0, min(TESTS_TIMEOUT, check.seconds_left))
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout)
    counts = {word: int(n) for n, word in re.findall(r"(\d+) (passed|failed|skipped|errors?)\b", done.stdout)}
    check.report.add(4, what, done.returncode == 0, **counts)
    for line in re.findall(r"^(?:FAILED|ERROR) .*$", done.stdout, re.M):
        check.report.add(4, line[:300], False)


def pose_stage(check: Check) -> None:
    """Frames per second of YOLOX and DWPose in batches, with YOLOX on every frame and on every fourth."""
    missing = [name for name in MM if find_spec(name) is None]
    if missing:
        check.report.add(4, "pose stage", left_out=f"not installed: {', '.join(missing)}")
        return
    from musepose.pose.box_tracking import find_people
    from musepose.pose.detectors.dwpose.detector import PoseDetector
    from random_models.mm_weights import full_files, tiny_files

    with Image.open(ROOT / "assets" / "images" / "ref.png", formats=["PNG"]) as picture:
        frame = np.asarray(picture.convert("RGB").resize((512, 512)))
    frames = [np.roll(frame, shift, axis=1) for shift in range(check.scale.pose_frames)]
    with tempfile.TemporaryDirectory() as folder:
        files = (tiny_files if check.scale.tiny else full_files)(Path(folder), people=-6.0)
        detector = PoseDetector(**files, device=str(check.device))
    variants = {f"every {n}": lambda n=n: list(find_people(detector, frames, n)) for n in (1, 4)}
    for variant, seconds in median_times(variants, 1, 1, check.synchronize).items():
        check.report.add(4, f"pose stage, YOLOX on {variant}", frames_per_s=len(frames) / seconds)
