"""`fuse_for_inference`: the same function without batch norms."""

import pytest
import torch
from tolerance import network_rounding
from torch import nn

from musepose.pose.detectors.dwpose import mm_compat
from musepose.pose.detectors.dwpose.conv_bn_fusion import fuse_for_inference
from musepose.pose.detectors.dwpose.detector import _Network
from random_models import mm_weights


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    files = mm_weights.tiny_files(tmp_path_factory.mktemp("mm"))
    made = {}
    for scope, part in (("mmdet", "yolox"), ("mmpose", "dwpose")):
        network = _Network(scope, files[f"{part}_config"])
        network.model.load_state_dict(network.read(files[f"{part}_ckpt"]))
        made[scope] = network.model
    return made


@pytest.mark.parametrize("scope, shape, contrast", [("mmdet", (96, 128), 255), ("mmpose", (384, 288), 4)])
def test_the_output_is_the_same(networks, scope, shape, contrast):
    model, pictures = networks[scope], torch.rand(2, 3, *shape, generator=torch.Generator().manual_seed(0)) * contrast
    sizes = []

    def outputs() -> torch.Tensor:
        """All outputs concatenated, each divided by its largest value."""
        parts = flat(model(pictures, None, mode="tensor"))
        sizes[:] = sizes or [part.abs().max() for part in parts]
        return torch.cat([(part / size).flatten() for part, size in zip(parts, sizes, strict=True)])

    with torch.no_grad(), mm_compat.quiet():
        bound = network_rounding(outputs, model)
        before = flat(model(pictures, None, mode="tensor"))
        after = flat(fuse_for_inference(model)(pictures, None, mode="tensor"))
    for one, other, size in zip(before, after, sizes, strict=True):
        assert (other - one).abs().max() < bound * size
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("size", [5, 9, 13])
def test_a_maximum_over_a_square_is_taken_along_each_side(size):
    pools = nn.Sequential(nn.MaxPool2d(size, stride=1, padding=size // 2))
    features = torch.randn(2, 3, 20, 17)
    assert torch.equal(pools(features), fuse_for_inference(pools)(features))
    assert isinstance(pools[0], nn.Sequential)


def test_a_maximum_that_shrinks_is_left_alone():
    pools = fuse_for_inference(nn.Sequential(nn.MaxPool2d(2), nn.MaxPool2d(3, stride=1)))
    assert [type(pool) for pool in pools] == [nn.MaxPool2d] * 2


def flat(output) -> list[torch.Tensor]:
    if isinstance(output, torch.Tensor):
        return [output]
    return [tensor for part in output for tensor in flat(part)]
