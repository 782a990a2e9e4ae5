"""Reproducible random generators."""

import torch


def seeded_generator(*numbers: int) -> torch.Generator:
    """A CPU generator seeded by all the numbers: the same numbers give the same samples on every machine."""
    seed = 0
    for number in numbers:  # a hash with the constants of Knuth's MMIX generator
        seed = (seed * 6364136223846793005 + number + 1442695040888963407) % (1 << 63)
    return torch.Generator("cpu").manual_seed(seed)
