"""The `requires_cuda` marker (its tests need no PyAV), parallel workers, non-root users, files for test_stage_2.py."""

import gc
import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from media import write_picture, write_video

from musepose.inference.cases import WEIGHT_KEYS


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "requires_cuda: skipped where there is no CUDA device")
    # A background job of a shell ignores Ctrl-C, and so would the programs that the tests interrupt.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if "PYTEST_XDIST_WORKER" in os.environ:
        # For this worker, which has not imported torch yet, and for what it starts: the cores are the workers'.
        os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """For `-n auto`: one worker per core of the CPU affinity; eight take about 16 GB of memory."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, 8)


def pytest_collection_finish() -> None:
    """None of the imported objects is garbage: without them, garbage collection is over ten times as fast."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("requires_cuda"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("there is no CUDA device")


@pytest.fixture(autouse=True)
def fresh_accelerator() -> Iterator[None]:
    """Reset Accelerate's process-wide state before a test."""
    yield
    if "accelerate.state" in sys.modules:
        from accelerate.state import AcceleratorState, GradientState

        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()


NOBODY = 65534


@pytest.fixture
def own_folder() -> Iterator[Path]:
    """A folder of a non-root user. If the tests run as root, the process becomes that user until the test ends."""
    if not hasattr(os, "geteuid"):
        pytest.skip("no users as POSIX has them")
    with tempfile.TemporaryDirectory() as folder:  # tmp_path lies in a folder that only its owner may enter
        if os.geteuid() != 0:
            yield Path(folder)
            return
        try:
            os.chown(folder, NOBODY, NOBODY)
            os.seteuid(NOBODY)
        except OSError:
            pytest.skip("there is no other user")
        try:
            yield Path(folder)
        finally:
            os.seteuid(0)


# Model configs of published sizes, the rest by default.
CONFIGS = {
    "pretrained_base_model_path": '{"block_out_channels": [320, 640, 1280, 1280], "cross_attention_dim": 768}',
    "pretrained_vae_path": json.dumps(
        {
            "block_out_channels": [128, 256, 512, 512],
            "down_block_types": ["DownEncoderBlock2D"] * 4,
            "up_block_types": ["UpDecoderBlock2D"] * 4,
        }
    ),
    "image_encoder_path": '{"projection_dim": 768}',
    "inference_config": '{"unet_additional_kwargs": {}, "noise_scheduler_kwargs": {}}',
}


class Stage2Folder:
    """A working directory for test_stage_2.py: an image, a video of 10 numbered frames, placeholder weight files."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.reference = write_picture(path / "ref.png", "rgb")
        self.pose = write_video(path / "dance.mp4", 10, sound=0.5)
        self.config = {key: f"weights/{key}" for key in WEIGHT_KEYS}
        for key, (_, file) in WEIGHT_KEYS.items():
            target = path / self.config[key] / file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(CONFIGS.get(key, "stands for weights"))
        self.config["test_cases"] = {"ref.png": ["dance.mp4"]}

    def write_config(self, **changes) -> Path:
        """Write config.yaml with some keys changed, or removed if None."""
        config = {key: value for key, value in {**self.config, **changes}.items() if value is not None}
        target = self.path / "config.yaml"
        target.write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML
        return target


@pytest.fixture
def stage_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage2Folder:
    """A Stage2Folder, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    return Stage2Folder(tmp_path)
