"""Several processes at the same work, on one machine or on many, by torch.distributed as accelerate sets it up.

`accelerate launch` and `torchrun` start the script once for each process and tell it so in the environment. One
process alone needs nothing of this.
"""

import os
from typing import Any, TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")


def launched() -> int:
    """How many processes a launcher has started for this run."""
    return int(os.environ.get("WORLD_SIZE", 1))


def local_rank() -> int:
    """This process's number on its machine."""
    return int(os.environ.get("LOCAL_RANK", 0))


class Processes:
    """This process among `count`; alone by default."""

    def __init__(self, rank: int = 0, count: int = 1, device: torch.device | None = None):
        self.rank, self.count, self.device = rank, count, device

    @classmethod
    def start(cls, device: torch.device) -> "Processes":
        """Meet the others. `device` is what this process computes on: collective work happens there."""
        from accelerate import PartialState

        state = PartialState(cpu=device.type == "cpu")
        return cls(state.process_index, state.num_processes, device)

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, in place; every process must call it with the same shape."""
        if self.count > 1:
            torch.distributed.all_reduce(tensor)
        return tensor

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """Every process's tensor, of equal shapes, in the order of their ranks, on the CPU."""
        if self.count == 1:
            return [tensor.cpu()]
        there = [torch.empty_like(tensor, device=self.device) for _ in range(self.count)]
        torch.distributed.all_gather(there, tensor.to(self.device).contiguous())
        return [part.cpu() for part in there]

    def agree(self, value: Result) -> Result:
        """Process 0's value, for all of them; it must be picklable."""
        if self.count == 1:
            return value
        box: list[Any] = [value]
        torch.distributed.broadcast_object_list(box, src=0, device=self.device)
        return box[0]

    def finish(self) -> None:
        if self.count > 1:
            torch.distributed.destroy_process_group()
