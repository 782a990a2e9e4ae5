"""Writes docs/options.md: a table of all options of every command, from their declarations.

python -m musepose.cli.option_tables
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from musepose.cli import download_weights, evaluate, pose_align, prepare_dataset, test_stage_2
from musepose.cli.entry import run_script
from musepose.cli.train import DESCRIPTIONS
from musepose.inference.options import Command, Inputs, Settings
from musepose.pose.options import Settings as PoseSettings
from musepose.training.config import Command as TrainCommand
from musepose.training.config import TrainConfig
from musepose.training.data.options import Settings as DatasetSettings
from musepose.utils.files import PROJECT, complete_file
from musepose.utils.options import REQUIRED, Declared, declared, rules_text, shown_default

FILE = PROJECT / "docs" / "options.md"
HEAD = """# Options

Written by `python -m musepose.cli.option_tables` from the declarations in the code; do not edit.

A flag wins over the YAML, the YAML over the default. A default input that is not under the working folder is taken from
the project's folder; outputs go under the working folder. What cannot be is refused in one line before a model loads.
"""


def document() -> str:
    """The whole file."""
    pairs = [one for one in declared(evaluate.PairOptions) if one.name == "pairs"]
    sections = [
        _section("pose_align.py", pose_align.__doc__, _table(declared(PoseSettings))),
        _section(
            "test_stage_2.py",
            test_stage_2.__doc__,
            _table([*declared(Command), *declared(Settings)], keys=True),
            "In the YAML only:\n\n" + _table(declared(Inputs), flags=False, keys=True),
        ),
        _section("prepare_dataset.py", prepare_dataset.__doc__, _table(declared(DatasetSettings))),
        _section(
            "train_stage_1.py, train_stage_2.py",
            "\n".join(text.splitlines()[0] for text in DESCRIPTIONS.values()),
            _table(declared(TrainCommand)),
            "Keys of the YAML; each may be given on the command line as `key=value`:\n\n"
            + _table(_flat(TrainConfig), flags=False, keys=True),
        ),
        _section(
            "evaluate.py",
            evaluate.__doc__,
            _table(pairs),
            *(
                f"{title[0].upper()}{title[1:]}:\n\n{_table(group)}"
                for title, group in evaluate.option_groups().items()
            ),
        ),
        _section("download_weights.py", download_weights.__doc__, _table(declared(download_weights.Settings))),
    ]
    return "\n".join([HEAD, *sections])


def _section(title: str, description: str, *parts: str) -> str:
    names = ", ".join(f"`{name}`" for name in title.split(", "))
    first = description.split("\n\n")[0]
    return "\n".join([f"## {names}\n", f"{first}\n", *(f"{part}\n" for part in parts)])


def _flat(cls: type, prefix: str = "") -> Iterator[Declared]:
    """The options of a dataclass and of those in it, by dotted keys."""
    for one in declared(cls):
        if one.nested:
            yield from _flat(one.kind, f"{prefix}{one.key}.")
        else:
            yield replace(one, rules=replace(one.rules, key=f"{prefix}{one.key}"))


def _table(options: Iterable[Declared], flags: bool = True, keys: bool = False) -> str:
    options = sorted(options, key=lambda one: one.rules.group != "")  # as in --help
    columns = [*(["Flag"] if flags else []), *(["YAML key"] if keys else []), "Default", "Meaning"]
    return "\n".join([_row(columns), _row(["---"] * len(columns)), *(_row(_cells(o, flags, keys)) for o in options)])


def _cells(one: Declared, flags: bool, keys: bool) -> list[str]:
    shown = "false" if one.default is False else shown_default(one)
    default = "required" if one.default is REQUIRED else _code(shown)
    notes = rules_text(one, "`")
    cells = [", ".join(map(_code, one.flags))] if flags else []
    cells += [_code(one.key or "")] if keys else []
    return [*cells, default, f"{one.rules.help} ({notes})" if notes else one.rules.help]


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def main(path: Path = FILE) -> None:
    with complete_file(path) as partial:
        partial.write_text(document(), encoding="utf-8")
    print(f"wrote {path}")


if __name__ == "__main__":
    run_script(main)
