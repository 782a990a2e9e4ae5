"""Schemas of config files: tables of key → type and range, checked before anything is built from the values."""

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from musepose.utils.errors import UserError, shown

QUOTE = "'"
TYPES = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", list: "a list"}


@dataclass(frozen=True)
class Rule:
    """What the value of a key must be. null, and a key that is not there, stand for the reader's default."""

    kind: type = str  # int, float, bool, str or list; ints serve as floats, booleans never as numbers
    low: float | None = None  # inclusive limits of a number, or of a list's length
    high: float | None = None
    above: float | None = None  # exclusive
    choices: tuple = ()  # all values that are allowed, of any kind
    items: "Rule | None" = None  # of a list
    required: bool = False

    def expects(self) -> str:
        """The rule in words: "a whole number, 1 to 32"."""
        if self.choices:
            return " or ".join(_plain(choice) for choice in self.choices)
        limits = (("more than", self.above), ("at least", self.low), ("at most", self.high))
        if self.low is not None and self.high is not None:
            limits = (("", f"{self.low} to {self.high}" if self.low != self.high else self.low),)
        inside = " and ".join(f"{words} {limit}".strip() for words, limit in limits if limit is not None)
        if self.items is None:
            return ", ".join(filter(None, [TYPES[self.kind], inside]))
        return f"a list of {f'{inside} ' if inside else ''}values, each {self.items.expects()}"

    def accepts(self, value: Any) -> bool:
        """Whether a value obeys the rule."""
        if self.choices:
            return any(value == choice for choice in self.choices)
        if self.kind is list:
            fits = isinstance(value, list) and self._inside(len(value))
            return fits and (self.items is None or all(self.items.accepts(item) for item in value))
        if self.kind in (int, float):
            is_number = type(value) is int or (self.kind is float and type(value) is float and math.isfinite(value))
            return is_number and self._inside(value)
        return isinstance(value, self.kind)

    def _inside(self, number: float) -> bool:
        return (
            (self.low is None or number >= self.low)
            and (self.high is None or number <= self.high)
            and (self.above is None or number > self.above)
        )


def check_section(
    values: Any, rules: Mapping[str, Rule], where: str, remedy: str = "", others: bool = True
) -> dict[str, Any]:
    """→ the values that are not null, of the keys that have a rule.

    `where` stands before the key in error lines, such as "unet/config.json: "; `others`: keys without a rule are
    ignored. Raises UserError: no mapping; a key is missing or unknown, a value is of another type or out of range.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"{where.rstrip(' .:')} is {shown(values)}: give `key: value` pairs")
    if not others:
        _refuse_unknown(values, rules, where)
    found = {}
    for key, rule in rules.items():
        value = values.get(key)
        if value is None:
            if rule.required:
                raise UserError(f"{where}{key} is missing: give {rule.expects()}{remedy and f', or {remedy}'}")
        elif not rule.accepts(value):
            allowed = f"only {rule.expects()} is supported" if len(rule.choices) == 1 else f"give {rule.expects()}"
            raise UserError(f"{where}{key} is {shown(value)}: {allowed}{remedy and f'; {remedy}'}")
        else:
            found[key] = value
    return found


def _refuse_unknown(values: Mapping, rules: Mapping[str, Rule], where: str) -> None:
    file, colon, section = where.rpartition(": ")
    for key in values:
        if key not in rules:
            close = difflib.get_close_matches(shown(key), rules, 1)
            remedy = f"is it {section}{close[0]}?" if close else "remove it"
            raise UserError(f"{file}{colon}unknown key {section}{shown(key).strip(QUOTE)}: {remedy}")


def _plain(value: Any) -> str:
    """`repr`, without the quotes of a text that is one word."""
    return value if isinstance(value, str) and value.isidentifier() else repr(value)
