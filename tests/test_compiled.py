"""Compiled layers: the same result, and no recompilation for other lengths and sizes. Needs a C++ compiler."""

import shutil

import pytest
import torch
import torch._inductor.config
from tolerance import network_rounding
from torch import nn

from musepose.models.unet import UNet

pytestmark = pytest.mark.skipif(not shutil.which("g++"), reason="needs g++")
NARROW = dict(
    block_out_channels=(32,),
    down_block_types=("CrossAttnDownBlock2D",),
    up_block_types=("CrossAttnUpBlock2D",),
    layers_per_block=1,
    cross_attention_dim=16,
    motion_module={"heads": 8, "max_frames": 32, "blocks": 1, "attentions": 1},
)


def step(unet: nn.Module, frames: int, side: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(frames)
    sample = torch.randn(2 * frames, 4, side, side, generator=generator)
    token = torch.randn(2, 1, 16, generator=generator)
    widths = [block.norm1.normalized_shape[0] for block in unet.spatial_blocks().values()]
    features = [torch.randn(1, 30, width, generator=generator) for width in widths]
    return unet(sample, 500.0, unet.prepare(token, features), frames=frames)


@torch.no_grad()
@torch._inductor.config.patch({"cpp.vec_isa_ok": False})  # scalar code compiles in half the time
def test_compiled_layers(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch.manual_seed(0)
    unet = UNet(**NARROW).eval().requires_grad_(False)
    sizes = [(5, 12), (6, 20), (7, 14)]
    expected = [step(unet, *size) for size in sizes]
    bounds = [network_rounding(lambda: step(unet, *size), unet) for size in sizes]  # noqa: B023
    unet.compile_layers()
    graphs = []
    for size, plain, bound in zip(sizes, expected, bounds, strict=True):
        assert (step(unet, *size) - plain).abs().max() < bound
        graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert graphs[0] > 0
    # torch 2.6 compiles the spatial layers again for another number of frames, 2.11 does not.
    again = 0 if tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 11) else 1
    assert graphs[1] - graphs[0] <= again and graphs[2] - graphs[1] <= again
