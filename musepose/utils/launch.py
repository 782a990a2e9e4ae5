"""What `accelerate launch` or `torchrun` tell each of the processes that they start. Needs no torch."""

import os


def processes() -> int:
    """How many processes work on this run."""
    return int(os.environ.get("WORLD_SIZE", 1))


def rank() -> int:
    """This process's number among all."""
    return int(os.environ.get("RANK", 0))


def local_processes() -> int:
    """How many of them share this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def local_rank() -> int:
    """This process's number on its machine."""
    return int(os.environ.get("LOCAL_RANK", 0))
