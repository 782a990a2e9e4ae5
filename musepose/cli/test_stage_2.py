"""Renders the test cases of a YAML file: reference pictures animated by aligned pose videos.

    python test_stage_2.py --config ./configs/test_stage_2.yaml
    python test_stage_2.py --config my.yaml -W 512 -H 512 --skip 0 --output ./output/mine
    accelerate launch --num_processes 8 test_stage_2.py --config my.yaml

Every setting may also be given in the YAML under the flag's long name (--dtype as `weight_dtype`); flags override it.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from musepose.cli.flags import add_options, make_parser
from musepose.inference.options import Command, Settings
from musepose.utils import launch
from musepose.utils.options import build, option_specs


def parse(arguments: Sequence[str] | None) -> tuple[Path, dict[str, Any]]:
    """→ the config file, and the flags as texts by name; None means not given."""
    parser = make_parser("test_stage_2.py", __doc__)
    add_options(parser, [*option_specs(Command), *option_specs(Settings)])
    flags = vars(parser.parse_args(arguments))
    return build(Command, {"config": flags.pop("config")}).config, flags


def main(arguments: Sequence[str] | None = None, load: Callable | None = None) -> int:
    """Run test_stage_2.py; `load` makes the pipeline from a Plan. Returns the exit status."""
    config, flags = parse(arguments)
    from musepose.inference.cases import claim_folder, make_plan  # imported here, as --help needs no media libraries
    from musepose.inference.distributed_runner import run_distributed
    from musepose.inference.load import load_pipeline
    from musepose.inference.runner import run_plan

    alone = launch.world_size() == 1
    plan = make_plan(config, flags, datetime.now(), find_damage=alone)  # several processes share that
    if launch.rank() == 0:  # whose plan all processes use
        plan = claim_folder(plan)
    try:
        return (run_plan if alone else run_distributed)(plan, load or load_pipeline)
    finally:
        if launch.rank() == 0 and plan.settings.output is None and plan.jobs:
            with suppress(OSError):  # it is not empty
                for folder in list(plan.jobs[0].result.parents)[:3]:  # output/video-<date>/<time>…
                    folder.rmdir()
