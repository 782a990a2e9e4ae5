"""YAML config files with `key=value` overrides: the values, and the origin of each for error messages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from musepose.utils.errors import UserError


@dataclass(frozen=True)
class Config:
    """The values of a YAML file after overrides. Dotted keys such as "solver.optimizer" address nested values."""

    path: Path | None
    values: dict[str, Any]
    overrides: dict[str, str] = field(default_factory=dict)  # dotted key → text
    example: str = "the example in configs/"  # a correct config, for error messages

    def lookup(self, key: str) -> Any:
        """The value of a dotted key, or None."""
        value: Any = self.values
        for part in filter(None, key.split(".")):
            value = value.get(part) if isinstance(value, Mapping) else None
        return value

    def at(self, prefix: str) -> Mapping[str, Any]:
        """The mapping below a prefix, which is empty or ends with a dot."""
        return self.lookup(prefix.rstrip(".")) or {}

    def origin(self, key: str, what: str = "") -> str:
        """`what` and the key for an error message, after the file name unless the value is an override."""
        if any(f"{name}.".startswith(f"{key}.") or key.startswith(f"{name}.") for name in self.overrides):
            return f"{what}{key}"
        return f"{self.path}: {what}{key}"


def read_config_file(path: Path, example: str, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file and apply `overrides` such as "solver.learning_rate=1e-4".

    Raises UserError: the file is missing or not a YAML mapping, or an override has no "=".
    """
    if not path.is_file():
        raise UserError(f"{path} is missing: give a config with --config FILE.yaml, such as {example}")
    from omegaconf import OmegaConf  # slow to import; --help does not need it

    for override in overrides:
        if not override.partition("=")[1] or override.startswith("="):
            raise UserError(f"{override} changes no setting: write key=value, such as solver.learning_rate=1e-4")
    try:
        loaded = OmegaConf.load(path)
    except Exception as error:  # OmegaConf passes on every exception of its YAML reader
        raise UserError(f"{path} cannot be read as YAML ({error}): correct it") from error
    if not OmegaConf.is_dict(loaded):
        raise UserError(f"{path} has no `key: value` pairs: compare it with {example}")
    try:
        merged = OmegaConf.merge(loaded, OmegaConf.from_dotlist(list(overrides)))
        values = OmegaConf.to_container(merged, resolve=True)
    except Exception as error:  # an override that is not YAML, or a ${…} without a target
        reason = f"{str(error).splitlines()[0]}: correct it"
        raise UserError(f"{path}, or {' '.join(overrides)}: {reason}" if overrides else f"{path}: {reason}") from error
    return Config(path, values, dict(_split(override) for override in overrides), example)


def _split(override: str) -> tuple[str, str]:
    key, _, text = override.partition("=")
    return key, text
