"""Initial noise of the latents: Gaussian, from a seed, the same on every machine."""

import torch
from torch import Tensor

CHUNK = 2**20  # elements drawn at a time


def share_noise(noise: Tensor, common: Tensor, portion: float) -> Tensor:
    """Mix each frame's noise with a common one: unit Gaussian, correlation `portion`. In place in `noise`.

    This is the mixed noise of Ge et al. 2023, "Preserve Your Own Correlation".
    """
    return noise.mul_((1 - portion) ** 0.5).add_(portion**0.5 * common)


def initial_noise(
    frames: int,
    plane: tuple[int, int, int],  # c h w
    generator: torch.Generator,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
    shared: float = 0.0,
) -> Tensor:
    """→ f c h w, drawn in the given dtype and the published order b c f h w. Reproducible with a CPU generator.

    `shared` is the correlation of frames, see `share_noise`. Drawn in chunks, so that only the result takes memory.
    """
    channels, height, width = plane
    source = {"generator": generator, "device": generator.device, "dtype": dtype}
    planes = torch.empty(channels * frames, height, width, dtype=dtype, device=device)
    for rows in _chunks(len(planes), height * width):
        shape = (rows.stop - rows.start, height, width)
        planes[rows] = torch.randn(shape, **source).to(device)
    noise = planes.view(channels, frames, height, width).transpose(0, 1)
    if not shared:
        return noise
    common = torch.randn(channels, height, width, **source).to(device)
    return share_noise(noise, common, shared)


def _chunks(planes: int, size: int) -> list[slice]:
    """Chunks of planes that give the same numbers as a single draw.

    On a CPU torch draws blocks of 16 numbers, and redraws the last 16 if the last block is incomplete.
    """
    step = max(16, CHUNK // size // 16 * 16)
    starts = list(range(0, planes, step))
    if len(starts) > 1 and (planes - starts[-1]) * size < 16:
        starts.pop()
    return [slice(start, stop) for start, stop in zip(starts, [*starts[1:], planes], strict=True)]
