"""Bounds of rounding errors: how far two correct computations may be apart, by the type, the sums and the sizes.

One rounding errs by at most u, half the type's epsilon, of a value: u/√3 in the root mean square, with a sign as good
as random. Errors in a row add up as a random walk does (N. J. Higham and T. Mary, "A New Approach to Probabilistic
Rounding Error Analysis", 2019). Two processors, or two orders of the same sums, are √2 of that apart. A bound is MARGIN
times what is expected. Nothing is fitted to what a machine was seen to do; test_tolerance.py plants faults.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import Tensor, nn

MARGIN = 5
PLANTED = 2.0**-14  # far above float32's rounding, and small enough that errors add up linearly


def unit(dtype: torch.dtype) -> float:
    """Largest relative error of one rounding."""
    return torch.finfo(dtype).eps / 2


def rounding(
    roundings: float,  # in a row, on the way to the result
    scale: float = 1.0,  # largest value on the way
    dtype: torch.dtype = torch.float32,
) -> float:
    """Bound for the largest error of plain arithmetic: each rounding counts as u, not as its root mean square."""
    return MARGIN * (2 * roundings) ** 0.5 * unit(dtype) * scale


# Of coordinates, in float64: pixels below a thousand, after at most a hundred roundings in a row.
POINTS = rounding(100, 1000, torch.float64)


def near(expected: object, bound: float = POINTS) -> object:
    """What equals numbers that are at most `bound` from `expected`, which may be a list or a dict of them."""
    return pytest.approx(expected, rel=0, abs=bound)


def assert_near(found: np.ndarray, expected: np.ndarray, bound: float = POINTS) -> None:
    """No number is further than `bound` from its expected one."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=bound)


def variance(layer: nn.Module, result: Tensor, dtype: torch.dtype) -> float:
    """Of the errors in one layer's result, in units of (u · its root mean square)²: 1/3 for each rounding in a row.

    A sum of k terms takes k roundings, of partial sums whose squares are half the result's on average. Half precision
    is summed in float32: what counts is that weights and results are rounded to it.
    """
    if isinstance(layer, nn.GroupNorm | nn.LayerNorm):
        terms = result[0].numel() / layer.num_groups if isinstance(layer, nn.GroupNorm) else result.shape[-1]
    elif isinstance(layer, nn.Conv2d | nn.Linear):
        terms = layer.weight[0].numel()
    else:
        return 1 / 3
    return terms / 6 if torch.finfo(dtype).bits >= 32 else 2 / 3


@contextmanager
def planted_errors(networks: tuple[nn.Module, ...], dtype: torch.dtype) -> Iterator[None]:
    """Add random errors to every layer, as arithmetic of `dtype` would with PLANTED as its u; to gradients too."""
    generator = torch.Generator().manual_seed(0)

    def error(exact: Tensor, expected: float) -> Tensor:
        size = PLANTED * expected**0.5 * exact.detach().square().mean().sqrt()
        return size * torch.randn(exact.shape, generator=generator)

    def spoil(layer: nn.Module, _, result: Tensor) -> Tensor:
        expected = variance(layer, result, dtype)
        if result.requires_grad:
            result.register_hook(lambda gradient: gradient + error(gradient, expected))
            sums.update({p: result.numel() / len(p) / 6 for p in layer.parameters()})
        return result + error(result, expected)

    sums: dict[Tensor, float] = {}  # variances of the parameters' gradients, which are sums over samples and places
    layers = [layer for network in networks for layer in network.modules() if not [*layer.children()]]
    hooks = [layer.register_forward_hook(spoil) for layer in layers]
    trained = {p for layer in layers for p in layer.parameters() if p.requires_grad}
    hooks += [p.register_hook(lambda gradient, p=p: gradient + error(gradient, sums.get(p, 1 / 3))) for p in trained]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def largest(error: Tensor) -> float:
    return error.abs().max().item()


@torch.no_grad()
def network_rounding(
    compute: Callable[[], Tensor],  # by these networks, and the same in each call
    *networks: nn.Module,  # in float32 or float64
    dtype: torch.dtype = torch.float32,  # that the bound is for
    size: Callable[[Tensor], float] = largest,  # how an error is measured
    erring: int = 2,  # how many of the two computations err: 1 where the other is exact beside it
) -> float:
    """Bound for the error of what networks compute: errors are planted in every layer, and what becomes of them.

    Monte Carlo arithmetic (D. S. Parker, 1997), with PLANTED in place of u so that float32 shows it; the error of the
    result is scaled back. The networks' depth, widths and condition and the size of their values are all in it.
    """
    exact = compute()
    with planted_errors(networks, dtype):
        off = compute()
    return scaled(float(size(off - exact)), dtype, erring)


def scaled(planted: float, dtype: torch.dtype = torch.float32, erring: int = 2) -> float:
    """The bound that belongs to an error that planted ones have caused."""
    return MARGIN * erring**0.5 * planted * unit(dtype) / PLANTED
