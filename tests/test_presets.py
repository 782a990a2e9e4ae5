"""Presets, --size and --dtype auto: what counts more than what."""

from pathlib import Path

import pytest
import torch
from test_cases import info, job, plan

from musepose.inference.options import Settings, merge_settings
from musepose.pipelines.presets import PRESETS
from musepose.utils import device
from musepose.utils.errors import UserError
from musepose.utils.options import build

DEFAULTS = build(Settings)


def merged(flags=None, **config) -> Settings:
    return merge_settings(flags or {}, config, Path("my.yaml"))


def test_exact_is_the_defaults_and_all_presets_have_the_same_keys():
    assert PRESETS["exact"] == {name: getattr(DEFAULTS, name) for name in PRESETS["exact"]}
    assert all(preset.keys() == PRESETS["exact"].keys() for preset in PRESETS.values())
    for name in PRESETS:
        merged({"preset": name}).sampling  # noqa: B018 (its checks)


@pytest.mark.parametrize(
    ("flags", "config", "steps"),
    [
        ({"preset": "draft"}, {}, PRESETS["draft"]["steps"]),
        ({"preset": "draft", "steps": "31"}, {}, 31),
        ({"preset": "draft"}, {"steps": 32}, PRESETS["draft"]["steps"]),
        ({"preset": "exact"}, {"preset": "draft"}, 20),
        ({}, {"preset": "draft"}, PRESETS["draft"]["steps"]),
        ({}, {"preset": "draft", "steps": 33}, 33),
        ({"steps": "34"}, {"preset": "draft", "steps": 33}, 34),
        ({"preset": None}, {"preset": None, "steps": 35}, 35),
    ],
)
def test_single_settings_count_more_than_a_preset_of_the_same_place(flags, config, steps):
    assert merged(flags, **config).steps == steps


@pytest.mark.parametrize("where", ["flag", "yaml"])
def test_an_unknown_preset(where):
    with pytest.raises(UserError, match="preset.* is quick: choose from exact, fast, draft"):
        merged({"preset": "quick"}) if where == "flag" else merged(preset="quick")


@pytest.mark.parametrize(
    ("video", "size"),
    [((512, 512), (512, 512)), ((1080, 1920), (384, 704)), ((1920, 1080), (704, 384)), ((64, 6400), (64, 5120))],
)
def test_size_keeps_the_pose_video_s_aspect(video, size):
    pose = info()
    object.__setattr__(pose, "width", video[0])
    object.__setattr__(pose, "height", video[1])
    assert job(pose, size=512).size == size
    assert job(pose, width=96, height=72).size == (96, 72)


@pytest.mark.parametrize(
    ("flags", "config", "expected"),
    [
        ({"size": "128"}, {"width": 256, "height": 256}, 128),
        ({"width": "128"}, {"size": 256}, None),
        ({}, {"size": 256, "width": 768}, 256),
    ],
)
def test_size_or_width_whichever_counts_more(flags, config, expected):
    assert merged(flags, **config).size == expected


def test_size_beside_width_or_height():
    with pytest.raises(UserError, match="--size and --height are both given"):
        merged({"size": "128", "height": "64"})


def test_the_memory_estimate_takes_the_largest_job(stage_2):
    made = plan(stage_2, {"size": "96"})
    assert made.largest == made.jobs[0].size != (768, 768)


def test_guidance_that_ends_before_it_starts():
    with pytest.raises(UserError, match="--guidance_start 0.8 is above --guidance_stop 0.5: lower it"):
        merged({"guidance_start": "0.8"}, guidance_stop=0.5)


def test_spacing_needs_a_scheduler_that_takes_timesteps():
    with pytest.raises(UserError, match=r"--spacing 1.5 does not go with --scheduler ddim: take dpm\+\+ or euler"):
        merged({"spacing": "1.5"})
    assert merged({"spacing": "1.5", "scheduler": "euler"}).sampling.spacing == 1.5


@pytest.mark.parametrize(("has", "expected"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_takes_bfloat16_on_a_cpu_that_has_the_instructions(monkeypatch, has, expected):
    monkeypatch.setattr(device, "has_bfloat16_instructions", lambda: has)
    assert device.choose_dtype("auto", torch.device("cpu")) == expected
    assert merged({"dtype": "auto"}).dtype == "auto"


@pytest.mark.parametrize(("bf16", "amx", "expected"), [(True, False, True), (False, True, True), (False, False, False)])
def test_the_instructions_that_count(monkeypatch, bf16, amx, expected):
    monkeypatch.setattr(device.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bf16, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
    assert device.has_bfloat16_instructions() == expected
