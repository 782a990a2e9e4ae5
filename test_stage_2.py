"""Renders the test cases of a YAML file: reference pictures in the poses of aligned pose videos.

    python test_stage_2.py --config ./configs/test_stage_2.yaml
    python test_stage_2.py --config my.yaml -W 512 -H 512 --skip 0 --output ./output/mine
    accelerate launch --num_processes 8 test_stage_2.py --config my.yaml

Every setting may also stand in the YAML under the flag's long name (the type as `weight_dtype`); a flag wins.
"""

import argparse
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from musepose.cli.entry import Parser, run_script
from musepose.inference.cases import Plan, make_plan
from musepose.inference.distributed_runner import run_shared
from musepose.inference.load import load_pipeline
from musepose.inference.options import SETTINGS
from musepose.inference.runner import run_plan
from musepose.utils import launch


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="test_stage_2.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", type=Path, default=Path("configs/test_stage_2.yaml"), help="the YAML file")
    for setting in SETTINGS:
        default = "" if setting.kind is bool or setting.default is None else f" (default {setting.default})"
        how = {"action": "store_true", "default": None} if setting.kind is bool else {"metavar": "X"}
        parser.add_argument(*setting.flags, help=setting.help + default, **how)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None, load: Callable[[Plan], Any] = load_pipeline) -> int:
    flags = vars(parse(arguments))
    plan = make_plan(flags.pop("config"), flags, datetime.now())
    return run_plan(plan, load) if launch.processes() == 1 else run_shared(plan, load)


if __name__ == "__main__":
    run_script(main)
