"""YAML config files with `key=value` overrides: the values, and the origin of each for error messages."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from musepose.utils.errors import UserError, shown
from musepose.utils.files import require_file

MOST_VALUES = 10_000  # OmegaConf's own limit
REASON = 300  # characters of a reason in an error line
# OmegaConf's ${name:argument}: a config that comes with data could put the environment's secrets into names and logs.
RESOLVER = re.compile(r"\$\{\s*[A-Za-z_][\w.]*\s*:")


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
    require_file(path, f"give a config with --config FILE.yaml, such as {example}")
    from omegaconf import OmegaConf  # slow to import; --help does not need it

    for override in overrides:
        if not override.partition("=")[1] or override.startswith("="):
            raise UserError(f"{override} changes no setting: write key=value, such as solver.learning_rate=1e-4")
    loaded = _load(path, f"compare it with {example}")
    try:
        merged = loaded
        for override in overrides:
            given, (key, _) = OmegaConf.from_dotlist([override]), _split(override)
            value = OmegaConf.select(given, key, throw_on_resolution_failure=False)  # a ${…} is resolved at the end
            if value == {}:  # merging would leave all that it is to empty
                OmegaConf.update(merged, key, {}, merge=False)
            merged = OmegaConf.merge(merged, given)
        values = _resolve(merged)
    except Exception as error:  # an override that is not YAML, or a ${…} without a target
        reason = f"{_first_line(error)}: correct it"
        raise UserError(f"{path}, or {' '.join(overrides)}: {reason}" if overrides else f"{path}: {reason}") from error
    return Config(path, values, dict(_split(override) for override in overrides), example)


def read_yaml(path: Path, remedy: str) -> dict[str, Any]:
    """The values of a YAML file. Raises UserError: unreadable, no YAML, no mapping, or a ${…} that has no value."""
    loaded = _load(path, remedy)
    try:
        return _resolve(loaded)
    except Exception as error:  # whatever OmegaConf raises for a ${…}
        raise UserError(f"{path}: {_first_line(error)}: correct it") from error


def _load(path: Path, remedy: str) -> Any:
    from omegaconf import OmegaConf

    try:
        # OmegaConf's limit of values is against aliases that multiply. Written out, each value takes a byte at least.
        limit = max(MOST_VALUES, path.stat().st_size)
        loaded = OmegaConf.load(path, max_yaml_expanded_nodes=limit)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}): check its permissions") from error
    except Exception as error:  # OmegaConf passes on every exception of its YAML reader
        reason = " ".join(str(error).split()) or type(error).__name__
        if "node expansion exceeds" in reason:
            reason = f"its aliases, `*name`, stand for more than {limit:,} values"
        raise UserError(f"{path} cannot be read as YAML ({reason[:REASON]}): correct it") from error
    if not OmegaConf.is_dict(loaded):
        raise UserError(f"{path} has no `key: value` pairs: {remedy}")
    return loaded


def _resolve(config: Any) -> dict[str, Any]:
    """Plain values, with ${other.key} replaced. Raises ValueError: a resolver such as ${oc.env:HOME} is asked for."""
    from omegaconf import OmegaConf

    _refuse_resolvers(OmegaConf.to_container(config, resolve=False))
    return OmegaConf.to_container(config, resolve=True)


def _refuse_resolvers(value: Any) -> None:
    if isinstance(value, str) and RESOLVER.search(value):
        raise ValueError(f"{shown(value)} asks for more than another key's value, which is not looked up")
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _refuse_resolvers(part)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:REASON]


def _split(override: str) -> tuple[str, str]:
    key, _, text = override.partition("=")
    return key, text
