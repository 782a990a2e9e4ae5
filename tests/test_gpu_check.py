"""benchmarks.gpu_check on a CPU: every section runs and detects faults, and a failing section does not stop others."""

import itertools
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from diffusers import DDIMScheduler
from tolerance import near, rounding

from benchmarks.gpu_check import DEVICE_LOST, SECTIONS, Section, accuracy, layers, training, video, worker
from benchmarks.gpu_check.__main__ import choose, main, supervise
from benchmarks.gpu_check.report import Report
from benchmarks.gpu_check.scale import NOISE, SCALES, Check, DeviceLost, tiny
from musepose.memory.plan import BY_NAME
from musepose.models.unet import UNet
from musepose.pipelines.pose2video import Pose2VideoPipeline
from musepose.utils.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
# Packages that the bare GPU machine lacks, and hypothesis.
ABSENT = ["av", "mmengine", "mmcv", "mmdet", "mmpose", "munkres", "pycocotools", "shapely", "terminaltables", "addict"]
ABSENT += ["yapf", "termcolor", "hypothesis", "importlib_metadata"]


@pytest.fixture
def check(tmp_path) -> Check:
    return Check(Report(tmp_path / "report.json"), SCALES["tiny"], torch.device("cpu"), time.time() + 3600)


def lines_by_name(check: Check) -> dict[str, dict]:
    return {line["what"]: line for line in check.report.lines}


def test_golden_cases_pass_and_every_stage_is_there(check):
    accuracy.golden(check)
    assert [line["ok"] for line in check.report.lines] == [True] * 2 * len(accuracy.BOUNDS)


@pytest.mark.parametrize("name", ["vae", "denoising_unet"])
def test_a_model_rounded_as_tf32_rounds_is_out_of_bounds(name):
    """Weights with ten bits of mantissa: half of TF32's rounding of a product."""
    models = tiny(torch.float32, "cpu")
    for parameter in models[name].parameters():
        parameter.data = parameter.data.half().float()
    pipeline = Pose2VideoPipeline(**models, scheduler=DDIMScheduler(**NOISE))
    assert any(error > accuracy.BOUNDS[stage] for stage, error in accuracy.stage_errors(pipeline, "pipeline_cfg"))


def test_the_initial_noise_equals_the_cpus(check):
    accuracy.start(check)
    assert [line["off_by"] for line in check.report.lines] == [0.0] * 3


def test_half_precision_is_within_bounds(check):
    accuracy.halves(check)
    near = check.report.lines[:2]
    assert [line["ok"] for line in check.report.lines] == [True] * 4
    assert near[0]["psnr_dB"] > near[1]["psnr_dB"] + 6  # bfloat16 has three bits less


def test_other_initial_noise_is_out_of_bounds(check, monkeypatch):
    same_start, seeds = accuracy.same_start, itertools.count()

    def other_start(*arguments) -> dict:
        shape = same_start(*arguments)["latents"].shape
        return {"latents": torch.randn(shape, generator=torch.Generator().manual_seed(next(seeds)))}

    monkeypatch.setattr(accuracy, "same_start", other_start)
    accuracy.halves(replace(check, scale=replace(check.scale, near=(32, 1, 1))))
    assert [line["ok"] for line in check.report.lines[:2]] == [False, False]


def test_psnr():
    assert accuracy.psnr(torch.full((4,), 0.1)) == near(20, rounding(1, 20 / 2.3))  # of 20 · log10


def test_videos_are_timed_and_memory_is_compared_with_the_estimate(check, monkeypatch):
    monkeypatch.setattr(Check, "peak", lambda self: 1.0)
    monkeypatch.setattr(video, "matrix_rate", lambda *_: 8.0)  # TFLOP/s
    video.videos(replace(check, scale=replace(check.scale, sides=(40,))))
    lines = lines_by_name(check)
    whole = lines["2 frames of 40 x 40, 3 steps, plan low"]
    parts = sum(whole[f"{part}_s"] for part in ("before", "denoising", "decoding"))
    assert parts == near(whole["whole_s"], rounding(10, 1e6, torch.float64))  # clocks count seconds since a start
    tflop = 3 * video.step_tflop(check, 40)
    assert tflop > 0 and whole["matrix_rate_in_denoising"] == near(tflop / whole["denoising_s"] / 8)
    memory = lines["2 frames of 40 x 40, 3 steps, plan low, memory of the decoding"]
    assert memory["off_by"] == near(1 / memory["estimated_GiB"] - 1)
    assert memory["ok"] is False  # a GiB is far from what so small a model takes


def test_a_failing_video_does_not_stop_the_next_one(check, monkeypatch):
    def short_of_memory(check, pipeline, plan, side):
        if side == 32:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB")
        return {"whole": 1.0, "before": 0.0, "denoising": 1.0, "decoding": 0.0}, {}

    monkeypatch.setattr(video, "timed_video", short_of_memory)
    monkeypatch.setattr(video, "peak_bytes", lambda *_: {})  # counted on the meta device, in seconds
    monkeypatch.setattr(video, "step_tflop", lambda *_: 1.0)
    video.videos(check)
    lines = lines_by_name(check)
    assert "out of memory" in lines["2 frames of 32 x 32, 3 steps, plan high"]["error"]
    assert lines["2 frames of 40 x 40, 3 steps, plan high"]["whole_s"] == 1.0


def test_a_video_with_a_smaller_plan_is_an_error(check, monkeypatch):
    """Out of memory, the pipeline continues with a smaller plan, and the time would be that plan's."""
    forward, plan, attempts = UNet.forward, BY_NAME["high"], []

    def fail_once(self, *arguments, **options):
        attempts.append(1)
        if len(attempts) == 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB")
        return forward(self, *arguments, **options)

    monkeypatch.setattr(UNet, "forward", fail_once)
    with pytest.raises(RuntimeError, match="continued with the plan sequential"):
        video.timed_video(check, check.pipeline(torch.float32), plan.for_device(check.device), 32)


def test_the_profile_has_ten_rows_by_time(check):
    layers.profiled(check)
    times = [line["ms"] for line in check.report.lines if line["what"].startswith("operation")]
    assert len(times) == 10
    assert times == sorted(times, reverse=True)


def test_variants_are_timed_and_failing_ones_are_reported(check, monkeypatch):
    assert all(hasattr(torch.nn.attention.SDPBackend, name) for name in layers.BACKENDS)
    # Fewer: torch takes half a second to describe each failure.
    monkeypatch.setattr(layers, "BACKENDS", ("CUDNN_ATTENTION", "MATH"))
    monkeypatch.setattr(layers, "ATTENTION", {size: layers.ATTENTION[size] for size in (40, 160)})
    layers.memory_formats(check)
    layers.attention(check)
    lines = lines_by_name(check)
    assert lines["a guided step, channels_last"]["ms"] > 0
    assert lines["attention, heads of 40, 64 x 128, math"]["ms"] > 0
    assert "left_out" in lines["attention, heads of 160, 4 x 8, cudnn_attention"]


def test_padded_heads_give_the_same():
    query, key, value = (torch.randn(1, 2, length, 40) for length in (5, 7, 7))
    plain = torch.nn.functional.scaled_dot_product_attention(query, key, value)
    # Sums of 40 and of 7 products, an exponential between them; values are below 5.
    assert (layers.padded(query, key, value) - plain).abs().max() < rounding(40 + 7 + 10, 5)


def test_training_steps_of_both_stages(check, monkeypatch):
    monkeypatch.setattr(training, "STEPS", 1)
    AcceleratorState._reset_state(reset_partial_state=True)  # of another test's training
    GradientState._reset_state()
    training.training_steps(check)
    assert [line["ok"] for line in check.report.lines] == [True] * 3
    assert [line["what"].split(",")[0] for line in check.report.lines] == [
        "a step of stage_2", "a step of stage_1", "a step of stage_1"
    ]  # fmt: skip


def test_parts_and_sections_by_name():
    assert choose(None) == list(SECTIONS)
    assert choose("1") == ["golden", "start", "halves"]
    assert choose("norms, 2") == ["videos", "norms"]
    with pytest.raises(UserError, match="--only 9: choose from 1, 2, 3, 4, golden"):
        choose("9")


def test_a_failing_section_is_reported_as_a_line(check, monkeypatch, capsys):
    monkeypatch.setitem(SECTIONS, "golden", Section(1, "no_such_module", ""))
    assert worker.run(check, "golden")
    assert "no_such_module" in check.report.lines[0]["error"]
    assert capsys.readouterr().out.startswith("1  golden: FAILED: ModuleNotFoundError")
    assert check.report.failures == 1


def test_a_lost_device_ends_the_worker(check, monkeypatch):
    def refuse(self):
        raise DeviceLost("an illegal memory access was encountered")

    monkeypatch.setattr(Check, "check_device", refuse)
    monkeypatch.setitem(SECTIONS, "golden", Section(1, "no_such_module", ""))
    check.report.save()
    status = worker.work(["golden", "start"], "tiny", "cpu", check.deadline, str(check.report.path))
    assert status == DEVICE_LOST
    report = Report.read(check.report.path)
    assert report.finished == ["golden"]
    assert "illegal memory access" in report.lines[-1]["error"]


def test_no_section_starts_after_the_time_limit(check):
    late = Check(check.report, check.scale, check.device, time.time() - 1)
    assert worker.run(late, "golden")
    assert check.report.lines == [{"part": 1, "what": "golden", "ok": None, "left_out": "time limit reached"}]


DYING = """
import json, os, sys
from pathlib import Path
from benchmarks.gpu_check.report import Report
arguments = json.loads(sys.argv[1])
report = Report.read(Path(arguments["path"]))
for name in arguments["names"]:
    report.running = name
    report.save()
    if name == "start":
        os.kill(os.getpid(), 9)
    report.add(1, name, True)
    report.finished.append(name)
    report.running = None
report.save()
"""


def test_a_killed_worker_is_replaced(tmp_path, capfd):
    report = supervise(["golden", "start", "halves"], Report(tmp_path / "r.json"), [sys.executable, "-c", DYING])
    assert report.finished == ["golden", "start", "halves"]
    assert [line["ok"] for line in report.lines] == [True, False, True]
    assert "1  start: FAILED: the process died with exit status -9" in capfd.readouterr().out


def test_the_program_prints_what_it_writes(tmp_path, capfd):
    assert main(["--tiny", "--only", "start", "--json", str(tmp_path / "r.json")]) == 0
    printed = capfd.readouterr().out.splitlines()
    lines = json.loads((tmp_path / "r.json").read_text())["lines"]
    assert [line["what"] for line in lines[1:4]] == [f"initial noise, {n}" for n in ("float32", "float16", "bfloat16")]
    assert printed[1:4] == [f"1  {line['what']}: off by 0, ok" for line in lines[1:4]]


def test_bad_arguments_are_one_line(check):
    with pytest.raises(UserError, match="the full sizes take days on a CPU: give --tiny"):
        main(["--device", "cpu"])
    if not torch.cuda.is_available():
        check.report.save()
        with pytest.raises(UserError, match="--device cuda is not available"):
            worker.work(["golden"], "full", "cuda", check.deadline, str(check.report.path))


def test_a_worker_that_refuses_to_start_leaves_no_report(tmp_path, monkeypatch):
    started = subprocess.Popen
    monkeypatch.setattr(
        subprocess, "Popen", lambda *_, **options: started([sys.executable, "-c", "exit(2)"], **options)
    )
    assert main(["--json", str(tmp_path / "r.json")]) == 2
    assert list(tmp_path.iterdir()) == []


def test_imports_on_a_bare_gpu_machine():
    """Every module of the package, the tests' helpers, and the tests that need a GPU can be imported."""
    code = f"""
import importlib, pkgutil, sys
from pathlib import Path
sys.modules |= dict.fromkeys({ABSENT})
sys.path[:0] = [".", "tests"]
import benchmarks.gpu_check, musepose
for package in (musepose, benchmarks.gpu_check):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.name.startswith("musepose.app"):  # the page, which needs Gradio
            importlib.import_module(module.name)
for name in ("conftest", "tiny_training", "random_models.tiny_weights", "random_models.mm_weights"):
    importlib.import_module(name)
for path in Path("tests").glob("test_*.py"):
    if "mark.requires_cuda" in path.read_text(encoding="utf-8") and path.stem != {Path(__file__).stem!r}:
        importlib.import_module(path.stem)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
