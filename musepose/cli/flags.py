"""Command-line flags from declared options: parser, help, and the flags that were given."""

import argparse
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

from musepose.cli.entry import Parser
from musepose.utils.options import REQUIRED, OptionSpec, build, option_specs, rules_text, shown_default

T = TypeVar("T")
METAVARS = {int: "N", float: "X", Fraction: "X", Path: "FILE", str: "X"}


def make_parser(program: str, description: str) -> Parser:
    """A parser for the script `program`; --help shows `description` unchanged."""
    return Parser(
        prog=program,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def parse_options(
    cls: type[T], program: str, description: str, arguments: Sequence[str] | None, epilog: str | None = None
) -> T:
    """Parse the command line of a script without a config file. Raises UserError: a flag or its value is invalid."""
    parser = make_parser(program, description)
    parser.epilog = epilog
    add_options(parser, option_specs(cls))
    return build(cls, vars(parser.parse_args(arguments)))


def add_options(parser: argparse.ArgumentParser, options: Iterable[OptionSpec]) -> None:
    """Add flags for the options that have one. Values stay texts for `build` to check; None means not given."""
    groups: dict[str, Any] = {"": parser}
    for one in options:
        if one.rules.flag and not one.nested:
            if one.rules.group not in groups:
                groups[one.rules.group] = parser.add_argument_group(one.rules.group)
            add_option(groups[one.rules.group], one)


def add_option(parser: Any, one: OptionSpec) -> None:
    """Add one flag to a parser or an argument group."""
    how: dict[str, Any] = {"dest": one.name, "default": None, "help": help_text(one).replace("%", "%%")}
    if one.kind is bool:
        action = argparse.BooleanOptionalAction if one.optional else "store_true"  # None: depends on other options
        parser.add_argument(*one.flags, action=action, **how)
        return
    if one.default is REQUIRED and isinstance(parser, argparse.ArgumentParser):
        how["required"] = True
    listed = one.kind not in METAVARS
    parser.add_argument(
        *one.flags, metavar=one.rules.metavar or METAVARS.get(one.kind, "X"), nargs="+" if listed else None, **how
    )


def help_text(one: OptionSpec) -> str:
    """The help, followed by choices, limits and default."""
    default = shown_default(one)
    notes = "; ".join(filter(None, [rules_text(one), f"default {default}" if default else ""]))
    return f"{one.rules.help} ({notes})" if notes else one.rules.help


def given(namespace: argparse.Namespace) -> Mapping[str, Any]:
    """The flags that were given, by name."""
    return {name: value for name, value in vars(namespace).items() if value not in (None, False)}
