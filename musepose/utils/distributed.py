"""Collective operations over the processes of a distributed run, by torch.distributed as set up by accelerate."""

from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor

Value = TypeVar("Value")
# Long, as a process that finishes early waits for the others. The launcher ends all of them when one dies.
TIMEOUT = timedelta(days=30)


class ProcessGroup:
    """This process, `rank` of `count`, and collective operations, which every process of the group must call."""

    def __init__(self, rank: int = 0, count: int = 1, device: torch.device | None = None):
        self.rank, self.count, self.device = rank, count, device

    @classmethod
    def start(cls, device: torch.device) -> "ProcessGroup":
        """Join the process group of the launcher. `device` is this process's device.

        Raises UserError: another process does not come.
        """
        from accelerate import PartialState

        from musepose.utils.meeting import meet

        meet()
        state = PartialState(cpu=device.type == "cpu", timeout=TIMEOUT)
        return cls(state.process_index, state.num_processes, device)

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """Sum tensors of equal shape over all processes, in place."""
        if self.count > 1:
            torch.distributed.all_reduce(tensor)
        return tensor

    def barrier(self) -> None:
        """Wait until all processes are here."""
        self.all_reduce(torch.zeros(1, device=self.device)).item()

    def broadcast(self, value: Value) -> Value:
        """Rank 0's value, which must be picklable, in all processes."""
        if self.count == 1:
            return value
        box: list[Any] = [value]
        torch.distributed.broadcast_object_list(box, src=0, device=self.device)
        return box[0]

    def close(self) -> None:
        """Destroy the process group."""
        if self.count > 1:
            torch.distributed.destroy_process_group()
