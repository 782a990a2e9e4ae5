"""What the puppets' own trainings share: settings from YAML and command line, and a learning rate without jumps."""

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch.optim.lr_scheduler import LambdaLR

from musepose.utils.errors import UserError
from musepose.utils.files import require_file


def read_settings(path: Path, overrides: Sequence[str]) -> DictConfig:
    """The YAML `path`, changed by `overrides` such as "solver.learning_rate=1e-4" or "phases.0.steps=100".

    Raises UserError: no such file, no YAML, a key that the file does not have, a value of another kind.
    """
    require_file(path, "name a config with --config")
    try:
        config = OmegaConf.load(path)
    except Exception as error:  # OmegaConf passes on whatever its YAML reader raises
        raise UserError(f"{path} cannot be read as YAML ({error}): mend it") from error
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


UNKNOWN = object()


def _is_alike(one: object, other: object) -> bool:
    if isinstance(one, float):
        return type(other) in (int, float)
    return type(one) is type(other)


def constant_then_decay(step: int, warmup: int, begin: int, decay: int) -> float:
    """The learning rate's factor after `step` steps: up in `warmup` steps, 1, and from `begin` down to 0 in `decay`.

    Trapezoidal, as Hägele et al. 2024 have it: where the plateau ends need not be known before.
    """
    return min(1, (step + 1) / max(warmup, 1)) * min(1, max(begin + decay - step, 0) / max(decay, 1))


def check_continuous(schedule: LambdaLR, learning_rate: float) -> None:
    """For a schedule that was taken up from a state. Raises UserError: by these settings its rate is another one."""
    for saved, factor in zip(schedule.get_last_lr(), schedule.lr_lambdas, strict=True):
        wanted = learning_rate * factor(schedule.last_epoch)
        if abs(saved - wanted) > 1e-6 * learning_rate:
            raise UserError(
                f"the state of step {schedule.last_epoch} had a learning rate of {saved:.3g}, these settings "
                f"go on at {wanted:.3g}: give the learning rate and numbers of steps that it was started with"
            )
