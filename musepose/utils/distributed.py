"""Several processes at the same work, on one machine or on many, by torch.distributed as accelerate sets it up."""

from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor

Value = TypeVar("Value")
# A process that is done early waits for the others; the launcher ends all of them when one dies.
TIMEOUT = timedelta(days=30)


class ProcessGroup:
    """This process among `count`, one by default. Each method must be called by all processes of the group."""

    def __init__(self, rank: int = 0, count: int = 1, device: torch.device | None = None):
        self.rank, self.count, self.device = rank, count, device

    @classmethod
    def start(cls, device: torch.device) -> "ProcessGroup":
        """Join the processes that the launcher has started. `device` is the one that this process computes on."""
        from accelerate import PartialState

        state = PartialState(cpu=device.type == "cpu", timeout=TIMEOUT)
        return cls(state.process_index, state.num_processes, device)

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, in place; of equal shapes."""
        if self.count > 1:
            torch.distributed.all_reduce(tensor)
        return tensor

    def all_gather(self, tensor: Tensor) -> list[Tensor]:
        """Every process's tensor, of equal shapes, in the order of their ranks, on the CPU."""
        if self.count == 1:
            return [tensor.cpu()]
        received = [torch.empty_like(tensor, device=self.device) for _ in range(self.count)]
        torch.distributed.all_gather(received, tensor.to(self.device).contiguous())
        return [part.cpu() for part in received]

    def broadcast(self, value: Value) -> Value:
        """Process 0's value in all processes; it must be picklable."""
        if self.count == 1:
            return value
        box: list[Any] = [value]
        torch.distributed.broadcast_object_list(box, src=0, device=self.device)
        return box[0]

    def close(self) -> None:
        """Leave the group."""
        if self.count > 1:
            torch.distributed.destroy_process_group()
