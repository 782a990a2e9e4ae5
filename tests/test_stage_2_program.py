"""test_stage_2.py as a whole program, on tiny models in the published layout."""

import json
import os
import re
import shutil
import subprocess
import sys
from datetime import datetime
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from media import AAC_BLOCKS, read_sound, truncate, write_picture, write_video
from PIL import Image

import musepose.utils.device
import test_stage_2
from musepose.cli.test_stage_2 import parse
from musepose.inference import runner as render
from musepose.inference.cases import Job, Plan, make_plan
from musepose.inference.load import load_pipeline, load_within_memory
from musepose.inference.options import merge_settings
from musepose.media.video_reader import VideoInfo, probe, read_frames
from musepose.media.video_writer import VideoWriter
from musepose.memory.plan import HIGH, LOW
from musepose.models.unet import UNet
from musepose.models.weights import WeightPaths
from musepose.pipelines.pose2video import Pose2VideoPipeline
from musepose.utils.device import choose_device, choose_dtype
from musepose.utils.errors import UserError
from random_models.tiny_weights import write_published_layout

ROOT = Path(__file__).resolve().parent.parent
SMALL = ["-W", "32", "-H", "40", "-S", "4", "-O", "1", "--steps", "2", "--device", "cpu"]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    write_published_layout(folder)
    return folder


@pytest.fixture
def tiny(stage_2, published):
    """The working directory, with the tiny weights in the config instead of placeholders."""
    names = {"pretrained_base_model_path": "sd-image-variations-diffusers", "pretrained_vae_path": "sd-vae-ft-mse"}
    names |= {"image_encoder_path": "image_encoder"}
    names |= {
        f"{name}_path": f"MusePose/{name}.pth"
        for name in ("denoising_unet", "reference_unet", "pose_guider", "motion_module")
    }
    stage_2.config |= {key: str(published / name) for key, name in names.items()}
    stage_2.config |= {"inference_config": str(ROOT / "configs" / "inference_v2.yaml")}
    return stage_2


WITHOUT_DETECTORS = """
import sys, runpy
for name in ("mmcv", "mmdet", "mmengine", "mmpose", "pycocotools", "xtcocotools", "torchvision"):
    sys.modules[name] = None  # importing it fails
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_published_command(tiny):
    """Portrait, an odd side, broadcast rate, sound, a transparent picture, a name with spaces, fp16 on a CPU.

    Without the detectors' packages and torchvision.
    """
    write_picture(Path("my ref.png"), "rgba", 50, 70)
    write_video(tiny.pose, 11, 37, 64, Fraction(30000, 1001), pix_fmt="yuv444p", sound=0.6)
    config = tiny.write_config(weight_dtype="fp16", test_cases={"my ref.png": ["dance.mp4"]})
    program = [sys.executable, "-c", WITHOUT_DETECTORS, str(ROOT / "test_stage_2.py")]
    paths = {"PYTHONPATH": str(ROOT)}  # as of a script, whose folder Python puts first
    done = subprocess.run(
        [*program, "--config", str(config), *SMALL], capture_output=True, text=True, timeout=600, env=os.environ | paths
    )
    assert done.returncode == 0, done.stderr
    assert "cpu does not support float16: using float32" in done.stderr
    (path,) = Path("output").glob("video-*/*-3.5-pose_guider-motion_module/my ref_dance_3.5_2_1.mp4")
    result = probe(path)
    assert (result.width, result.height, result.frames, str(result.rate)) == (36, 64, 5, "15000/1001")
    assert read_sound(path)[2] == pytest.approx(5 * 1001 / 15000, abs=AAC_BLOCKS)
    assert probe(path.with_name("my ref_dance_3.5_2_1_cmp.mp4")).frames == 5
    assert np.stack(list(read_frames(path))).std() > 10  # a picture, not one colour


def test_order_of_cases_changes_nothing(tiny, monkeypatch):
    """By one pipeline. Compared before encoding: x264 does not always write the same bytes for so small a video."""
    written, load = {}, cache(lambda _: load_pipeline(planned("--config", "config.yaml", *SMALL)))

    class RecordingWriter(VideoWriter):
        def write(self, frame):
            written.setdefault(self.path, []).append(frame)
            super().write(frame)

    monkeypatch.setattr(render, "VideoWriter", RecordingWriter)
    shutil.copy("dance.mp4", "other.mp4")
    for folder, poses in {"one": ["dance.mp4", "other.mp4"], "two": ["other.mp4"]}.items():
        config = tiny.write_config(test_cases={"ref.png": poses})
        assert test_stage_2.main(["--config", str(config), "--output", folder, *SMALL], lambda plan: load(None)) == 0
    first, second = (written[Path(folder, "ref_other_3.5_2_1.mp4")] for folder in ("one", "two"))
    assert len(first) == 5
    np.testing.assert_array_equal(np.stack(first), np.stack(second))


@pytest.mark.parametrize("key", ["motion_module_path", "pose_guider_path"])
def test_truncated_weights(tiny, key):
    shutil.copy(tiny.config[key], "cut.pth")
    truncate(Path("cut.pth"))
    config = tiny.write_config(**{key: "cut.pth"})
    with pytest.raises(UserError, match="cut.pth is truncated.*get a whole copy"):
        test_stage_2.main(["--config", str(config), *SMALL])
    assert not Path("output").exists()


def test_weights_of_another_architecture(tiny):
    base = Path("base/unet")
    shutil.copytree(Path(tiny.config["pretrained_base_model_path"]) / "unet", base)
    unet = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**unet, "block_out_channels": [64, 64, 96, 128]}))
    with pytest.raises(UserError, match=r"reference_unet.pth: tensor .* is expected"):
        test_stage_2.main(["--config", str(tiny.write_config(pretrained_base_model_path="base")), *SMALL])


@pytest.mark.parametrize("name", ["cuda:77", "meta", "abacus"])
def test_missing_device(tiny, name):
    with pytest.raises(UserError, match=f"--device {name} is not available .*try --device"):
        test_stage_2.main(["--config", str(tiny.write_config()), *SMALL, "--device", name])


def test_models_larger_than_the_memory(tiny, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")

    monkeypatch.setattr(Pose2VideoPipeline, "from_published", full)
    with pytest.raises(UserError, match="the models do not fit into the memory of cpu: take"):
        test_stage_2.main(["--config", str(tiny.write_config()), *SMALL])


def test_default_device_is_the_best_one_there():
    mps = torch.backends.mps.is_available()
    assert choose_device(None).type == ("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")


def test_dtype_fit_for_a_cpu(capsys):
    cpu = torch.device("cpu")
    assert [choose_dtype(name, cpu) for name in ("float32", "bfloat16")] == [torch.float32, torch.bfloat16]
    assert capsys.readouterr().err == ""
    assert choose_dtype("float16", cpu) == torch.float32
    assert capsys.readouterr().err == "cpu does not support float16: using float32\n"


@pytest.mark.parametrize(
    ("device", "dtype"), [("cpu", "float32"), pytest.param("cuda", "float16", marks=pytest.mark.requires_cuda)]
)
def test_default_precision_of_a_device(published, device, dtype):
    """The whole program without reading and writing files, which needs PyAV."""
    flags = {"width": 32, "height": 40, "context_frames": 4, "context_overlap": 1, "steps": 2, "device": device}
    paths = WeightPaths.published(published)
    pose = VideoInfo(Path("dance.mp4"), 64, 48, 4, Fraction(30), False)
    job = Job(Path("ref.png"), pose, 4, Fraction(30), None, Path("out.mp4"), (64, 64))
    plan = Plan(merge_settings(flags, {}, Path("none.yaml")), vars(paths), (job,))
    pipeline = load_pipeline(plan)
    assert (pipeline.device.type, pipeline.dtype) == (device, getattr(torch, dtype))
    noise = np.random.default_rng(0).integers(0, 255, (4, 48, 64, 3), np.uint8)
    sizes = {"width": 32, "height": 40, "num_frames": 4, "num_inference_steps": 2, "context_frames": 4}
    frames = np.stack(list(pipeline.stream(Image.fromarray(noise[0]), noise, **sizes, context_overlap=1)))
    assert frames.shape == (4, 40, 32, 3)
    assert frames.std() > 10


def test_compile_without_a_compiler_is_one_line(tiny, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("no C++ compiler\nmore of it")

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(UserError, match=r"--compile does not work on cpu \(no C\+\+ compiler\): leave it out"):
        test_stage_2.main(["--config", str(tiny.write_config()), *SMALL, "--compile"])


def test_compile_reaches_the_unet(tiny, monkeypatch):
    called = []
    monkeypatch.setattr(musepose.utils.device, "check_compiler", called.append)
    monkeypatch.setattr(UNet, "compile_layers", lambda unet: called.append(unet.config.motion_module is not None))
    assert test_stage_2.main(["--config", str(tiny.write_config()), "--output", "out", *SMALL, "--compile"]) == 0
    assert called == [torch.device("cpu"), True]


@pytest.mark.parametrize("flags", [["-S", "129", "-O", "1"], ["-S", "30", "-O", "1"]])
def test_more_frames_than_the_motion_modules_know(tiny, flags):
    """First by the settings, then by the inference config, before a model is loaded or its memory estimated."""
    text = (ROOT / "configs" / "inference_v2.yaml").read_text()
    Path("inference.yaml").write_text(re.sub(r"(temporal_position_encoding_max_len: *)\d+", r"\g<1>24", text))
    config = str(tiny.write_config(inference_config="inference.yaml"))
    with pytest.raises(UserError, match="give 1 to 128|know 24 positions: change -W, -H, -S"):
        test_stage_2.main(["--config", config, *SMALL, *flags])


def test_models_that_fit_only_one_by_one(tiny, monkeypatch, capsys):
    load, plans = Pose2VideoPipeline.from_published, []

    def scarce(paths, device, dtype, memory, *rest):
        plans.append(memory.name)
        if memory.name != "low":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")
        return load(paths, device, dtype, memory, *rest)

    monkeypatch.setattr(Pose2VideoPipeline, "from_published", scarce)
    assert test_stage_2.main(["--config", str(tiny.write_config()), "--output", "out", *SMALL]) == 0
    assert plans == ["high", "low"]
    assert "do not fit into the memory of cpu: trying with --vram low" in capsys.readouterr().err


@pytest.mark.parametrize("scheduler", ["dpm++", "unipc", "euler"])
def test_other_schedulers_by_flag_and_by_yaml(tiny, scheduler):
    """The name of the result tells; ddim's is the published one."""
    flags = ["--output", "out", *SMALL]
    by_flag = planned("--config", str(tiny.write_config()), "--scheduler", scheduler, *flags)
    assert by_flag == planned("--config", str(tiny.write_config(scheduler=scheduler)), *flags)
    assert test_stage_2.main(["--config", "config.yaml", *flags]) == 0
    assert np.stack(list(read_frames(f"out/ref_dance_3.5_2_1_{scheduler}.mp4"))).std() > 10


def planned(*arguments: str) -> Plan:
    return make_plan(*parse(arguments), datetime(2024, 1, 1))


def test_models_that_never_fit_are_one_error(capsys):
    """The error names the device in full, and nothing is tried after the last plan."""

    def scarce(memory):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")

    message = "the models do not fit into the memory of cuda:1: take --dtype fp16 or another --device"
    with pytest.raises(UserError, match=message):
        load_within_memory(scarce, HIGH, torch.device("cuda:1"))
    assert capsys.readouterr().err.splitlines() == [
        "the models do not fit into the memory of cuda:1: trying with --vram low"
    ]
    with pytest.raises(UserError, match=message):
        load_within_memory(scarce, LOW, torch.device("cuda:1"))
    assert not capsys.readouterr().err
