"""Collective operations over the processes of a distributed run, by torch.distributed as set up by accelerate."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor

from musepose.utils.errors import SharedError, UserError

Value = TypeVar("Value")
# Long, as a process that finishes early waits for the others. The launcher ends all of them when one dies.
TIMEOUT = timedelta(days=30)
_kept: set[Any] = set()  # see keep_group


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

    def start_gather(self, tensor: Tensor) -> Callable[[], Tensor]:
        """Begin to gather tensors of equal shape: r … → a function that waits, and gives them by rank: n r ….

        On a GPU only the device waits. The tensor must not change before.
        """
        if self.count == 1:
            return lambda: tensor[None]
        tensor = tensor.contiguous()
        gathered = tensor.new_empty(self.count * len(tensor), *tensor.shape[1:])
        # The older name is deprecated from torch 2.13 on.
        gather = getattr(torch.distributed, "all_gather_single", None) or torch.distributed.all_gather_into_tensor
        work = gather(gathered, tensor, async_op=True)

        def finish() -> Tensor:
            work.wait()
            return gathered.unflatten(0, (self.count, -1))

        return finish

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

    def gather(self, value: Value) -> list[Value]:
        """Every process's value, which must be picklable, in all processes, by rank."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        torch.distributed.all_gather_object(values, value)
        return values

    def together(self, work: Callable[[], Value]) -> Value:
        """What `work` gives in this process. Raises SharedError in all processes if it raises UserError in one."""
        result, message = None, None
        try:
            result = work()
        except UserError as error:
            message = str(error)
        first = next((one for one in self.gather(message) if one is not None), None)
        if first is not None:
            raise SharedError(first)
        return result

    def close(self) -> None:
        """Destroy the process group."""
        if self.count > 1:
            torch.distributed.destroy_process_group()


def keep_group() -> None:
    """Keep torch's process group, if there is one, until the program ends. Call it before the model can be freed.

    Otherwise DistributedDataParallel may hold the last reference. Its destructor keeps the GIL and waits for gloo's
    thread, which waits for the GIL if it is releasing a tensor: a training would never end (seen with torch 2.13).
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        _kept.add(torch.distributed.group.WORLD)
