"""Memory plans: chunk sizes and offloading. All plans give the same result."""

from dataclasses import dataclass, replace

import torch

from musepose.models.chunking import Chunks
from musepose.utils import launch

GIB = 2**30
RESERVE = 3 * GIB // 4  # not estimated: driver context, library workspaces, fragmentation


@dataclass(frozen=True)
class MemoryPlan:
    """A trade-off of memory and time."""

    name: str
    joint: bool  # both CFG branches in one UNet call, instead of one after the other
    chunks: Chunks  # chunked execution within the UNet
    offload: bool  # models are offloaded to the CPU while they are not in use
    decode_frames: int  # frames that the VAE decodes together
    keep_pose_features: int  # bytes: up to this size, pose features are cached between steps

    def for_device(self, device: torch.device) -> "MemoryPlan":
        """This plan for a device: on a CPU nothing is offloaded, and nothing is kept that grows with the video."""
        if device.type != "cpu":
            return self
        return replace(self, offload=False, keep_pose_features=0, chunks=replace(self.chunks, offload_skips=False))

    def __str__(self) -> str:
        parts = ["both CFG branches together" if self.joint else "one CFG branch at a time"]
        tokens = self.chunks.tokens
        parts.append("layers whole" if tokens is None else f"layers in chunks of {tokens} positions")
        if self.offload:
            parts.append("models offloaded")
        if self.chunks.offload_skips:
            parts.append("skip connections offloaded")
        return f"{self.name} ({', '.join(parts)})"


# From the most to the least memory.
PLANS = (
    MemoryPlan("high", True, Chunks(), False, 4, 2 * GIB),
    MemoryPlan("sequential", False, Chunks(), False, 2, 0),
    MemoryPlan("medium", False, Chunks(2**17), False, 1, 0),
    MemoryPlan("low", False, Chunks(2**16), True, 1, 0),
    MemoryPlan("least", False, Chunks(2**14, offload_skips=True), True, 1, 0),
)
BY_NAME = {plan.name: plan for plan in PLANS}
HIGH, LOW = BY_NAME["high"], BY_NAME["low"]


def smaller(plan: MemoryPlan, device: torch.device) -> MemoryPlan | None:
    """The next plan with less memory; None below the last one."""
    place = [known.name for known in PLANS].index(plan.name)
    return PLANS[place + 1].for_device(device) if place + 1 < len(PLANS) else None


def free_memory(device: torch.device) -> int:
    """Free bytes of a device; on the CPU, this process's share of the host's free memory."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    import psutil  # a dependency of accelerate

    return psutil.virtual_memory().available // launch.local_world_size()


def limit_memory(device: torch.device, gigabytes: float) -> None:
    """Limit this process's GPU memory: allocating more raises an out-of-memory error, which `within_memory` handles."""
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, gigabytes * GIB / total), device)
