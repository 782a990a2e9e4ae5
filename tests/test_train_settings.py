"""Settings of train_vae and train_pose: overrides, and the learning rate schedule."""

from pathlib import Path

import pytest
from tolerance import near

from musepose.utils.errors import UserError
from puppet.train_settings import constant_then_decay, read_settings

YAML = """
phases:
  - {steps: 10, crop: 64}
solver: {learning_rate: 1.0e-3, optimizer: adamw}
start_from: null
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "config.yaml").write_text(YAML)
    return tmp_path / "config.yaml"


@pytest.mark.parametrize(
    ("line", "key"), [("start_from: null\n", "start_from"), (", optimizer: adamw", "solver.optimizer")]
)
def test_a_config_of_an_earlier_version_names_the_key_that_it_lacks(path: Path, line: str, key: str) -> None:
    old = path.with_name("old.yaml")
    old.write_text(YAML.replace(line, ""))
    with pytest.raises(UserError, match=f"old.yaml: the key {key} is missing: compare it with"):
        read_settings(old, [], path)
    assert read_settings(path, [], path) == read_settings(path, [])


def test_overrides_change_what_they_name_and_nothing_else(path: Path) -> None:
    overrides = ["phases.0.steps=7", "solver.learning_rate=2", "start_from=some/folder"]
    config = read_settings(path, overrides)
    assert config.phases == [{"steps": 7, "crop": 64}] and config.start_from == "some/folder"
    assert config.solver == {"learning_rate": 2, "optimizer": "adamw"}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("solver.learning_rat=1", "has no key solver.learning_rat"),
        ("phases.3.steps=1", "phases.3.steps=1"),
        ("phases.0.steps=many", "phases.0.steps is 10 in .*: give a value of that kind"),
        ("phases.0.steps=1.5", "phases.0.steps is 10 in"),
        ("solver", "has no key solver: give key=value"),
    ],
)
def test_a_wrong_override_is_an_error(override: str, message: str, path: Path) -> None:
    with pytest.raises(UserError, match=message):
        read_settings(path, [override])


def test_a_missing_or_broken_file_is_an_error(path: Path) -> None:
    with pytest.raises(UserError, match="name a config"):
        read_settings(path.with_name("none.yaml"), [])
    path.write_text("phases: [")
    with pytest.raises(UserError, match="cannot be read as YAML"):
        read_settings(path, [])


def test_the_learning_rate_rises_stays_and_decays_to_zero() -> None:
    factors = [constant_then_decay(step, warmup=4, begin=10, decay=5) for step in range(16)]
    assert factors[:4] == [0.25, 0.5, 0.75, 1] and factors[4:11] == [1] * 7
    assert factors[11:] == near([0.8, 0.6, 0.4, 0.2, 0])
