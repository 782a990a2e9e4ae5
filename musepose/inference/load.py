"""Loads the pipeline for a checked plan of test_stage_2.py, with the memory plan that fits."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from musepose.inference.cases import Plan
from musepose.utils import launch
from musepose.utils.errors import UserError, is_out_of_memory
from musepose.utils.home import use_compile_cache
from musepose.utils.reporter import CONSOLE, Reporter


@dataclass(frozen=True)
class Loading:
    """How to load the pipeline of a plan; nothing is loaded yet."""

    paths: Any  # models.weights.WeightPaths
    device: Any  # torch.device
    dtype: Any  # torch.dtype
    memory: Any  # memory.plan.MemoryPlan
    message: str  # about the memory plan


def plan_loading(plan: Plan) -> Loading:
    """Choose device, type and memory plan. Imports torch, reads the weight files' headers and checksums.

    Raises UserError: device, compiler, weights or sampling settings cannot be used, or no memory plan fits into --vram.
    """
    if plan.settings.compile:
        use_compile_cache()  # before torch is imported
    from musepose.inference.memory_estimate import Workload, choose_plan, meta_pipeline
    from musepose.models.weights import WeightPaths, check_weights
    from musepose.utils.device import check_compiler, choose_device, choose_dtype

    settings = plan.settings
    device = choose_device(settings.device)
    dtype = choose_dtype(settings.dtype, device)
    paths = WeightPaths(**plan.weights)
    check_weights(paths)
    if settings.compile:
        check_compiler(device)
    window, length = plan.longest
    shape = (*plan.largest, window, length)
    how = (settings.cfg > 1, settings.context_overlap, settings.sampling)
    work = Workload(*shape, *how, processes=1 if settings.split == "cases" else launch.world_size())
    estimated = meta_pipeline(paths, dtype, settings.scheduler)
    try:
        estimated.check(settings.sampling)
    except ValueError as error:
        raise UserError(f"{error}: change -W, -H, -S, --steps or --cache_branch") from None
    return Loading(paths, device, dtype, *choose_plan(estimated, work, settings.vram, device))


def load_pipeline(plan: Plan, reporter: Reporter = CONSOLE) -> Any:
    """Choose device and memory plan, and load the models. Imports torch; all other input has been checked before.

    Raises UserError as `plan_loading` does, and if the models do not fit in memory.
    """
    say = reporter.say if launch.rank() == 0 else lambda _: None
    say("loading the models")
    loading, settings = plan_loading(plan), plan.settings
    say(loading.message)
    from musepose.memory.plan import limit_memory
    from musepose.pipelines.pose2video import Pose2VideoPipeline

    if isinstance(settings.vram, float):
        limit_memory(loading.device, settings.vram)

    def load(memory: Any) -> Pose2VideoPipeline:
        return Pose2VideoPipeline.from_published(
            loading.paths, loading.device, loading.dtype, memory, settings.scheduler
        )

    pipeline = load_within_memory(load, loading.memory, loading.device)
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
