"""Shared by train_vae and train_pose: settings from YAML and command line, and the learning rate schedule."""

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch.optim.lr_scheduler import LambdaLR

from musepose.utils.errors import UserError
from musepose.utils.files import require_file


def read_settings(path: Path, overrides: Sequence[str], example: Path | None = None) -> DictConfig:
    """The YAML file `path`, with `overrides` such as "solver.learning_rate=1e-4" or "phases.0.steps=100".

    Raises UserError: no such file, invalid YAML, an unknown key, a value of another type.
    """
    require_file(path, "name a config with --config")
    try:
        config = OmegaConf.load(path)
    except Exception as error:  # the YAML reader raises various types
        raise UserError(f"{path} cannot be read as YAML ({error}): mend it") from error
    if example is not None:
        _check_keys(config, path, example)
    for text in overrides:
        key, equals, value = text.partition("=")
        try:
            before = OmegaConf.select(config, key, throw_on_missing=True, default=UNKNOWN) if equals else UNKNOWN
            after = OmegaConf.from_dotlist([f"value={value}"]).value
        except (OmegaConfBaseException, ValueError) as error:
            raise UserError(f"{text}: {str(error).splitlines()[0]}: give key=value") from error
        if before is UNKNOWN:
            raise UserError(f"{text}: {path} has no key {key}: give key=value with one of its keys")
        if before is not None and after is not None and not _is_alike(before, after):
            raise UserError(f"{text}: {key} is {before} in {path}: give a value of that kind")
        OmegaConf.update(config, key, after)
    return config


def _check_keys(config: DictConfig, path: Path, example: Path) -> None:
    """Raises UserError: the config lacks a key of the example, as one written for an earlier version may."""
    for key, value in OmegaConf.load(example).items():
        parts = value.keys() if OmegaConf.is_dict(value) and OmegaConf.is_dict(config.get(key)) else ()
        for name in [key] if key not in config else [f"{key}.{part}" for part in parts if part not in config[key]]:
            raise UserError(f"{path}: the key {name} is missing: compare it with {example}")


UNKNOWN = object()


def _is_alike(one: object, other: object) -> bool:
    if isinstance(one, float):
        return type(other) in (int, float)
    return type(one) is type(other)


def constant_then_decay(step: int, warmup: int, begin: int, decay: int) -> float:
    """Learning rate factor after `step` steps: linear warm-up, 1, and from step `begin` linear decay to 0.

    Trapezoidal schedule (Hägele et al. 2024): the length of the plateau need not be known in advance.
    """
    return min(1, (step + 1) / max(warmup, 1)) * min(1, max(begin + decay - step, 0) / max(decay, 1))


def check_continuous(schedule: LambdaLR, learning_rate: float) -> None:
    """Check a resumed schedule. Raises UserError: the settings give another learning rate than the state has."""
    for saved, factor in zip(schedule.get_last_lr(), schedule.lr_lambdas, strict=True):
        wanted = learning_rate * factor(schedule.last_epoch)
        if abs(saved - wanted) > 1e-6 * learning_rate:
            raise UserError(
                f"the state of step {schedule.last_epoch} had a learning rate of {saved:.3g}, these settings "
                f"continue at {wanted:.3g}: give the learning rate and numbers of steps that it was started with"
            )
