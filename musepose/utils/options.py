"""Settings of test_stage_2.py: one table for its flags and its YAML keys, and how their values are checked."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from musepose.utils.errors import UserError

DTYPES = {"fp16": "float16", "fp32": "float32", "bf16": "bfloat16"}


@dataclass(frozen=True)
class Setting:
    """One setting, given by a flag, else by the YAML key of the flag's long name, else by its default."""

    flags: tuple[str, ...]  # the long one first
    kind: Callable[[str], Any]  # int, float, Fraction, str or bool
    default: Any
    help: str
    low: float = -math.inf
    high: float = math.inf
    multiple: int = 0  # of which it must be one
    choices: tuple[str, ...] = ()
    key: str = ""  # in the YAML, where it is not the flag's name
    words: tuple[str, ...] = ()  # that may stand instead of a number

    @property
    def name(self) -> str:
        return self.flags[0].lstrip("-")


def parse_setting(setting: Setting, value: Any, origin: str) -> Any:
    """One value, a flag's text or of any YAML kind, as its setting wants it. Raises UserError naming its `origin`."""
    if setting.kind in (str, bool):
        if setting.choices and value not in setting.choices:
            raise UserError(f"{origin} is {value}: choose from {', '.join(setting.choices)}")
        if not isinstance(value, setting.kind) or value == "":
            raise UserError(f"{origin} is {value!r}: give {'a text' if setting.kind is str else 'true or false'}")
        return value
    if value in setting.words:
        return value
    try:
        number = setting.kind(str(value))  # by way of the text, so that true or 8.5 make no whole number
        if not math.isfinite(number):
            raise ValueError
    except (ValueError, ZeroDivisionError, OverflowError):
        wanted = {int: "a whole number", float: "a number", Fraction: "a number or a fraction such as 30000/1001"}
        choices = ", ".join([*setting.words, wanted[setting.kind]])
        raise UserError(f"{origin} is {value!r}: give {choices}") from None
    if number < setting.low:
        raise UserError(f"{origin} is {value}: give at least {setting.low}")
    if number > setting.high:
        raise UserError(f"{origin} is {value}: give at most {setting.high}")
    if setting.multiple and number % setting.multiple:
        below, above = number - number % setting.multiple, number + -number % setting.multiple
        raise UserError(f"{origin} is {value}, no multiple of {setting.multiple}: take {below} or {above}")
    return number.limit_denominator(100_000) if setting.kind is Fraction else number  # what a video file can hold
