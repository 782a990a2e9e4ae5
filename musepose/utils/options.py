"""Options declared as dataclass fields: the source of flags, YAML keys, defaults, help, checks and Markdown tables.

    @dataclass(frozen=True, kw_only=True)
    class Settings:
        steps: int = option(20, "denoising steps", low=1, high=1000)

The annotation gives the type: int, float, Fraction, str, bool, Path, lists, dicts, `X | None`, nested dataclasses.
"""

# Own code: jsonargparse, pydantic, draccus and tyro have no one-line errors that name the flag or the YAML key.
import difflib
import math
import re
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from musepose.utils.config_file import Config
from musepose.utils.errors import UserError, shown
from musepose.utils.files import project_file
from musepose.utils.paths import checked_path

T = TypeVar("T")
DTYPES = {"fp16": "float16", "fp32": "float32", "bf16": "bfloat16"}
REQUIRED = type("Required", (), {"__repr__": lambda self: "REQUIRED"})()  # the default of an option that must be given
# As Python reads numbers, but bounded: Fraction("1e999999999") takes for ever.
NUMBER = re.compile(r"\s*[+-]?[\d_.]{1,60}(/[\d_]{1,60}|[eE][+-]?\d{1,3})?\s*")
LONGEST_DENOMINATOR = 100_000  # of a frame rate that a video file can hold
TYPE_NAMES = {
    int: "a whole number",
    float: "a number",
    Fraction: "a number or a fraction such as 30000/1001",
    str: "a text",
    Path: "a path",
    bool: "true or false",
}
FALSE_WORDS, TRUE_WORDS = ("no", "off", "false"), ("yes", "on", "true")  # which YAML 1.1 reads as booleans


@dataclass(frozen=True)
class Rules:
    """Help, limits and names of an option; see `option`."""

    help: str
    short: str = ""
    low: Any = None
    high: Any = None
    above: Any = None
    below: Any = None
    multiple: int = 0
    choices: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    key: str | None = ""
    flag: bool = True
    metavar: str = ""
    group: str = ""
    project: bool = False


def option(default: Any = REQUIRED, help: str = "", **rules: Any) -> Any:
    """A dataclass field that is an option. Without a default the option is required.

    short: a second flag, such as "-W"
    low, high: inclusive limits; above, below: exclusive limits
    multiple: the value must be a multiple of it
    choices: all allowed texts; words: texts that are allowed instead of a number
    key: the YAML key; default: the field's name; None: not allowed in the YAML
    flag: False: allowed in the YAML only
    metavar, group: the value's name and the heading in --help
    project: an input path; if it does not exist, it is looked up in the project's folder
    """
    metadata = {"rules": Rules(help, **{k: tuple(v) if k in ("choices", "words") else v for k, v in rules.items()})}
    if isinstance(default, list | dict):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class OptionSpec:
    """An option: its field's name, type and default, with its rules."""

    name: str
    kind: Any  # without None
    optional: bool  # may be None
    default: Any
    rules: Rules

    @property
    def flags(self) -> tuple[str, ...]:
        return tuple(filter(None, (f"--{self.name.rstrip('_')}", self.rules.short)))  # `from_` is --from

    @property
    def key(self) -> str | None:
        return self.name if self.rules.key == "" else self.rules.key

    @property
    def nested(self) -> bool:
        return is_dataclass(self.kind)


@cache
def option_specs(cls: type) -> tuple[OptionSpec, ...]:
    """The options that a dataclass declares, in order."""
    hints = typing.get_type_hints(cls)
    found = []
    for one in fields(cls):
        rules = one.metadata.get("rules", Rules(""))
        kinds = typing.get_args(hints[one.name]) if _is_union(hints[one.name]) else (hints[one.name],)
        optional = type(None) in kinds
        kinds = [kind for kind in kinds if kind is not type(None) and not (kind is str and rules.words)]
        if len(kinds) != 1:
            raise TypeError(f"{cls.__name__}.{one.name} has several types: give one, None and `words` apart")
        default = one.default if one.default_factory is MISSING else one.default_factory()
        found.append(OptionSpec(one.name, kinds[0], optional, default, rules))
    return tuple(found)


def build(cls: type[T], flags: Mapping[str, Any] | None = None, config: Config | None = None) -> T:
    """Build the dataclass from flags (texts by name) and a config. Flags override the config, the config defaults.

    A flag of None is not given. null in the config means None if the option allows None, else the default.
    Raises UserError: an invalid value, or a required option is missing.
    """
    return _build(cls, flags or {}, config or Config(None, {}), "")


def _build(cls: type[T], flags: Mapping[str, Any], config: Config, prefix: str) -> T:
    values = {}
    given = config.at(prefix)
    for one in option_specs(cls):
        key = None if one.key is None else prefix + one.key
        if one.nested:
            values[one.name] = _build_nested(one, config, key)
        elif flags.get(one.name) is not None:
            values[one.name] = check_value(one, flags[one.name], one.flags[0])
        elif key is not None and given.get(one.key) is not None:
            value = given[one.key]
            if one.kind in (str, Path) and not isinstance(value, str):
                value = config.overrides.get(key, value)  # the text as typed: no is "no" and 7 is "7"
            values[one.name] = check_value(one, value, config.origin(key))
        elif key is not None and one.optional and one.key in given:
            values[one.name] = None
        elif one.default is REQUIRED:
            if config.path is not None and key is not None:
                raise UserError(f"{config.path}: the key {key} is missing: compare it with {config.example}")
            raise UserError(f"{one.flags[0]} is not given: it is required")
        else:
            values[one.name] = project_file(one.default) if one.rules.project and one.default else one.default
    return cls(**values)


def _build_nested(one: OptionSpec, config: Config, key: str) -> Any:
    part = config.lookup(key)
    if part is not None and not isinstance(part, Mapping):
        raise UserError(f"{config.origin(key)} is {shown(part)}: give `key: value` pairs")
    check_keys(config, [one.kind], f"{key}.")
    return _build(one.kind, {}, config, f"{key}.")


def check_keys(config: Config, classes: Iterable[type], prefix: str = "") -> None:
    """Raises UserError: the config has a key that no dataclass declares."""
    known = [one.key for cls in classes for one in option_specs(cls) if one.key is not None]
    for key in config.at(prefix):
        if key not in known:
            close = difflib.get_close_matches(str(key), known, 1)
            remedy = f"is it {prefix}{close[0]}?" if close else "remove it"
            raise UserError(f"{config.origin(prefix + str(key), 'unknown key ')}: {remedy}")


def check_value(one: OptionSpec, value: Any, origin: str) -> Any:
    """Convert a flag's text or a YAML value to the option's type. Raises UserError that names `origin`: not valid."""
    return _check(one.kind, one.rules, value, origin)


def _check(kind: Any, rules: Rules, value: Any, origin: str) -> Any:
    container, parts = typing.get_origin(kind), typing.get_args(kind)
    if container is list:
        if not isinstance(value, list):
            raise UserError(f"{origin} is {shown(value)}: give a list, such as [a, b]")
        return [_check(parts[0], rules, item, origin) for item in value]
    if container is dict:
        if not isinstance(value, Mapping):
            raise UserError(f"{origin} is {shown(value)}: give `key: value` pairs")
        return {
            _check(parts[0], rules, k, origin): _check(parts[1], rules, v, f"{origin}.{k}") for k, v in value.items()
        }
    if kind is Any:
        return value
    if kind is bool:
        if value in (True, False):  # 1 and 0 as well
            return bool(value)
        raise UserError(f"{origin} is {shown(value)}: give true or false")
    return _check_text(kind, rules, value, origin) if kind in (str, Path) else _check_number(kind, rules, value, origin)


def _check_text(kind: type, rules: Rules, value: Any, origin: str) -> str | Path:
    if rules.choices:
        if isinstance(value, bool):
            value = next((word for word in (TRUE_WORDS if value else FALSE_WORDS) if word in rules.choices), value)
        if value not in rules.choices:
            raise UserError(f"{origin} is {_bare(value)}: choose from {', '.join(rules.choices)}")
        return value
    if not isinstance(value, str | kind) or value == "":
        quotes = ", in quotes" if kind is str and value != "" else ""
        raise UserError(f"{origin} is {shown(value)}: give {TYPE_NAMES[kind]}{quotes}")
    if kind is not Path:
        return value
    try:
        return project_file(value) if rules.project else checked_path(value)
    except UserError as error:
        raise UserError(f"{origin}: {error}") from None


def _check_number(kind: type, rules: Rules, value: Any, origin: str) -> Any:
    if isinstance(value, str) and value in rules.words:
        return value
    try:
        text = str(value)  # so that int() refuses true and 8.5
        if not NUMBER.fullmatch(text):
            raise ValueError
        number = kind(text)
        if not math.isfinite(number):
            raise ValueError
    except (ValueError, ZeroDivisionError, OverflowError):
        raise UserError(f"{origin} is {shown(value)}: give {', '.join([*rules.words, TYPE_NAMES[kind]])}") from None
    inside = (
        (rules.low is None or number >= rules.low)
        and (rules.high is None or number <= rules.high)
        and (rules.above is None or number > rules.above)
        and (rules.below is None or number < rules.below)
    )
    if not inside:
        raise UserError(f"{origin} is {_bare(value)}: give {range_text(rules)}")
    if rules.multiple and number % rules.multiple:
        below, above = number - number % rules.multiple, number + -number % rules.multiple
        raise UserError(f"{origin} is {_bare(value)}, not a multiple of {rules.multiple}: take {below} or {above}")
    return number.limit_denominator(LONGEST_DENOMINATOR) if kind is Fraction else number


def _bare(value: Any) -> str:
    """As `shown`, texts and numbers without quotes."""
    return shown(value).strip("'") if isinstance(value, str) else shown(value)


def range_text(rules: Rules) -> str:
    """The limits of a number in words; empty without limits."""
    if rules.low is not None and rules.high is not None:
        return f"{rules.low} to {rules.high}"
    limits = (("at least", rules.low), ("more than", rules.above), ("at most", rules.high), ("less than", rules.below))
    return " and ".join(f"{words} {limit}" for words, limit in limits if limit is not None)


def rules_text(one: OptionSpec, quote: str = "") -> str:
    """Choices and limits for help and tables; `quote` surrounds each choice."""
    rules, parts = one.rules, []
    if rules.choices:
        parts.append("one of " + ", ".join(f"{quote}{choice}{quote}" for choice in rules.choices))
    numbers = ", ".join(filter(None, [range_text(rules), f"a multiple of {rules.multiple}" if rules.multiple else ""]))
    return "; ".join([*parts, *filter(None, [numbers])])


def shown_default(one: OptionSpec) -> str:
    """The default as text for help and tables; empty if there is none, or if it is false or empty."""
    if one.default is REQUIRED or one.default is None or one.default is False or one.default in ([], {}):
        return ""
    return str(one.default).lower() if isinstance(one.default, bool) else str(one.default)


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)
