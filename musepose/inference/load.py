"""The pipeline from its files, by the memory plan that fits."""

import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from musepose.inference.cases import Plan
from musepose.utils import launch
from musepose.utils.errors import UserError, is_out_of_memory


def load_pipeline(plan: Plan) -> Any:
    """Only here torch is imported: everything else was checked before."""
    # Where compiled layers outlive the run; the usual place is emptied when the machine starts.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(Path.home() / ".cache" / "musepose" / "compiled"))
    say = print if launch.rank() == 0 else lambda *_, **__: None
    say("loading the models", flush=True)
    from musepose.inference.memory_estimate import Work, choose_plan, meta_pipeline
    from musepose.memory.plan import limit_memory
    from musepose.models.weights import WeightPaths, check_weights
    from musepose.pipelines.pose2video import Pose2VideoPipeline
    from musepose.utils.device import check_compiler, choose_device, choose_dtype

    settings = plan.settings
    device = choose_device(settings.device)
    dtype = choose_dtype(settings.dtype, device)
    paths = WeightPaths(**plan.weights)
    check_weights(paths)
    if settings.compile:
        check_compiler(device)
    window, length = plan.longest
    work = Work(settings.width, settings.height, window, length, settings.cfg > 1, settings.context_overlap)
    rehearsed = meta_pipeline(paths, dtype)
    try:
        rehearsed.check(*work.size, settings.steps, settings.context_frames, settings.context_overlap)
    except ValueError as error:
        raise UserError(f"{error}: change -W, -H, -S or --steps") from None
    memory, told = choose_plan(rehearsed, work, settings.vram, device)
    say(told, flush=True)
    if isinstance(settings.vram, float):
        limit_memory(device, settings.vram)
    pipeline = load_within_memory(partial(Pose2VideoPipeline.from_published, paths, device, dtype), memory, device)
    if settings.compile:
        pipeline.denoising_unet.compile_layers()
    return pipeline


def load_within_memory(load: Callable[[Any], Any], memory: Any, device: Any) -> Any:
    """Load by a MemoryPlan, else by `low`, with which models wait on the CPU. Raises UserError: nor does that fit."""
    from musepose.memory.plan import LOW

    for plan in dict.fromkeys([memory, LOW.for_device(device)]):
        try:
            return load(plan)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            # Only its text: the error holds on to what was loaded.
            told = f"the models do not fit into the memory of {device}: take --dtype fp16 or another --device"
        print(f"{told.split(':')[0]}: trying with --vram low", file=sys.stderr, flush=True)
    raise UserError(told)
