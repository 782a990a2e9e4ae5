"""The initial noise: drawn in chunks, equal to a single draw of the published shape."""

import pytest
import torch
from tolerance import rounding

from musepose.pipelines import noise
from musepose.pipelines.noise import initial_noise


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
