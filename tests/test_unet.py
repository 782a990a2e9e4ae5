"""The UNet against the published tensor lists and against a naive implementation of the same mathematics."""

import json
from copy import deepcopy
from functools import cache
from pathlib import Path

import pytest
import torch
from accelerate import init_empty_weights
from tolerance import network_rounding, rounding
from torch.utils.flop_counter import FlopCounterMode

from musepose.models.attention import Attention, SpatialBlock, TemporalTransformer
from musepose.models.chunking import Chunks
from musepose.models.pose_guider import PoseGuider
from musepose.models.unet import UNet
from random_models.naive_unet import NaiveUNet, attention
from random_models.tiny_weights import MOTION_CONFIG, UNET_CONFIG, tiny_models

KEYS = Path(__file__).parent / "golden" / "keys"


@cache
def models():
    return tiny_models()


@pytest.mark.parametrize(
    ("name", "build"),
    [
        ("reference_unet", lambda: UNet(has_output=False)),
        ("denoising_unet", lambda: UNet(motion_module=MOTION_CONFIG)),
        ("pose_guider", PoseGuider),
    ],
)
def test_full_size_tensors_are_the_published_ones(name, build):
    with init_empty_weights():
        state = build().state_dict()
    assert {key: list(tensor.shape) for key, tensor in state.items()} == json.loads((KEYS / f"{name}.json").read_text())


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@torch.no_grad()
def test_equals_the_naive_unet(seed, dtype):
    """Random sizes: sides that halve to odd numbers, one to seven frames, rows with and without a reference.

    In float32 an eps of 1e-6 in place of 1e-5 hides among rounding errors; in float64 nothing does.
    """
    generator = torch.Generator().manual_seed(seed)
    height, width, frames = (int(torch.randint(low, 12, (), generator=generator)) for low in (1, 3, 1))
    frames = frames % 7 + 1
    reference_unet, unet = (deepcopy(models()[name]).to(dtype) for name in ("reference_unet", "denoising_unet"))
    if dtype == torch.float64:  # the tables of positions are float32: here they are exact
        for table in (buffer for name, buffer in unet.named_buffers() if name.endswith(".pe")):
            table.copy_(NaiveUNet.positions(*table.shape[-2:], dtype))

    token = torch.randn(1, 1, 32, generator=generator).to(dtype)
    reference = torch.randn(1, 4, height, width, generator=generator).to(dtype)
    features = reference_unet(reference, 0, reference_unet.prepare(token))
    sample = torch.randn(2 * frames, 4, height, width, generator=generator).to(dtype)
    pose = torch.randn(frames, 32, height, width, generator=generator).to(dtype)
    timestep = 37.0 + 200 * seed
    context = unet.prepare(torch.cat([torch.zeros_like(token), token]), features)
    ours = unet(sample, timestep, context, pose, frames=frames)
    bound = network_rounding(lambda: unet(sample, timestep, context, pose, frames=frames), unet, dtype=dtype)

    naive = NaiveUNet(unet.state_dict(), UNET_CONFIG["block_out_channels"], layers=2, groups=32)
    bank = {name: feature[0] for name, feature in zip(unet.spatial_blocks(), features, strict=True)}
    expected = torch.cat(
        [
            naive.branch(sample[:frames], timestep, torch.zeros(1, 32, dtype=dtype), None, pose),
            naive.branch(sample[frames:], timestep, token[0], bank, pose),
        ]
    )
    assert (ours - expected).abs().max() < bound


@pytest.mark.parametrize(("rows", "referenced"), [(1, 0), (1, 1), (3, 1), (4, 4)])
@torch.no_grad()
def test_only_the_last_branches_attend_to_their_reference(rows, referenced):
    torch.manual_seed(rows)
    frames, dim = 3, 32
    block = SpatialBlock(dim, heads=8, context_dim=16)
    x = torch.randn(rows * frames, 10, dim)
    reference = torch.randn(referenced, 6, dim) if referenced else None
    ours = block._self_attention(x, block.context(torch.randn(rows, 1, 16), reference), frames)
    for index, picture in enumerate(x):
        row = index // frames - (rows - referenced)
        seen = picture if row < 0 else torch.cat([picture, reference[row]])
        attn = block.attn1
        expected = attn.to_out[0](attention(attn.to_q(picture), attn.to_k(seen), attn.to_v(seen)))
        # The values' mean over 16 keys at most and a projection: sums of 8, 16 and 32 terms, of values below 2.
        assert (ours[index] - expected).abs().max() < rounding(8 + 16 + 32, 2)


@torch.no_grad()
def test_timesteps_may_differ_by_row():
    unet = models()["denoising_unet"]
    sample, token = torch.randn(2 * 2, 4, 4, 4), torch.randn(2, 1, 32)
    both = unet(sample, torch.tensor([10, 900]), unet.prepare(token), frames=2)
    bound = network_rounding(lambda: unet(sample, torch.tensor([10, 900]), unet.prepare(token), frames=2), unet)
    for row, timestep in enumerate((10, 900)):
        alone = unet(sample[2 * row : 2 * row + 2], timestep, unet.prepare(token[row : row + 1]), frames=2)
        assert (both[2 * row : 2 * row + 2] - alone).abs().max() < bound


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@torch.no_grad()
def test_half_precision_stays_near_single(dtype):
    unet = models()["denoising_unet"]
    sample, token = torch.randn(4, 4, 8, 8), torch.randn(1, 1, 32)
    expected = unet(sample, 500, unet.prepare(token), frames=4)
    half = UNet.from_config(unet.config)
    half.load_state_dict(unet.state_dict())
    half.to(dtype)
    ours = half(sample.to(dtype), 500, half.prepare(token.to(dtype)), frames=4)
    assert ours.dtype == dtype
    bound = network_rounding(
        *(lambda: unet(sample, 500, unet.prepare(token), frames=4), unet), dtype=dtype, size=torch.norm, erring=1
    )
    assert (ours.float() - expected).norm() < bound


@pytest.mark.parametrize(("side", "limit"), [(64, 110.5), (96, 298.5)])
@torch.no_grad()
def test_no_computation_is_repeated(side, limit):
    """TFLOP of one guided step over 48 frames at 512 and 768 pixels; the published code needs 128.7 and 372.3."""
    with torch.device("meta"):
        reference_unet, unet = UNet(has_output=False), UNet(motion_module=MOTION_CONFIG)
        token = torch.zeros(1, 1, 768)
        features = reference_unet(torch.zeros(1, 4, side, side), torch.zeros(1), reference_unet.prepare(token))
        context = unet.prepare(token.repeat(2, 1, 1), features)
        with FlopCounterMode(display=False) as counter:
            unet(torch.zeros(96, 4, side, side), torch.zeros(1), context, torch.zeros(48, 320, side, side), frames=48)
    assert limit * 0.95 < counter.get_total_flops() / 1e12 <= limit


@torch.no_grad()
def test_saves_and_loads_like_any_diffusers_model(tmp_path):
    for name in ("reference_unet", "denoising_unet", "pose_guider"):
        model = models()[name]
        model.save_pretrained(tmp_path / name)
        again = type(model).from_pretrained(tmp_path / name)
        state = again.state_dict()
        assert state.keys() == model.state_dict().keys()
        assert all(torch.equal(tensor, state[key]) for key, tensor in model.state_dict().items())


def test_refuses_what_it_would_compute_wrongly():
    unet = models()["denoising_unet"]
    with pytest.raises(ValueError, match="token"):
        unet.prepare(torch.zeros(1, 77, 32))
    with pytest.raises(ValueError, match="not a multiple of 2 frames"):
        unet(torch.zeros(3, 4, 8, 8), 1, unet.prepare(torch.zeros(1, 1, 32)), frames=2)


@pytest.mark.parametrize("frames", [1, 5])
@pytest.mark.parametrize("chunks", [Chunks(1), Chunks(130), Chunks(10**6), Chunks(64, offload_skips=True)], ids=str)
@torch.no_grad()
def test_chunked_execution_changes_nothing(chunks, frames):
    """Guided, at a size that halves to odd numbers: chunks of one frame, of a few, of different sizes by level."""
    reference_unet, unet = models()["reference_unet"], models()["denoising_unet"]
    generator = torch.Generator().manual_seed(frames)
    token = torch.randn(1, 1, 32, generator=generator)
    features = reference_unet(torch.randn(1, 4, 9, 7, generator=generator), 0, reference_unet.prepare(token))
    sample = torch.randn(2 * frames, 4, 9, 7, generator=generator)
    pose = torch.randn(frames, 32, 9, 7, generator=generator)
    timesteps = torch.rand(2 * frames, generator=generator) * 900  # one for every picture
    context = unet.prepare(torch.cat([torch.zeros_like(token), token]), features)
    expected = unet(sample, timesteps, context, pose, frames=frames)
    ours = unet(sample, timesteps, context, pose, frames=frames, chunks=chunks)
    bound = network_rounding(lambda: unet(sample, timesteps, context, pose, frames=frames), unet)
    assert (ours - expected).abs().max() < bound


@torch.no_grad()
def test_the_inputs_are_not_overwritten():
    unet = models()["denoising_unet"]
    sample, token, pose = torch.randn(4, 4, 8, 8), torch.randn(1, 1, 32), torch.randn(4, 32, 8, 8)
    context = unet.prepare(token)
    before = [tensor.clone() for tensor in (sample, pose, context[0].text)]
    unet(sample, 500, context, pose, frames=4, chunks=Chunks(64))
    assert all(torch.equal(a, b) for a, b in zip((sample, pose, context[0].text), before, strict=True))


@torch.no_grad()
def test_projections_of_motion_modules_get_contiguous_sequences():
    """Of other ones torch copies the weights for each sequence: on a CPU in bfloat16 that was half of a step."""
    unet, seen = models()["denoising_unet"], []
    hooks = [
        module.proj_in.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0].is_contiguous()))
        for module in unet.modules()
        if isinstance(module, TemporalTransformer)
    ]
    try:
        sample = torch.zeros(3, unet.config.in_channels, 4, 4)
        unet(sample, 1.0, unet.prepare(torch.zeros(1, 1, unet.config.cross_attention_dim)), frames=3)
    finally:
        for hook in hooks:
            hook.remove()
    assert len(seen) == len(hooks) > 0 and all(seen)


@pytest.mark.parametrize("keys", [8, 40])
def test_plain_and_fused_attention_agree_in_bfloat16(keys):
    """Weights of at most 1 and values below 5, each rounded, are summed: sums of weights are 1."""
    attention = Attention(32, 2)
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(3, length, 32, generator=generator).bfloat16() for length in (5, keys, keys)]
    results = []
    for limit in (0, 1024):
        attention.plain_keys = limit
        results.append(attention.attend(*inputs).float())
    assert (results[0] - results[1]).abs().max() < rounding(4, 5, torch.bfloat16)


@pytest.mark.parametrize("keys", [6, 1030])
@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_attention_s_gradients_are_float32_s_to_its_rounding(keys: int, autocast: bool):
    """On a CPU training takes other kernels than sampling: plain attention, or above 1,024 keys fused in float32."""
    torch.manual_seed(0)
    attention = Attention(32, heads=2)
    exact = [torch.randn(2, length, 32) / 3 for length in (5, keys, keys)]
    upstream = torch.randn(2, 5, 32)
    results = []
    for dtype in (torch.float32, torch.bfloat16):
        inputs = [tensor.bfloat16().to(dtype).requires_grad_() for tensor in exact]
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast and dtype == torch.bfloat16):
            output = attention.attend(*inputs)
        output.backward(upstream.bfloat16().to(dtype))
        results.append([output.float(), *(tensor.grad.float() for tensor in inputs)])
    for expected, found in zip(*results, strict=True):  # scores, weights, products, and their gradients' likewise
        assert (found - expected).abs().max() < rounding(8, expected.abs().max().item(), torch.bfloat16)
        assert found.abs().max() > 0
