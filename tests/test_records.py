"""A result of other settings or inputs in the place of a job's: refused in one line, and never lost."""

import json
import os
from pathlib import Path

import pytest
from media import write_picture, write_video
from test_stage_2_script import COMPARISON, RESULT, MirrorPipeline, never, run

from musepose.inference.record import KEY, read_record
from musepose.media.containers import read_comment
from musepose.pipelines.presets import PRESETS
from musepose.utils.errors import UserError


@pytest.fixture
def made(stage_2):
    """The folder of a first run by the defaults."""
    assert run(stage_2, pipeline=MirrorPipeline()) == 0
    return stage_2


def refused(stage_2, message: str, *flags: str, **changes) -> None:
    """A run is refused before anything loads, and changes no file."""
    before = {path: path.read_bytes() for path in Path("out").iterdir()}
    with pytest.raises(UserError, match=message):
        run(stage_2, *flags, load=never, **changes)
    assert {path: path.read_bytes() for path in Path("out").iterdir()} == before


@pytest.mark.parametrize(
    ("flags", "change"),
    [
        ("-W 64 -H 64", "width 768, now 64, height 768, now 64"),
        ("--size 64", "width 768, now 64, height 768, now 64"),
        ("--noise shuffled", "noise independent, now shuffled"),
        ("--guidance_stop 0.5", "guidance_stop 1.0, now 0.5"),
        ("--cache_interval 2", "cache_interval 1, now 2"),
        ("--seed 5", "seed 99, now 5"),
        ("--smooth_latents 0.1", "smooth_latents 0.0, now 0.1"),
        ("--dtype bf16", "dtype float16, now bfloat16"),
        ("-L 4", "frames 5, now 2"),
        ("--fps 15000/1001", "rate 15, now 15000/1001"),
        ("--no_audio", "sound True, now False"),
    ],
)
def test_other_settings_of_the_same_name_are_refused(made, flags, change):
    refused(made, rf"{RESULT} was made otherwise \({change}\): give another --output, or .*--overwrite", *flags.split())


def test_a_preset_beside_its_own_steps_and_scheduler(stage_2):
    """Both names hold the cfg, the steps, the skip and the scheduler, and nothing of the cache."""
    steps, scheduler = str(PRESETS["fast"]["steps"]), PRESETS["fast"]["scheduler"]
    assert run(stage_2, "--steps", steps, "--scheduler", scheduler, pipeline=MirrorPipeline()) == 0
    refused(stage_2, "spacing 1.0, now 2.0", "--preset", "fast")


def test_the_published_name_of_other_steps_is_another(made):
    assert run(made, "--steps", "3", pipeline=MirrorPipeline()) == 0
    assert RESULT.is_file() and Path("out/ref_dance_3.5_3_1.mp4").is_file()


@pytest.mark.parametrize("name", ["ref.png", "dance.mp4", "weights/motion_module_path", "weights/inference_config"])
def test_other_contents_of_an_input_are_refused(made, name):
    if name == "ref.png":
        write_picture(Path(name), "rgb", 32, 32)
    elif name == "dance.mp4":
        write_video(made.pose, 10, 64, 48, sound=0.5, stream_options={"g": "5"})
    else:
        text = '{"unet_additional_kwargs": {}, "noise_scheduler_kwargs": {"beta_end": 0.1}}'
        Path(name).write_text(text if "config" in name else "other weights")
    what = {"ref.png": "picture", "dance.mp4": "pose video"}.get(name, Path(name).name.removesuffix("_path"))
    refused(made, f"other {what}")


def test_what_changes_no_picture_is_finished(made, capsys):
    """Nor do the names and times of files: a copy of the inputs continues a run."""
    os.utime("dance.mp4", (1, 1))
    os.utime("weights/motion_module_path", (1, 1))
    Path("weights").rename("elsewhere")
    moved = {key: value.replace("weights/", "elsewhere/") for key, value in made.config.items() if key != "test_cases"}
    flags = "--device cpu --vram low --split cases --preset exact -L 1000".split()
    assert run(made, *flags, load=never, **moved) == 0
    assert "finished before, skipped (out/ref_dance_3.5_20_1.mp4)\n" in capsys.readouterr().out


def test_overwrite_replaces_it(made):
    assert run(made, "--seed", "5", "--overwrite", pipeline=MirrorPipeline()) == 0
    assert read_record(RESULT)["seed"] == read_record(COMPARISON)["seed"] == 5


def test_a_new_option_had_its_default_before(made, monkeypatch):
    """A result of a version without an option is finished if the option has its default now."""
    facts = read_record(RESULT)
    monkeypatch.setattr(
        "musepose.inference.record.read_comment",
        lambda path: json.dumps({KEY: {name: value for name, value in facts.items() if name != "noise"}}),
    )
    assert run(made, load=never) == 0
    refused(made, "noise independent, now shuffled", "--noise", "shuffled")


def test_a_finished_pair_without_a_record_is_kept_and_told(stage_2, capsys):
    Path("out").mkdir()
    for path in (RESULT, COMPARISON):
        write_video(path, 3)
    assert read_record(RESULT) is None
    assert run(stage_2, load=never) == 0
    assert "skipped (out/ref_dance_3.5_20_1.mp4); it does not tell its settings\n" in capsys.readouterr().out


@pytest.mark.parametrize("path", [RESULT, COMPARISON])
def test_half_a_pair_without_a_record_is_not_lost(stage_2, path):
    Path("out").mkdir()
    path.write_bytes(b"no video")
    refused(stage_2, f"{path} exists and tells no settings: move it, or replace it with --overwrite")


def test_the_record_is_in_both_files(made):
    assert json.loads(read_comment(RESULT)) == json.loads(read_comment(COMPARISON))
    assert read_record(RESULT).items() >= {"cfg": 3.5, "steps": 20, "width": 768, "frames": 5, "rate": "15"}.items()
    assert read_comment(Path("dance.mp4")) == ""
