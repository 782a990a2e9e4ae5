"""Renders the test cases of a YAML file: reference pictures in the poses of aligned pose videos.

    python test_stage_2.py --config ./configs/test_stage_2.yaml
    python test_stage_2.py --config my.yaml -W 512 -H 512 --skip 0 --output ./output/mine
    accelerate launch --num_processes 8 test_stage_2.py --config my.yaml

Every setting may also stand in the YAML under the flag's long name (the type as `weight_dtype`); a flag wins.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from musepose.cli.flags import add_options, make_parser
from musepose.inference.options import Command, Settings
from musepose.utils import launch
from musepose.utils.options import build, declared


def parse(arguments: Sequence[str] | None) -> tuple[Path, dict[str, Any]]:
    """→ the config file, and the texts of the flags by name, None where one was not given."""
    parser = make_parser("test_stage_2.py", __doc__)
    add_options(parser, [*declared(Command), *declared(Settings)])
    flags = vars(parser.parse_args(arguments))
    return build(Command, {"config": flags.pop("config")}).config, flags


def main(arguments: Sequence[str] | None = None, load: Callable | None = None) -> int:
    """Run test_stage_2.py; `load` makes the pipeline from a Plan. Returns the exit status."""
    config, flags = parse(arguments)
    from musepose.inference.cases import make_plan  # here, as --help needs no media libraries
    from musepose.inference.distributed_runner import run_shared
    from musepose.inference.load import load_pipeline
    from musepose.inference.runner import run_plan

    plan = make_plan(config, flags, datetime.now())
    return (run_plan if launch.processes() == 1 else run_shared)(plan, load or load_pipeline)
