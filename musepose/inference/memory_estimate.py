"""Memory estimate: the peak memory of each memory plan, and the plan that fits, by a dry run on the meta device.

The models are on torch's meta device, whose tensors have shapes but no data; a dispatch mode counts live memory.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from musepose.memory.live_memory import LiveMemory, MetaDeviceMode
from musepose.memory.offload import ModelOffloader
from musepose.memory.plan import BY_NAME, GIB, PLANS, RESERVE, MemoryPlan, free_memory
from musepose.models.weights import WeightPaths, empty_models, scheduler_config
from musepose.pipelines.denoising import Denoiser, PoseFeatures
from musepose.pipelines.forecast import KEPT_STEPS
from musepose.pipelines.guidance import Guide
from musepose.pipelines.options import SamplingOptions
from musepose.pipelines.pose2video import Pose2VideoPipeline
from musepose.pipelines.schedulers import make_scheduler
from musepose.pipelines.steps import Step, plan_steps
from musepose.utils.distributed import ProcessGroup
from musepose.utils.errors import UserError

SOLVER_STEPS = 4  # after these, a multi-step solver's history is full


class _MetaPoseFrames:
    """PoseFrames without data."""

    def __init__(self, width: int, height: int):
        self._shape = (3, height, width)

    def read(self, window: range) -> Tensor:
        return torch.empty(len(window), *self._shape, dtype=torch.uint8, device="meta")


@dataclass(frozen=True)
class Workload:
    """The largest video of a run."""

    width: int
    height: int
    window: int  # frames denoised together
    video_length: int
    guided: bool
    overlap: int = 0
    sampling: SamplingOptions = SamplingOptions()  # the rest: guidance_every, the cache and the shift take memory
    processes: int = 1  # that share a video

    @property
    def options(self) -> SamplingOptions:
        return replace(
            self.sampling,
            width=self.width,
            height=self.height,
            guidance_scale=2.0 if self.guided else 1.0,
            context_frames=self.window,
            context_overlap=min(self.overlap, self.window - 1),
            tail="flush",  # video_length is with padding
        )

    @property
    def windows(self) -> list[range]:
        """All that occur in any step."""
        return list(dict.fromkeys(window for step in self.steps for window in step.windows))

    @property
    def steps(self) -> list[Step]:
        return plan_steps(self.options, self.video_length)


def meta_pipeline(paths: WeightPaths, dtype: torch.dtype, scheduler: str = "ddim") -> Pose2VideoPipeline:
    """The pipeline of these files on the meta device. Raises UserError as `from_published` does."""
    schedule = make_scheduler(scheduler_config(paths), scheduler)
    models = {name: nn.Module.to(model, "meta", dtype).eval() for name, model in empty_models(paths)}
    return Pose2VideoPipeline(**models, scheduler=schedule)


def choose_plan(
    pipeline: Pose2VideoPipeline,  # on the meta device, in the sampling dtype
    work: Workload,
    vram: str | float,  # auto, high, low, or GB
    device: torch.device,
) -> tuple[MemoryPlan, str]:
    """→ the largest plan that fits, and a message about it.

    If none fits into the free memory, the smallest. Raises UserError: none fits into a given number of GB.
    """
    if vram in BY_NAME:
        plan = BY_NAME[vram].for_device(device)
        return plan, f"memory: {plan}, as asked for"
    room = free_memory(device) if vram == "auto" else int(vram * GIB)
    of = f"{room / GIB:.1f} GB " + ("free" if vram == "auto" else "allowed (--vram)")
    for plan in PLANS:
        plan = plan.for_device(device)
        need = max(peak_bytes(pipeline, plan, work).values()) + RESERVE
        if need <= room:
            return plan, f"memory: {plan}: about {need / GIB:.1f} of {of}"
    size = f"{work.width} x {work.height}, {work.window} frames together"
    if vram == "auto":
        return (
            plan,
            f"memory: {plan}: {size} takes about {need / GIB:.1f} GB, more than {of}: trying",
        )
    least = math.ceil(10 * need / GIB) / 10
    raise UserError(f"--vram {vram:g}: {size} takes about {least} GB: allow so much, or lower -W, -H or -S")


def peak_bytes(pipeline: Pose2VideoPipeline, plan: MemoryPlan, work: Workload) -> dict[str, int]:
    """→ the peak memory of each sampling stage in bytes, models included. `pipeline` as in `choose_plan`."""
    models = pipeline.models()
    stages = {}

    def stage(name: str, *needed: str, kept: Iterable[Tensor] = ()) -> LiveMemory:
        present = [models[n] for n in needed] if plan.offload else models.values()
        weights = [tensor for model in present for tensor in _tensors(model)]
        stages[name] = LiveMemory([*weights, *kept])
        return stages[name]

    offloader = ModelOffloader(pipeline.models, None, replace(plan, offload=False))
    factor = pipeline.vae_scale_factor
    plane = (pipeline.denoising_unet.config.in_channels, work.height // factor, work.width // factor)
    empty = {"dtype": pipeline.denoising_unet.dtype, "device": "meta"}
    with torch.no_grad(), MetaDeviceMode():
        token = torch.empty(1, 1, pipeline.image_encoder.config.projection_dim, **empty)
        pixels, reference = torch.empty(1, 3, work.height, work.width, **empty), torch.empty(1, *plane, **empty)
        stage("embedding", "image_encoder")
        with stage("encoding", "vae", kept=[pixels]):
            pipeline.vae.encode(pixels)
        with stage("reference", "reference_unet", kept=[reference, token]):
            features = pipeline.reference_features(reference, token)
        with stage("preparing", "denoising_unet", "pose_guider", kept=features):
            contexts = pipeline.contexts(token, features, work.guided)
        del features
        latents = torch.empty(work.video_length, *plane, **empty)
        constant = [t for context in contexts for block in context for t in (block.text, *(block.reference or ()))]
        options, steps, windows = work.options, work.steps, work.windows
        window = range(min(work.window, work.video_length))
        poses = PoseFeatures(pipeline.pose_guider, _MetaPoseFrames(work.width, work.height), windows, offloader)
        arguments = (pipeline.denoising_unet, contexts, poses, offloader, ProcessGroup(), options.blend)
        denoiser = Denoiser(*arguments, options.shallow_layers)
        guide = Guide(options.guidance_scale, options.guidance_every > 1)
        first = replace(steps[0], windows=(window,), shares=(((window, steps[0].branches),),))
        scheduler = pipeline.scheduler
        scheduler.set_timesteps(SOLVER_STEPS + 1)
        with stage("denoising", "denoising_unet", "pose_guider", kept=[latents, *constant]) as memory:
            # Fill the solver's history first, so that it counts in the UNet's peak.
            for timestep in scheduler.timesteps[:SOLVER_STEPS]:
                scheduler.scale_model_input(latents, timestep)  # required by EulerDiscreteScheduler.step
                latents = scheduler.step(torch.empty_like(latents), timestep, latents, return_dict=False)[0]
            predictions = denoiser(scheduler.scale_model_input(latents, timestep), 500.0, first)
            scheduler.step(guide(predictions, first), scheduler.timesteps[-1], latents)
        if work.processes > 1:  # predictions of a part, of this process and gathered from all
            memory.peak += (work.processes + 1) * len(steps[0].branches) * latents[: len(window)].nbytes
        # Cached pose features and deep features of all windows; those of this window are counted already.
        kept = sum(features.nbytes for features in poses.kept.values())
        memory.peak += kept * (sum(map(len, windows)) - len(window)) // len(window)
        if not plan.offload:
            kept = sum(value.nbytes for history in denoiser.deep.kept.values() for _, value in history.values)
            most = max(sum(map(len, step.windows)) for step in steps)
            memory.peak += kept * (KEPT_STEPS * most - len(window)) // len(window)
        del contexts, constant, poses, denoiser, predictions, guide, arguments
        pipeline.scheduler.set_timesteps(SOLVER_STEPS)  # clears the solver's history
        with stage("decoding", "vae", kept=[latents]):
            (pipeline.vae.decode(latents[: plan.decode_frames]).sample / 2 + 0.5).clamp(0, 1).float()
    return {name: memory.peak for name, memory in stages.items()}


def _tensors(model: nn.Module) -> Iterable[Tensor]:
    yield from model.parameters()
    yield from model.buffers()
