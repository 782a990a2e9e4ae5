"""Renders the test cases of a YAML file: reference pictures in the poses of aligned pose videos.

    python test_stage_2.py --config ./configs/test_stage_2.yaml
    python test_stage_2.py --config my.yaml -W 512 -H 512 --skip 0 --output ./output/mine
    accelerate launch --num_processes 8 test_stage_2.py --config my.yaml

Every setting may also stand in the YAML under the flag's long name (the type as `weight_dtype`); a flag wins.
"""

import argparse
import os
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from musepose import launch
from musepose.cases import Plan, make_plan
from musepose.errors import Parser, UserError, run_script
from musepose.render import run_plan
from musepose.settings import SETTINGS
from musepose.sharing import run_shared


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


def load_pipeline(plan: Plan) -> Any:
    """Only here torch is imported: everything else was checked before."""
    # Where compiled layers outlive the run; the usual place is emptied when the machine starts.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(Path.home() / ".cache" / "musepose" / "compiled"))
    say = print if launch.rank() == 0 else lambda *_, **__: None
    say("loading the models", flush=True)
    from musepose.device import check_compiler, choose_device, choose_dtype
    from musepose.models.weights import WeightPaths, check_weights
    from musepose.pipeline import Pose2VideoPipeline
    from musepose.rehearsal import Work, choose_plan, meta_pipeline

    settings = plan.settings
    device = choose_device(settings.device)
    dtype = choose_dtype(settings.dtype, device)
    paths = WeightPaths(**plan.weights)
    check_weights(paths)
    if settings.compile:
        check_compiler(device)
    work = Work(settings.width, settings.height, *plan.longest, guided=settings.cfg > 1)
    memory, told = choose_plan(meta_pipeline(paths, dtype), work, settings.vram, device)
    say(told, flush=True)
    try:
        pipeline = Pose2VideoPipeline.from_published(paths, device, dtype, memory)
    except RuntimeError as error:  # torch's own OutOfMemoryError is one
        if "out of memory" not in str(error).lower():
            raise
        raise UserError(
            f"the models do not fit into the memory of {device}: take --vram low, --dtype fp16 or another --device"
        ) from error
    if settings.compile:
        pipeline.denoising_unet.compile_layers()
    return pipeline


def main(arguments: Sequence[str] | None = None, load: Callable[[Plan], Any] = load_pipeline) -> int:
    flags = vars(parse(arguments))
    plan = make_plan(flags.pop("config"), flags, datetime.now())
    return run_plan(plan, load) if launch.processes() == 1 else run_shared(plan, load)


if __name__ == "__main__":
    run_script(main)
