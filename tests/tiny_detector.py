"""Fixtures of the detector's tests: files of tiny random mm models, a detector made of them, pictures to detect in."""

import numpy as np
import pytest

from musepose.pose.detectors.dwpose.detector import PoseDetector
from random_models import mm_weights


@pytest.fixture(scope="module", name="files")
def tiny_mm_files(tmp_path_factory):
    """PoseDetector's arguments: two configs and two checkpoints."""
    return mm_weights.tiny_files(tmp_path_factory.mktemp("mm"))


@pytest.fixture(scope="module", name="detector")
def tiny_detector(files):
    return PoseDetector(**files)


def picture(height=400, width=300, seed=0):
    """Bright and dark rectangles, in which the random networks see some persons."""
    generator = np.random.default_rng(seed)
    rgb = np.full((height, width, 3), 255, np.uint8)
    for _ in range(12):
        y, x = generator.integers(0, height), generator.integers(0, width)
        rgb[y : y + generator.integers(20, 200), x : x + generator.integers(20, 200)] = generator.integers(0, 256, 3)
    return rgb
