"""World size and ranks from the environment of `accelerate launch` or `torchrun`. Needs no torch.

All raise UserError if the environment holds something else.
"""

import os

from musepose.utils.errors import UserError, shown

MOST_PROCESSES = 1_000_000


def world_size() -> int:
    """Number of processes of this run."""
    return _number("WORLD_SIZE", 1, low=1)


def rank() -> int:
    """Index of this process among all."""
    return _number("RANK", 0)


def local_world_size() -> int:
    """Number of processes on this machine."""
    return _number("LOCAL_WORLD_SIZE", 1, low=1)


def local_rank() -> int:
    """Index of this process on its machine."""
    return _number("LOCAL_RANK", 0)


def check() -> None:
    """Raises UserError: the variables hold no numbers, or do not fit each other."""
    if rank() >= world_size():
        raise UserError(f"RANK is {rank()}, but WORLD_SIZE {world_size()}: unset them, or start by accelerate launch")
    if local_rank() >= max(local_world_size(), world_size()):
        raise UserError(f"LOCAL_RANK is {local_rank()}, but WORLD_SIZE {world_size()}: unset them")


def _number(name: str, default: int, low: int = 0) -> int:
    text = os.environ.get(name, "").strip()
    if not text:
        return default
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else -1
    if not low <= number <= MOST_PROCESSES:
        raise UserError(f"the environment variable {name} is {shown(text)}, no number of a process: unset it")
    return number
