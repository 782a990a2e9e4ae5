"""Loads the pipeline for a checked plan of test_stage_2.py, with the memory plan that fits."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from musepose.inference.cases import Plan
from musepose.utils import launch
from musepose.utils.errors import UserError, is_out_of_memory


def load_pipeline(plan: Plan) -> Any:
    """Choose device and memory plan, and load the models. Imports torch; all other input has been checked before.

    Raises UserError: device, compiler, weights or sampling settings cannot be used, or the models do not fit in memory.
    """
    # Cache of compiled layers; torch's default is in /tmp, which is cleared when the machine starts.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(Path.home() / ".cache" / "musepose" / "compiled"))
    say = print if launch.rank() == 0 else lambda *_, **__: None
    say("loading the models", flush=True)
    from musepose.inference.memory_estimate import Workload, choose_plan, meta_pipeline
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
    work = Workload(settings.width, settings.height, window, length, settings.cfg > 1, settings.context_overlap)
    estimated = meta_pipeline(paths, dtype, settings.scheduler)
    try:
        estimated.check(settings.sampling)
    except ValueError as error:
        raise UserError(f"{error}: change -W, -H, -S or --steps") from None
    memory, message = choose_plan(estimated, work, settings.vram, device)
    say(message, flush=True)
    if isinstance(settings.vram, float):
        limit_memory(device, settings.vram)

    def load(memory: Any) -> Pose2VideoPipeline:
        return Pose2VideoPipeline.from_published(paths, device, dtype, memory, settings.scheduler)

    pipeline = load_within_memory(load, memory, device)
    if settings.compile:
        pipeline.denoising_unet.compile_layers()
    return pipeline


def load_within_memory(load: Callable[[Any], Any], memory: Any, device: Any) -> Any:
    """Load with a MemoryPlan; if out of memory, with `low`, which offloads models. Raises UserError: neither fits."""
    from musepose.memory.plan import LOW

    plans = list(dict.fromkeys([memory, LOW.for_device(device)]))
    problem = f"the models do not fit into the memory of {device}"
    for attempt, plan in enumerate(plans, 1):
        try:
            return load(plan)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Outside the handler, as the exception keeps the loaded models alive.
        if attempt < len(plans):
            print(f"{problem}: trying with --vram low", file=sys.stderr, flush=True)
    raise UserError(f"{problem}: take --dtype fp16 or another --device")
