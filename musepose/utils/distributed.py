"""Several processes at the same work, on one machine or on many, by torch.distributed as accelerate sets it up."""

from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor

Value = TypeVar("Value")
# Whoever is done early waits for the others as long as it takes; the launcher ends everybody when one of them dies.
PATIENCE = timedelta(days=30)


class Processes:
    """This process among `count`; alone by default. What is said of one is to be called by all of them."""

    def __init__(self, rank: int = 0, count: int = 1, device: torch.device | None = None):
        self.rank, self.count, self.device = rank, count, device

    @classmethod
    def start(cls, device: torch.device) -> "Processes":
        """Meet the others that the launcher has started. `device` is the one that this process computes on."""
        from accelerate import PartialState

        state = PartialState(cpu=device.type == "cpu", timeout=PATIENCE)
        return cls(state.process_index, state.num_processes, device)

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, in place; of equal shapes."""
        if self.count > 1:
            torch.distributed.all_reduce(tensor)
        return tensor

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """Every process's tensor, of equal shapes, in the order of their ranks, on the CPU."""
        if self.count == 1:
            return [tensor.cpu()]
        received = [torch.empty_like(tensor, device=self.device) for _ in range(self.count)]
        torch.distributed.all_gather(received, tensor.to(self.device).contiguous())
        return [part.cpu() for part in received]

    def agree(self, value: Value) -> Value:
        """Process 0's value for all; it must be picklable."""
        if self.count == 1:
            return value
        box: list[Any] = [value]
        torch.distributed.broadcast_object_list(box, src=0, device=self.device)
        return box[0]

    def finish(self) -> None:
        """Part from the others."""
        if self.count > 1:
            torch.distributed.destroy_process_group()
