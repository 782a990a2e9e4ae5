"""Where BlazePose's networks lie for the tests, and the mark of tests that need them."""

import importlib.util
from pathlib import Path

import pytest

from musepose.pose.detectors.blazepose.models import MODEL_FILES

WEIGHTS = Path(__file__).parents[1] / "pretrained_weights/blazepose"


def _lacking() -> str | None:
    if importlib.util.find_spec("ai_edge_litert") is None:
        return "ai-edge-litert is not installed"
    missing = [file.target for file in MODEL_FILES if not (WEIGHTS / file.file).is_file()]
    return f"{missing[0]} is missing: python download_weights.py --only blazepose" if missing else None


needs_blazepose = pytest.mark.skipif(_lacking() is not None, reason=_lacking() or "nothing lacks")
