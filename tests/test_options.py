"""Options: values accepted and refused on the command line and in YAML; paths of the project's own files."""

import subprocess
import sys
from dataclasses import dataclass, field
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml
from media import write_picture, write_video

from musepose.cli import evaluate, option_tables, pose_align, prepare_dataset, test_stage_2, train
from musepose.cli.flags import parse_options
from musepose.inference.cases import make_plan
from musepose.training.config import read_config
from musepose.utils.config_file import read_config_file
from musepose.utils.errors import UserError
from musepose.utils.files import PROJECT
from musepose.utils.options import build, check_keys, option

SCRIPTS = (
    "test_stage_2",
    "pose_align",
    "train_stage_1",
    "train_stage_2",
    "prepare_dataset",
    "evaluate",
    "download_weights",
)


@dataclass(kw_only=True)
class Inner:
    rate: float = option(0.5, "a rate", above=0, below=1)


@dataclass(kw_only=True)
class Sample:
    count: int = option(3, "how many", short="-c", low=1, high=9)
    side: int = option(16, "pixels", multiple=8)
    ratio: Fraction | None = option(None, "a ratio")
    limit: str | float = option("auto", "a limit", low=1, words=("auto",))
    mode: str = option("no", "a mode", choices=("no", "yes"), key="the_mode")
    name: str | None = option("x", "a name")
    path: Path | None = option(None, "a path")
    quick: bool = option(False, "be quick")
    names: list[str] = option([], "names")
    table: dict[str, Any] = option({}, "anything", flag=False)
    inner: Inner = field(default_factory=Inner)


@dataclass(kw_only=True)
class Needy:
    what: Path = option(help="is needed")


def from_flags(*arguments: str) -> Sample:
    return parse_options(Sample, "sample.py", "A sample.", arguments)


def from_yaml(folder: Path, text: str, *overrides: str) -> Sample:
    (folder / "a.yaml").write_text(text)
    config = read_config_file(folder / "a.yaml", "b.yaml", overrides)
    check_keys(config, [Sample])
    return build(Sample, config=config)


@pytest.mark.parametrize(
    ("flags", "name", "wanted"),
    [
        ("", "count", 3),
        ("--count 4", "count", 4),
        ("-c 4", "count", 4),
        ("--ratio 30000/1001", "ratio", Fraction(30000, 1001)),
        ("--limit 2.5", "limit", 2.5),
        ("--limit auto", "limit", "auto"),
        ("--mode yes", "mode", "yes"),
        ("--path a/b", "path", Path("a/b")),
        ("--quick", "quick", True),
        ("--names a b", "names", ["a", "b"]),
    ],
)
def test_a_flag_has_the_type_of_its_field(flags: str, name: str, wanted: Any) -> None:
    assert getattr(from_flags(*flags.split()), name) == wanted


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--count 0", "--count is 0: give 1 to 9"),
        ("-c 1.5", "--count is '1.5': give a whole number"),
        ("--side 20", "--side is 20, not a multiple of 8: take 16 or 24"),
        ("--ratio 1/0", "--ratio is '1/0': give a number or a fraction"),
        ("--limit all", "--limit is 'all': give auto, a number"),
        ("--limit 0", "--limit is 0: give at least 1"),
        ("--mode maybe", "--mode is maybe: choose from no, yes"),
        ("--coun 4", "unrecognized arguments: --coun 4: see python sample.py --help"),
        ("--table a", "unrecognized arguments"),
    ],
)
def test_a_wrong_flag_is_named(flags: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        from_flags(*flags.split())
    assert message in str(error.value)


def test_an_option_without_default_is_required() -> None:
    with pytest.raises(UserError, match="required: --what: see python needy.py --help"):
        parse_options(Needy, "needy.py", "Needy.", [])


def test_help_shows_limits_and_defaults(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        from_flags("--help")
    shown = " ".join(capsys.readouterr().out.split())
    assert "how many (1 to 9; default 3)" in shown
    assert "be quick --names" in shown


@pytest.mark.parametrize(
    ("text", "overrides", "name", "wanted"),
    [
        ("count: 4", [], "count", 4),
        ("count: 4", ["count=5"], "count", 5),
        ("count:", [], "count", 3),  # null stands for the default
        ("name: null", [], "name", None),  # where None is allowed it is meant
        ("name: a", ["name=null"], "name", None),
        ("count: 4", ["name=2024"], "name", "2024"),
        ("count: 4", ["name='2024'"], "name", "2024"),
        ("the_mode: yes", [], "mode", "yes"),  # what YAML reads as true
        ("the_mode: off", ["the_mode=no"], "mode", "no"),
        ("quick: 1", [], "quick", True),
        ("names: [a, b]", [], "names", ["a", "b"]),
        ("table: {a: 1}", ["table.b=2"], "table", {"a": 1, "b": 2}),
        ("inner: {rate: 0.25}", [], "inner", Inner(rate=0.25)),
        ("inner: {rate: 0.25}", ["inner.rate=1e-4"], "inner", Inner(rate=1e-4)),
        ("count: 4\nside: ${count}0", ["side=24"], "count", 4),
    ],
)
def test_a_yaml_value_has_the_type_of_its_field(
    tmp_path: Path, text: str, overrides: list[str], name: str, wanted: Any
) -> None:
    assert getattr(from_yaml(tmp_path, text, *overrides), name) == wanted


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("count: 0", [], "{file}: count is 0: give 1 to 9"),
        ("count: 1", ["count=0"], "count is 0: give 1 to 9"),
        ("count: true", [], "{file}: count is True: give a whole number"),
        ("quick: maybe", [], "{file}: quick is 'maybe': give true or false"),
        ("names: a", [], "{file}: names is 'a': give a list"),
        ("names: [[a]]", [], "{file}: names is ['a']: give a text"),
        ("name: 7", [], "{file}: name is 7: give a text, in quotes"),
        ("inner: 7", [], "{file}: inner is 7: give `key: value` pairs"),
        ("inner: {rate: 1}", [], "{file}: inner.rate is 1: give more than 0 and less than 1"),
        ("inner: {rate: 0.5}", ["inner.rate=0"], "inner.rate is 0: give more than 0 and less than 1"),
        ("inner: {rat: 1}", [], "{file}: unknown key inner.rat: is it inner.rate?"),
        ("mode: no", [], "{file}: unknown key mode: is it the_mode?"),
        ("count: 1", ["zzz=1"], "unknown key zzz: remove it"),
        ("count: 1", ["count"], "count changes no setting: write key=value"),
        ("count: 1", ["count=[1"], "or count=[1: "),
    ],
)
def test_a_wrong_yaml_value_is_named_with_its_file_and_key(
    tmp_path: Path, text: str, overrides: list[str], message: str
) -> None:
    with pytest.raises(UserError) as error:
        from_yaml(tmp_path, text, *overrides)
    assert message.format(file=tmp_path / "a.yaml") in str(error.value)
    assert ("{file}" in message) == str(error.value).startswith(f"{tmp_path}") or "count=[1" in message


def shipped(stage: int) -> Path:
    return PROJECT / "configs" / f"train_stage_{stage}.yaml"


@pytest.mark.parametrize("arguments", ["a=b --resume latest c=d", "--resume latest a=b c=d", "a=b c=d --resume latest"])
def test_overrides_and_flags_of_a_training_stand_in_any_order(arguments: str) -> None:
    command, overrides = train.parse("stage_1", arguments.split())
    assert (command.resume, overrides) == ("latest", ["a=b", "c=d"])


def test_mixed_precision_no_needs_no_quotes(tmp_path: Path) -> None:
    text = shipped(1).read_text()
    assert "mixed_precision: fp16" in text
    (tmp_path / "a.yaml").write_text(text.replace("mixed_precision: fp16", "mixed_precision: no"))
    assert read_config(tmp_path / "a.yaml").solver.mixed_precision == "no"
    assert read_config(shipped(1), ["solver.mixed_precision=no"]).solver.mixed_precision == "no"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed=-1", "seed is -1: give 0 to 4294967295"),
        ("val.seed=1.5", "val.seed is 1.5: give a whole number"),
        ("val.guidance_scale=-1", "val.guidance_scale is -1: give at least 0"),
        ("timestep_bias.first=1000", "timestep_bias.first is 1000, but num_train_timesteps is 1000: give at most 999"),
        ("noise_scheduler_kwargs.num_train_timesteps=600", "first is 600, but num_train_timesteps is 600"),
        ("noise_scheduler_kwargs.num_train_timesteps=many", "num_train_timesteps is 'many': give a whole number"),
        ("learning_rate=1", "unknown key learning_rate"),
    ],
)
def test_ranges_of_a_training_are_checked(override: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        read_config(shipped(1), [override])
    assert message in str(error.value)


def test_validation_takes_no_more_steps_than_there_are() -> None:
    overrides = ["noise_scheduler_kwargs.num_train_timesteps=10", "timestep_bias.first=9"]
    assert read_config(shipped(1), [*overrides, "val.num_inference_steps=10"]).val.num_inference_steps == 10
    with pytest.raises(UserError, match="val.num_inference_steps is 11, but num_train_timesteps is 10"):
        read_config(shipped(1), [*overrides, "val.num_inference_steps=11"])


def test_what_comes_with_the_project_is_found_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    detector = pose_align.parse([]), prepare_dataset.parse(["--video_dir", "a", "--output", "b"])
    pairs, _, _ = evaluate.parse(["--pairs", "a", "b"])
    _, puppets, _ = evaluate.parse(["--puppets"])
    found = [options.yolox_config for options in (*detector, pairs, puppets)]
    found += [puppets.weights, puppets.inference_config, test_stage_2.parse([])[0]]
    found += [test_stage_2.parse(["--config", "configs/puppet/demo.yaml"])[0]]
    assert all(path.is_absolute() and path.exists() for path in found)
    Path("configs").mkdir()
    Path("configs/test_stage_2.yaml").write_text("here: 1")
    assert test_stage_2.parse([])[0] == Path("configs/test_stage_2.yaml")  # what is here goes first


def test_the_puppets_config_works_in_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = yaml.safe_load((PROJECT / "configs/puppet/demo.yaml").read_text())
    write_video(tmp_path / "mine.mp4", 4)
    config["test_cases"] = {"./assets/images/ref.png": ["mine.mp4"]}
    Path("mine.yaml").write_text(yaml.safe_dump(config))
    plan = make_plan(Path("mine.yaml"), {"output": "out"}, datetime(2024, 1, 1))
    assert all(PROJECT in path.parents for path in plan.weights.values())
    assert (plan.jobs[0].reference, plan.jobs[0].result.parent) == (PROJECT / "assets/images/ref.png", Path("out"))
    Path("assets/images").mkdir(parents=True)
    write_picture(tmp_path / "assets/images/ref.png", "rgb")
    assert make_plan(Path("mine.yaml"), {}, datetime(2024, 1, 1)).jobs[0].reference == Path("assets/images/ref.png")


@pytest.mark.parametrize("stage", [1, 2])
def test_a_training_finds_the_shipped_configs_from_another_folder(
    stage: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"data/prepared/meta.json is missing"):  # the config itself was found
        train.main(f"stage_{stage}", [])
    assert read_config(shipped(stage)).inference_config == PROJECT / "configs/inference_v2.yaml"


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_is_whole_and_needs_no_heavy_package(script: str, tmp_path: Path) -> None:
    code = f"""
import runpy, sys
sys.path.insert(0, {str(PROJECT)!r}); sys.argv = [{script!r}, "--help"]
try:
    runpy.run_path({str(PROJECT / f"{script}.py")!r}, run_name="__main__")
except SystemExit as end:
    print(end.code, sorted({{"torch", "numpy", "av", "cv2", "PIL", "omegaconf"}} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "0 []", done.stderr
    assert f"usage: {script}.py" in done.stdout


def test_the_tables_of_the_documentation_are_up_to_date() -> None:
    message = "run python -m musepose.cli.option_tables"
    assert (PROJECT / "docs/options.md").read_text(encoding="utf-8") == option_tables.document(), message
