"""The initial noise: drawn in chunks, equal to a single draw of the published shape. Smoothing of latents over time."""

import pytest
import torch
from tolerance import rounding

from musepose.pipelines import noise
from musepose.pipelines.noise import initial_noise, share_low_frequencies, shuffle_noise
from musepose.pipelines.options import SamplingOptions
from musepose.pipelines.smoothing import is_smoothed, smooth_latents


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ("frames", "height", "width"), [(1, 1, 1), (1, 2, 2), (7, 3, 5), (40, 4, 4), (33, 1, 1), (9, 8, 8)]
)
@pytest.mark.parametrize("piece", [1, 256, 2**20])
def test_chunks_equal_a_single_draw(monkeypatch, dtype, frames, height, width, piece):
    monkeypatch.setattr(noise, "CHUNK", piece)
    generator = torch.Generator().manual_seed(5)
    whole = torch.randn(1, 4, frames, height, width, generator=generator, dtype=dtype)
    ours = initial_noise(frames, (4, height, width), generator.manual_seed(5), dtype)
    assert torch.equal(ours, whole[0].transpose(0, 1))


def test_shared_noise_comes_behind_the_frames_own():
    """So that any portion is a mixture of the same numbers."""
    own, half = (
        initial_noise(40, (4, 8, 8), torch.Generator().manual_seed(1), torch.float32, shared=shared)
        for shared in (0.0, 0.5)
    )
    common = (half - 0.5**0.5 * own) / 0.5**0.5
    assert (common - common[:1]).abs().max() < rounding(4, 6)  # draws are below 6


def test_every_window_has_the_first_one_s_noise_in_another_order():
    noise = torch.arange(17.0).view(17, 1, 1, 1)  # windows of 5, which overlap by 2
    shuffled = shuffle_noise(noise.clone(), 5, 2, torch.Generator().manual_seed(0)).flatten().tolist()
    assert shuffled[:5] == [0, 1, 2, 3, 4]
    assert all(sorted(shuffled[start : start + 5]) == [0, 1, 2, 3, 4] for start in range(0, 13, 3))
    assert any(shuffled[frame] != shuffled[frame - 5] for frame in range(5, 17))


def test_low_frequencies_are_shared_and_the_noise_stays_white():
    """Of white noise every frequency has the same power: 1 for each number, whatever share is common."""
    generator = torch.Generator().manual_seed(0)
    own, common = (torch.randn(count, 4, 16, 16, generator=generator) for count in (200, 1))
    mixed = share_low_frequencies(own.clone(), common[0])
    spectrum = torch.fft.fft2(mixed) / 16
    assert (spectrum[..., 0, 0].real - torch.fft.fft2(common)[..., 0, 0].real / 16).abs().max() < rounding(9, 6)
    # At the highest frequencies the share is e^-16: correlated by less than 5 standard errors of 800 products.
    assert abs((spectrum[:100, :, 8, 8].real * spectrum[100:, :, 8, 8].real).mean()) < 5 / 400**0.5
    power = spectrum[..., 4:, 4:].abs().square().mean()  # of 200 x 4 x 144 numbers, half of them independent
    assert abs(power - 1) < 5 * (2 / (200 * 4 * 72)) ** 0.5


def test_smoothing_averages_neighbours_and_keeps_the_mean_and_what_is_linear():
    latents = torch.tensor([4.0, 0, 0, 0, 8]).view(5, 1, 1, 1)
    assert smooth_latents(latents, 0.25).flatten().tolist() == [3, 1, 0, 2, 6]
    line = torch.arange(5.0).view(5, 1, 1, 1)
    assert torch.equal(smooth_latents(line, 0.25)[1:-1], line[1:-1])


@pytest.mark.parametrize(("steps", "smoothed"), [(10, [7, 8]), (20, [14, 15, 16, 17, 18]), (2, []), (1, [])])
def test_late_steps_are_smoothed_but_the_last_one(steps, smoothed):
    on, off = (SamplingOptions(num_inference_steps=steps, smooth_latents=weight) for weight in (0.1, 0.0))
    assert [step for step in range(steps) if is_smoothed(step, on)] == smoothed
    assert not any(is_smoothed(step, off) for step in range(steps))
