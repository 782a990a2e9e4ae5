"""The recorded results of the published pipeline, stage by stage, on tiny models (see tests/golden/README.md)."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from einops import rearrange
from PIL import Image
from safetensors.torch import load_file
from tolerance import network_rounding, rounding

from musepose.pipelines.images import clip_pixels
from musepose.pipelines.pose2video import Pose2VideoPipeline
from random_models.tiny_weights import tensor_by_rule, tiny_models

GOLDEN = Path(__file__).parent / "golden"
SCHEDULER = dict(
    beta_start=0.00085,
    beta_end=0.012,
    beta_schedule="scaled_linear",
    clip_sample=False,
    steps_offset=1,
    prediction_type="v_prediction",
    rescale_betas_zero_snr=True,
    timestep_spacing="trailing",
)
# tests/golden/README.md documents these; where less can be derived, less is allowed.
UNET_OUT, FINAL = 5e-5, 2e-4
CASES = pytest.mark.parametrize("name", ["pipeline_cfg", "pipeline_nocfg"])


@cache
def pipeline() -> Pose2VideoPipeline:
    return Pose2VideoPipeline(**tiny_models(), scheduler=DDIMScheduler(**SCHEDULER))


@cache
def load(name: str) -> tuple[dict, dict, np.ndarray, Image.Image]:
    case = json.loads((GOLDEN / name / "case.json").read_text())
    poses = np.load(GOLDEN / name / "poses.npz")["frames"]
    return case, load_file(GOLDEN / name / "expected.safetensors"), poses, Image.open(GOLDEN / name / "ref.png")


def error(ours: torch.Tensor, expected: torch.Tensor) -> float:
    assert ours.shape == expected.shape
    return (ours - expected).abs().max().item()


@cache
def sampling(name: str) -> tuple[torch.Tensor, float]:
    """The final latents, and the bound for their rounding."""

    def sample() -> torch.Tensor:
        return pipeline()(**golden_arguments(name)).frames

    return sample(), network_rounding(sample, pipeline().reference_unet, pipeline().denoising_unet)


def rows(x: torch.Tensor) -> torch.Tensor:
    return rearrange(x, "b c f h w -> (b f) c h w")


@pytest.mark.parametrize(
    ("model", "key", "shape", "first"),
    [
        ("denoising_unet", "conv_in.weight", (32, 4, 3, 3), [0.290257, -0.434283, 0.093014]),
        ("pose_guider", "conv_in.weight", (16, 3, 3, 3), [-0.258528, -0.090299, -0.159095]),
        (
            "reference_unet",
            "down_blocks.0.attentions.0.transformer_blocks.0.norm1.weight",
            (32,),
            [1.11832, 1.29847, 0.929123],
        ),
        ("vae", "decoder.conv_out.bias", (3,), [0.171545, -0.102806, 0.199091]),
        ("image_encoder", "vision_model.embeddings.class_embedding", (32,), [0.140844, -0.085625, -0.131458]),
    ],
)
def test_the_weights_follow_the_rule(model, key, shape, first):
    assert tensor_by_rule(model, key, shape).flatten()[:3].tolist() == pytest.approx(first, abs=5e-6)  # six digits


@CASES
@torch.no_grad()
def test_clip_embedding(name):
    _, expected, _, reference = load(name)
    pixels = clip_pixels([reference])
    # Resizing gives bytes. Over 255, less the mean, over the deviation, the smallest of which is 0.26.
    assert error(pixels, expected["clip.pixels"]) < rounding(3, 1 / 0.26)
    bound = network_rounding(lambda: pipeline().embed_reference(reference), pipeline().image_encoder)
    assert error(pipeline().embed_reference(reference)[:, 0], expected["clip.embeds"]) < bound


@CASES
@torch.no_grad()
def test_reference_latents(name):
    case, expected, _, reference = load(name)
    size = dict(height=case["height"], width=case["width"])
    assert error(pipeline().reference_processor.preprocess(reference, **size), expected["ref.pixels"]) < rounding(2)
    bound = network_rounding(lambda: pipeline().encode_reference(reference, **size), pipeline().vae)
    assert error(pipeline().encode_reference(reference, **size), expected["ref.latents"]) < bound


@CASES
@torch.no_grad()
def test_reference_features(name):
    _, expected, _, _ = load(name)
    inputs = expected["ref.latents"], expected["clip.embeds"][:, None]
    features = pipeline().reference_features(*inputs)
    unet = pipeline().reference_unet
    bound = network_rounding(lambda: torch.cat([f.flatten() for f in pipeline().reference_features(*inputs)]), unet)
    blocks = list(pipeline().reference_unet.spatial_blocks())
    assert {f"bank.{block}" for block in blocks} == {key for key in expected if key.startswith("bank.")}
    for block, feature in zip(blocks, features, strict=True):
        assert error(feature, expected[f"bank.{block}"]) < bound, block


@CASES
@torch.no_grad()
def test_pose_features(name):
    case, expected, poses, _ = load(name)
    window = expected["unet0.sample"].shape[2]
    pixels = torch.from_numpy(poses[:window]).permute(0, 3, 1, 2).float() / 255
    assert pixels.shape[-2:] == (case["height"], case["width"])
    bound = network_rounding(lambda: pipeline().pose_guider(pixels), pipeline().pose_guider)
    assert error(pipeline().pose_guider(pixels), rows(expected["unet0.pose_features"][:1])) < bound


@CASES
@torch.no_grad()
def test_first_denoising_call(name):
    _, expected, _, _ = load(name)
    blocks = pipeline().denoising_unet.spatial_blocks()
    context = pipeline().denoising_unet.prepare(
        expected["unet0.encoder_hidden_states"], [expected[f"bank.{block}"] for block in blocks]
    )
    sample, pose_features = expected["unet0.sample"], expected["unet0.pose_features"]
    unet, inputs = pipeline().denoising_unet, (rows(sample), expected["unet0.timestep"], context, rows(pose_features))
    bound = network_rounding(lambda: unet(*inputs, frames=sample.shape[2]), unet)
    assert error(unet(*inputs, frames=sample.shape[2]), rows(expected["unet0.out"])) < min(bound, UNET_OUT)


def golden_arguments(name: str) -> dict:
    """The published pipeline's arguments: windows over the unpadded frames, noise of that length."""
    case, expected, poses, reference = load(name)
    keys = ("width", "height", "context_frames", "context_overlap", "guidance_scale")
    arguments = {key: case[key] for key in keys} | {"num_inference_steps": case["steps"], "output_type": "latent"}
    noise = torch.randn(expected["latents.final"].shape, generator=torch.Generator().manual_seed(case["seed"]))
    return {"image": reference, "pose_images": poses, "tail": "flush", "latents": noise, **arguments}


@CASES
def test_the_whole_sampling(name):
    expected, (latents, bound) = load(name)[1], sampling(name)
    assert error(latents, expected["latents.final"]) < min(bound, FINAL)
    decoded = torch.cat([pipeline().decode(frame[None]) for frame in rows(latents)])
    assert error(decoded, rows(expected["video"])) < FINAL
