"""World size and ranks from the environment of `accelerate launch` or `torchrun`. Needs no torch."""

import os


def world_size() -> int:
    """Number of processes of this run."""
    return int(os.environ.get("WORLD_SIZE", 1))


def rank() -> int:
    """Index of this process among all."""
    return int(os.environ.get("RANK", 0))


def local_world_size() -> int:
    """Number of processes on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def local_rank() -> int:
    """Index of this process on its machine."""
    return int(os.environ.get("LOCAL_RANK", 0))
