"""How much memory a memory plan takes, and which plan fits: found out by going through the work without computing.

The models stand on torch's meta device, whose tensors have shapes and no numbers; what would be alive at a time is
counted. Fused attention is taken as such: it holds no matrix of weights.
"""

import math
import weakref
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from musepose.memory.offload import Residency
from musepose.memory.plan import BY_NAME, GIB, PLANS, RESERVE, MemoryPlan, free_memory
from musepose.models.weights import WeightPaths, empty_models
from musepose.pipelines.context_windows import windows
from musepose.pipelines.denoising import Denoiser, PoseGuide
from musepose.pipelines.pose2video import Pose2VideoPipeline
from musepose.utils.distributed import Processes
from musepose.utils.errors import UserError


class LiveMemory(TorchDispatchMode):
    """Counts the bytes of all storages that operations bring about, as long as anything refers to them."""

    def __init__(self, resident: Iterable[Tensor] = ()):
        super().__init__()
        self.live = self.peak = 0
        self._known: set[int] = set()
        for tensor in resident:
            self._see(tensor)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._see(leaf)
        return result

    def _see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._forget, key, size).atexit = False

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


class Pretence(TorchFunctionMode):
    """What the meta device does otherwise than a real one.

    It would take attention for plain products, with a matrix of weights that no fused kernel holds. And nothing can
    leave it for the CPU: what waits there is a tensor of that shape with nothing in it, and a real one when it is back.
    """

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is F.scaled_dot_product_attention:
            query, value = args[0], (args[2] if len(args) > 2 else kwargs["value"])
            return query.new_empty(*query.shape[:-1], value.shape[-1])
        if function is Tensor.to:
            target = args[1] if len(args) > 1 else (kwargs or {}).get("device")
            if str(target) == "cpu":
                return args[0].new_empty(1).expand(args[0].shape)
            if target is not None and args[0].ndim and not any(args[0].stride()):
                return args[0].contiguous()
        return function(*args, **(kwargs or {}))


class _BlankPoses:
    """Stands for PoseFrames."""

    def __init__(self, width: int, height: int):
        self._shape = (3, height, width)

    def read(self, window: range) -> Tensor:
        return torch.empty(len(window), *self._shape, dtype=torch.uint8, device="meta")


@dataclass(frozen=True)
class Work:
    """The largest that is to be done."""

    width: int
    height: int
    window: int  # frames denoised together
    video_length: int
    guided: bool
    overlap: int = 0

    @property
    def size(self) -> tuple[int, int]:
        return self.width, self.height

    @property
    def spans(self) -> list[range]:
        return list(windows(self.video_length, self.window, min(self.overlap, self.window - 1)))


def meta_pipeline(paths: WeightPaths, dtype: torch.dtype) -> Pose2VideoPipeline:
    """The pipeline that these files make, without their numbers."""
    models = {name: nn.Module.to(model, "meta", dtype).eval() for name, model in empty_models(paths)}
    return Pose2VideoPipeline(**models, scheduler=DDIMScheduler())


def choose_plan(
    pipeline: Pose2VideoPipeline,  # on the meta device, in the sampling dtype
    work: Work,
    vram: str | float,  # auto, high, low, or GB
    device: torch.device,
) -> tuple[MemoryPlan, str]:
    """→ the first plan, from the largest on, that fits, and a sentence about it.

    Raises UserError where none fits a number given. Where none fits into what is free, the smallest is tried.
    """
    if vram in BY_NAME:
        plan = BY_NAME[vram].for_device(device)
        return plan, f"memory: {plan}, as asked for"
    room = free_memory(device) if vram == "auto" else int(vram * GIB)
    of = f"{room / GIB:.1f} GB " + ("that are free" if vram == "auto" else "allowed (--vram)")
    for plan in PLANS:
        plan = plan.for_device(device)
        need = max(peak_bytes(pipeline, plan, work).values()) + RESERVE
        if need <= room:
            return plan, f"memory: {plan}: about {need / GIB:.1f} of the {of}"
    size = f"{work.width} x {work.height}, {work.window} frames together"
    if vram == "auto":
        return plan, f"memory: {plan}: {size} takes about {need / GIB:.1f} GB, more than the {of}; trying"
    least = math.ceil(10 * need / GIB) / 10
    raise UserError(f"--vram {vram:g}: {size} takes about {least} GB: allow so much, or lower -W, -H or -S")


def peak_bytes(pipeline: Pose2VideoPipeline, plan: MemoryPlan, work: Work) -> dict[str, int]:
    """→ what each stage of a sampling holds at its peak, its models included. `pipeline` as in `choose_plan`."""
    models = pipeline.residency.models
    stages = {}

    def stage(name: str, *needed: str, kept: Iterable[Tensor] = ()) -> LiveMemory:
        present = [models[n] for n in needed] if plan.offload else models.values()
        weights = [tensor for model in present for tensor in _tensors(model)]
        stages[name] = LiveMemory([*weights, *kept])
        return stages[name]

    residency = Residency(models, None, replace(plan, offload=False))
    factor = pipeline.vae_scale_factor
    plane = (pipeline.denoising_unet.config.in_channels, work.height // factor, work.width // factor)
    empty = {"dtype": pipeline.denoising_unet.dtype, "device": "meta"}
    with torch.no_grad(), Pretence():
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
        window = range(min(work.window, work.video_length))
        guide = PoseGuide(pipeline.pose_guider, _BlankPoses(work.width, work.height), work.spans, residency)
        denoiser = Denoiser(pipeline.denoising_unet, contexts, guide, [window], residency, Processes())
        with stage("denoising", "denoising_unet", "pose_guider", kept=[latents, *constant]) as memory:
            for _ in denoiser(latents, 500.0):
                pass
        # Features that are kept for all windows, of which this one has been counted.
        kept = sum(features.nbytes for features in guide.kept.values())
        memory.peak += kept * (sum(map(len, work.spans)) - len(window)) // len(window)
        del contexts, constant, guide, denoiser
        with stage("decoding", "vae", kept=[latents]):
            (pipeline.vae.decode(latents[: plan.decode_frames]).sample / 2 + 0.5).clamp(0, 1).float()
    return {name: memory.peak for name, memory in stages.items()}


def _tensors(model: nn.Module) -> Iterable[Tensor]:
    yield from model.parameters()
    yield from model.buffers()
