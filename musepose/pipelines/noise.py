"""Initial noise of the latents: Gaussian, from a seed, the same on every machine."""

import torch
from torch import Tensor

from musepose.pipelines.options import SamplingOptions

CHUNK = 2**20  # elements drawn at a time
LOW_PASS = 0.25  # of the highest frequency: where the common share of `share_low_frequencies` has fallen to e^-0.5


def share_noise(noise: Tensor, common: Tensor, portion: float) -> Tensor:
    """Mix each frame's noise with a common one: unit Gaussian, correlation `portion`. In place in `noise`.

    This is the mixed noise of Ge et al. 2023, "Preserve Your Own Correlation".
    """
    return noise.mul_((1 - portion) ** 0.5).add_(portion**0.5 * common)


def shuffle_noise(noise: Tensor, window: int, overlap: int, generator: torch.Generator) -> Tensor:
    """Give every window the noise of the first one, in another order. f c h w, in place.

    Frames behind the first window repeat earlier frames' noise (Qiu et al. 2023, "FreeNoise").
    """
    for start in range(window, len(noise), window - overlap):
        count = min(window - overlap, len(noise) - start)
        order = torch.randperm(count, generator=generator, device=generator.device).to(noise.device)
        noise[start : start + count] = noise[start - window : start - window + count][order]
    return noise


def share_low_frequencies(noise: Tensor, common: Tensor) -> Tensor:
    """Give all frames the low spatial frequencies of `common`: unit Gaussian. f c h w, in place.

    The split is that of Wu et al. 2023, "FreeInit", once and with independent noise; the weights' squares add up to 1.
    """
    height, width = noise.shape[-2:]
    vertical, horizontal = (torch.fft.fftfreq(n, 0.5, device=noise.device) for n in (height, width))  # Nyquist: 1
    low = torch.exp(-(vertical[:, None] ** 2 + horizontal**2) / (2 * LOW_PASS**2))
    spectrum = torch.fft.fft2(common.float()) * low.sqrt()
    for frame in noise:
        frame.copy_(torch.fft.ifft2(spectrum + torch.fft.fft2(frame.float()) * (1 - low).sqrt()).real)
    return noise


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


def video_noise(
    frames: int,
    plane: tuple[int, int, int],  # c h w
    generator: torch.Generator,
    dtype: torch.dtype,
    device: torch.device | str,
    options: SamplingOptions,  # noise, shared_noise, context_frames, context_overlap
) -> Tensor:
    """`initial_noise` as the options ask for it; what they share is drawn last, so that all mix the same numbers."""
    noise = initial_noise(frames, plane, generator, dtype, device, options.shared_noise)
    if options.noise == "shuffled":
        return shuffle_noise(noise, options.context_frames, options.context_overlap, generator)
    if options.noise == "low_frequency":
        common = torch.randn(plane, generator=generator, device=generator.device, dtype=dtype).to(device)
        return share_low_frequencies(noise, common)
    return noise


def _chunks(planes: int, size: int) -> list[slice]:
    """Chunks of planes that give the same numbers as a single draw.

    On a CPU torch draws blocks of 16 numbers, and redraws the last 16 if the last block is incomplete.
    """
    step = max(16, CHUNK // size // 16 * 16)
    starts = list(range(0, planes, step))
    if len(starts) > 1 and (planes - starts[-1]) * size < 16:
        starts.pop()
    return [slice(start, stop) for start, stop in zip(starts, [*starts[1:], planes], strict=True)]
