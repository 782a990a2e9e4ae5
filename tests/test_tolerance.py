"""Faults that the bounds of tolerance.py detect: a wrong eps, a missing bias, half precision in one layer."""

from collections.abc import Callable
from copy import deepcopy

import numpy as np
import pytest
import torch
from einops import rearrange
from media import AAC_BLOCKS
from test_blazepose_geometry import LOGITS, OUTPUTS
from test_detector import PIXELS
from test_metrics import EXACT
from test_pipeline import SHORT, latents_rounding, pictures_rounding, pipeline, poses, reference
from test_training_loss import alpha_bars
from test_training_model import NONE_DROPPED, gradient_rounding, predict
from test_unet import models
from tiny_training import random_animator
from tolerance import MARGIN, POINTS, largest, network_rounding, rounding
from torch import Tensor, nn

from musepose.evaluation.metrics import psnr
from musepose.evaluation.networks import frechet_distance
from musepose.pose.detectors.blazepose.boxes import decode

CLEARLY = 2  # bounds

Fault = Callable[[nn.Module], object]


@torch.no_grad()
def bounds_off(network: nn.Module, run: Callable[[nn.Module], Tensor], fault: Fault, **bound) -> float:
    """The change of a network's output by a fault, divided by its rounding bound."""
    faulty = deepcopy(network)
    fault(faulty)
    return largest(run(faulty) - run(network)) / network_rounding(lambda: run(network), network, **bound)


def denoise(unet: nn.Module) -> Tensor:
    generator, dtype = torch.Generator().manual_seed(0), unet.conv_in.weight.dtype
    sample, token = (torch.randn(*shape, generator=generator).to(dtype) for shape in ((2, 4, 6, 5), (1, 1, 32)))
    return unet(sample, 500.0, unet.prepare(token), frames=2)


def eps(find: Callable[[nn.Module], nn.Module], wrong: float) -> Fault:
    return lambda network: setattr(find(network), "eps", wrong)


def no_bias(find: Callable[[nn.Module], nn.Module]) -> Fault:
    return lambda network: nn.init.zeros_(find(network).bias)


def half(find: Callable[[nn.Module], nn.Module], dtype: torch.dtype = torch.float16) -> Fault:
    return lambda network: find(network).register_forward_hook(lambda *args: args[-1].to(dtype).to(args[-1].dtype))


def wrong_eps(vae: nn.Module) -> None:
    """PyTorch's own, as if it had not been set."""
    for norm in (layer for layer in vae.modules() if isinstance(layer, nn.GroupNorm)):
        norm.eps = 1e-5


def convolution(unet: nn.Module) -> nn.Module:
    return unet.mid_block.resnets[0].conv1


@pytest.mark.parametrize(
    ("dtype", "fault"),
    [
        # One norm's eps is lost in float32's rounding: test_equals_the_naive_unet is there in float64 too.
        pytest.param(torch.float64, eps(lambda unet: unet.conv_norm_out, 1e-6), id="eps of the output"),
        pytest.param(torch.float64, eps(lambda unet: unet.mid_block.resnets[0].norm1, 1e-6), id="eps of a ResNet"),
        pytest.param(torch.float64, eps(lambda unet: unet.mid_block.attentions[0].norm, 1e-5), id="eps of attention"),
        pytest.param(
            torch.float64,
            eps(lambda unet: unet.mid_block.attentions[0].transformer_blocks[0].norm1, 1e-6),
            id="eps of a layer norm",
        ),
        pytest.param(
            torch.float64,
            eps(lambda unet: unet.mid_block.motion_modules[0].temporal_transformer.norm, 1e-5),
            id="eps of a motion module",
        ),
        pytest.param(torch.float64, half(convolution, torch.float32), id="single precision in a layer"),
        pytest.param(torch.float32, no_bias(convolution), id="no bias"),
        pytest.param(torch.float32, half(lambda unet: unet.conv_in), id="half precision in a layer"),
    ],
)
def test_a_fault_in_the_unet(dtype, fault):
    unet = deepcopy(models()["denoising_unet"]).to(dtype)
    assert bounds_off(unet, denoise, fault, dtype=dtype) > CLEARLY


@pytest.mark.parametrize(
    ("name", "run", "fault"),
    [
        (
            "vae",
            lambda vae: vae.encode(pictures(32)).latent_dist.mean,
            wrong_eps,
        ),
        ("vae", lambda vae: vae.decode(pictures(8, 4)).sample, no_bias(lambda vae: vae.post_quant_conv)),
        (
            "image_encoder",
            lambda clip: clip(pictures(224)).image_embeds,
            eps(lambda clip: clip.vision_model.post_layernorm, 1e-4),
        ),
        ("pose_guider", lambda guider: guider(pictures(32)), no_bias(lambda guider: guider.conv_in)),
        ("pose_guider", lambda guider: guider(pictures(32)), half(lambda guider: guider.conv_in)),
    ],
    ids=["VAE's eps", "VAE's bias", "CLIP's eps", "pose guider's bias", "pose guider in half precision"],
)
def test_a_fault_in_another_model_in_single_precision(name, run, fault):
    assert bounds_off(models()[name], run, fault) > CLEARLY


def pictures(side: int, channels: int = 3) -> Tensor:
    return torch.rand(2, channels, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "fault",
    [eps(lambda network: network[1], 1e-3), no_bias(lambda network: network[0]), half(lambda network: network[3])],
    ids=["eps", "bias", "half precision"],
)
def test_a_fault_in_convolutions_with_batch_norms(fault):
    """What folding is compared by, and the detector's networks."""
    torch.manual_seed(0)
    layers = [(nn.Conv2d(width, 16, 3), nn.BatchNorm2d(16), nn.SiLU()) for width in (3, 16)]
    network = nn.Sequential(*layers[0], *layers[1]).eval()
    assert bounds_off(network, lambda network: network(pictures(16)), fault) > CLEARLY


@torch.no_grad()
def test_bfloat16_in_place_of_float16():
    unet = models()["denoising_unet"]
    other = deepcopy(unet).bfloat16()
    sample, token = torch.randn(2, 4, 6, 5), torch.randn(1, 1, 32)

    def run(network: nn.Module) -> Tensor:
        dtype = network.conv_in.weight.dtype
        return network(sample.to(dtype), 500.0, network.prepare(token.to(dtype)), frames=2).float()

    allowed = network_rounding(lambda: run(unet), unet, dtype=torch.float16, size=torch.norm, erring=1)
    assert (run(other) - run(unet)).norm() > allowed


def test_half_precision_between_processes():
    latents = pipeline()(reference(), poses(9), output_type="latent", **SHORT).frames
    assert largest(latents.half().float() - latents) > CLEARLY * latents_rounding(9)
    pictures, others = (
        pipeline().decode(rearrange(kind, "1 c f h w -> f c h w")) for kind in (latents, latents.half().float())
    )
    assert largest(others - pictures) > CLEARLY * pictures_rounding(9)


def test_a_level_of_a_resized_picture_and_its_half_precision():
    """[-1, 1] and CLIP's pixels, which two and three roundings make of bytes."""
    values = torch.arange(256) / 127.5 - 1
    assert CLEARLY * rounding(2) < 1 / 127.5
    assert largest(values.half().float() - values) > CLEARLY * rounding(3, 1 / 0.26)


def test_single_precision_among_keypoints():
    """They are float64: the bound for a thousand roundings of coordinates of a whole picture, and that of pixels."""
    points = np.random.default_rng(0).random(1000)
    assert np.abs(points.astype(np.float32) - points).max() > CLEARLY * rounding(1000, dtype=torch.float64)
    pixels = 1000 * points
    assert np.abs(pixels.astype(np.float32) - pixels).max() > CLEARLY * POINTS


def test_half_precision_among_stored_keypoints_and_blazepose_s_outputs():
    """They are float32: one rounding of parts of a picture, and of logits."""
    points = np.random.default_rng(0).random(1000)
    assert np.abs(points.astype(np.float16) - points).max() > CLEARLY * rounding(1)
    raw, logits = np.float32([[11.2, 22.4, 44.8, 89.6]]), np.float32([2.1])
    found, off = (decode(raw.astype(kind), logits.astype(kind), np.zeros((1, 2)), 224) for kind in ("f4", "f2"))
    assert np.abs(found.corners - off.corners).max() > CLEARLY * OUTPUTS
    assert np.abs(found.scores - off.scores).max() > CLEARLY * LOGITS


def test_half_precision_among_detected_pixels():
    pixels = np.random.default_rng(0).uniform(0, 1000, 1000)
    assert np.abs(pixels.astype(np.float16) - pixels).max() > CLEARLY * PIXELS


def test_a_frame_s_sound_is_longer_than_what_a_sound_s_length_is_known_by():
    """Of videos with 10 and 15 frames a second, from which one frame's sound is missing."""
    assert AAC_BLOCKS < 1 / 15 and CLEARLY * AAC_BLOCKS < 1 / 10


def test_a_predicted_original_in_half_precision():
    values = torch.linspace(-4, 4, 1000)
    assert largest(values.half().float() - values) > CLEARLY * rounding(6, 4)


def test_single_precision_among_metrics():
    first, second = np.random.default_rng(0).random((2, 32, 32, 3))
    off = psnr(first.astype(np.float32), second.astype(np.float32)) - psnr(first, second)
    assert abs(off) > CLEARLY * EXACT
    features = np.random.default_rng(0).normal(size=(50, 4))
    assert frechet_distance(features, features + 0.01) > CLEARLY * EXACT**0.5


@pytest.mark.parametrize("motion", [False, True])
def test_half_precision_in_the_gradients_of_a_training(motion):
    def gradients(animator: nn.Module) -> Tensor:
        predict(animator, NONE_DROPPED).square().mean().backward()
        return torch.cat([p.grad.flatten() for p in animator.parameters() if p.grad is not None])

    plain, faulty = random_animator(motion), random_animator(motion)
    half(lambda animator: convolution(animator.denoising_unet))(faulty)
    bound = gradient_rounding(random_animator(motion), NONE_DROPPED)
    assert largest(gradients(faulty) - gradients(plain)) > CLEARLY * bound


def test_a_noise_schedule_in_half_precision():
    """Beside the bound of a training's gradients, as a part of the largest: of a cumulative product of a thousand."""
    signal = alpha_bars()[:999].sqrt()
    assert largest((signal.half().double() - signal) / signal) > CLEARLY * rounding(1000)


def test_a_bound_is_a_margin_above_what_sums_in_another_order_do():
    """Of ten thousand products of random numbers, forwards and backwards, twenty times."""
    terms = np.random.default_rng(0).normal(size=(2, 20, 10_000)).astype(np.float32).prod(0)
    forwards, backwards = (order.cumsum(-1) for order in (terms, terms[:, ::-1]))
    off = np.abs(forwards[:, -1] - backwards[:, -1]).max()
    assert MARGIN * off < rounding(10_000, np.abs(forwards).max()) < 20 * MARGIN * off
