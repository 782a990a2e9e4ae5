"""Evaluates videos against ground truth: PSNR, SSIM, temporal change, and network metrics if weights are given.

    python evaluate.py --pairs result.mp4 truth.mp4 --json scores.json
    python evaluate.py --pairs results/ truth/ --resize --poses
    python evaluate.py --pairs pairs.csv --lpips lpips_alex.pt --fvd i3d_torchscript.pt

Evaluates puppet weights on characters that are not in the training data:

    python evaluate.py --puppets --json output/puppets.json --filmstrip output/puppets.png
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from musepose.cli.flags import add_option, given, make_parser
from musepose.evaluation.options import PairOptions
from musepose.pose.options import DetectorFiles
from musepose.utils.errors import UserError
from musepose.utils.files import check_writable
from musepose.utils.options import OptionSpec, build, option_specs, shown_default
from puppet.options import Options, Outputs


def option_groups() -> dict[str, list[OptionSpec]]:
    """The options by the mode that they belong to, without --pairs and --puppets."""
    pairs = {one.name: one for one in option_specs(PairOptions) if one.name != "pairs"}
    puppets = {one.name: one for one in (*option_specs(Options), *option_specs(Outputs))}
    both = [name for name in pairs if name in puppets]
    return {
        "for both": [_with_both_defaults(pairs[name], puppets[name]) for name in both],
        "for --pairs": [one for one in pairs.values() if one.name not in both],
        "for --puppets": [one for one in puppets.values() if one.name not in both],
    }


def _with_both_defaults(pairs: OptionSpec, puppets: OptionSpec) -> OptionSpec:
    """The option of --pairs; its help adds the default of --puppets if that differs."""
    if pairs.default == puppets.default:
        return pairs
    help_text = f"{pairs.rules.help}; with --puppets by default {shown_default(puppets)}"
    return replace(pairs, rules=replace(pairs.rules, help=help_text))


def parse(arguments: Sequence[str] | None) -> tuple[PairOptions | None, Options | None, Outputs | None]:
    """→ the options of --pairs, or options and outputs of --puppets; the others are None."""
    parser = make_parser("evaluate.py", __doc__)
    task = parser.add_mutually_exclusive_group(required=True)
    add_option(task, next(one for one in option_specs(PairOptions) if one.name == "pairs"))
    task.add_argument("--puppets", action="store_true", help="evaluate puppet weights")
    groups = option_groups()
    for title, options in groups.items():
        group = parser.add_argument_group(title)
        for one in options:
            add_option(group, one)
    flags = given(parser.parse_args(arguments))
    other = "--pairs" if "puppets" in flags else "--puppets"
    for one in groups[f"for {other}"]:
        if one.name in flags:
            raise UserError(f"{one.flags[0]} belongs to {other}: leave it out")
    if "puppets" in flags:
        return None, build(Options, flags), build(Outputs, flags)
    _check_together(flags)
    return build(PairOptions, flags), None, None


def _check_together(flags: dict[str, Any]) -> None:
    needs = {one.name: "poses" for one in option_specs(DetectorFiles)} | {"fvd_frames": "fvd"}
    for name, user in needs.items():
        if name in flags and user not in flags:
            raise UserError(f"--{name} has no effect without --{user}: give both or neither")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run evaluate.py. Returns the exit status."""
    pairs, puppets, outputs = parse(arguments)
    if pairs:
        _check_output(pairs.json, ".json")
        from musepose.evaluation.run import run_pairs  # imported here, as --help needs no media libraries

        return run_pairs(pairs)
    _check_output(outputs.json, ".json")
    _check_output(outputs.filmstrip, ".png")
    from puppet.evaluate import run_and_report

    return run_and_report(puppets, outputs)


def _check_output(path: Path | None, suffix: str) -> None:
    if path is not None:
        if path.suffix.lower() != suffix:
            raise UserError(f"cannot write {path.name}: end its name in {suffix}")
        check_writable(path)
