"""Part 1: float32 results against those of the published system, and the error of half precision."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from diffusers import DDIMScheduler
from einops import rearrange
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.gpu_check.scale import NOISE, Check, tiny
from benchmarks.gpu_check.video import random_inputs
from benchmarks.measure import ROOT
from musepose.pipelines.options import SamplingOptions
from musepose.pipelines.pose2video import Pose2VideoPipeline

GOLDEN = ROOT / "tests" / "golden"
CASES = ("pipeline_cfg", "pipeline_nocfg")
# Largest absolute differences: ten times the tests' tolerances for a CPU, as cuDNN may use Winograd convolutions, which
# lose about one digit. TF32 would fail: it rounds to 2^-11 instead of float32's 2^-24, 8192 times as coarsely.
BOUNDS = {
    "clip.embeds": 1e-4,
    "ref.latents": 1e-4,
    "bank": 2e-4,
    "pose features": 1e-4,
    "unet0.out": 5e-4,
    "latents.final": 2e-3,
    "video": 2e-3,
}


# Lowest accepted PSNR of the tiny models' videos, dB. CPUs reached 50 and 28; two videos from different noise have 9.
LEAST_PSNR = {torch.float16: 40.0, torch.bfloat16: 20.0}


@contextmanager
def exact_float32() -> Iterator[None]:
    """Disable TF32 in matrix products and in convolutions (where torch enables it by default)."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def golden(check: Check) -> None:
    """Golden cases in float32, stage by stage: tiny models against results recorded from the published system."""
    pipeline = Pose2VideoPipeline(**tiny(torch.float32, check.device), scheduler=DDIMScheduler(**NOISE))
    with exact_float32():
        for name in CASES:
            for stage, error in stage_errors(pipeline, name):
                bound = BOUNDS[stage]
                check.report.add(1, f"{name}, {stage}, float32", error <= bound, off_by=error, bound=bound)


@torch.no_grad()
def stage_errors(pipeline: Pose2VideoPipeline, name: str) -> Iterator[tuple[str, float]]:
    """Yield (stage, largest absolute difference from the golden case).

    Each stage before the sampling gets the recorded results of the previous ones, so that errors do not add up.
    """
    folder = GOLDEN / name
    case, expected = json.loads((folder / "case.json").read_text()), load_file(folder / "expected.safetensors")
    poses, reference = np.load(folder / "poses.npz")["frames"], Image.open(folder / "ref.png", formats=["PNG"])
    unet, device = pipeline.denoising_unet, pipeline.denoising_unet.device
    size = {"width": case["width"], "height": case["height"]}
    given = {key: tensor.to(device) for key, tensor in expected.items()}

    def off(ours: Tensor, theirs: Tensor) -> float:
        return (ours.to(device).float() - theirs).abs().max().item()

    def frames(x: Tensor) -> Tensor:
        return rearrange(x, "b c f h w -> (b f) c h w")

    yield "clip.embeds", off(pipeline.embed_reference(reference)[:, 0], given["clip.embeds"])
    yield "ref.latents", off(pipeline.encode_reference(reference, **size), given["ref.latents"])
    features = pipeline.reference_features(given["ref.latents"], given["clip.embeds"][:, None])
    recorded = [given[f"bank.{block}"] for block in pipeline.reference_unet.spatial_blocks()]
    yield "bank", max(off(ours, theirs) for ours, theirs in zip(features, recorded, strict=True))
    sample = given["unet0.sample"]
    window = sample.shape[2]
    pixels = torch.from_numpy(poses[:window]).permute(0, 3, 1, 2).to(device).float() / 255
    yield "pose features", off(pipeline.pose_guider(pixels), frames(given["unet0.pose_features"][:1]))
    context = unet.prepare(given["unet0.encoder_hidden_states"], recorded)
    guided = frames(given["unet0.pose_features"])
    out = unet(frames(sample), given["unet0.timestep"], context, guided, frames=window)
    yield "unet0.out", off(out, frames(given["unet0.out"]))
    keys = ("context_frames", "context_overlap", "guidance_scale")
    arguments = size | {key: case[key] for key in keys} | {"num_inference_steps": case["steps"], "tail": "flush"}
    noise = torch.randn(given["latents.final"].shape, generator=torch.Generator().manual_seed(case["seed"]))
    latents = pipeline(reference, poses, output_type="latent", latents=noise, **arguments).frames
    yield "latents.final", off(latents, given["latents.final"])
    yield "video", off(pipeline.decode(frames(latents)), frames(given["video"]))


def start(check: Check) -> None:
    """The initial noise, drawn on the CPU: bit-equal for a pipeline on the device."""
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        schedule = DDIMScheduler(**NOISE)
        pipelines = (Pose2VideoPipeline(**tiny(dtype, device), scheduler=schedule) for device in (check.device, "cpu"))
        there, here = (pipeline.initial_noise(5, SamplingOptions(width=32, height=40)) for pipeline in pipelines)
        error = (there.cpu().float() - here.float()).abs().max().item()
        check.report.add(1, f"initial noise, {_name(dtype)}", error == 0, off_by=error)


def halves(check: Check) -> None:
    """Videos in half precision against float32, same initial noise: tiny models, and the check's models, small size."""
    side, frames, steps = check.scale.near
    near = {"width": side, "height": side, "num_inference_steps": steps, "context_overlap": 0}
    small = near | {"width": 32, "height": 32, "num_inference_steps": 4}
    own = f"{side} x {side} x {frames}, {steps} steps"
    for name, make, arguments, count, least in (
        ("tiny models", lambda dtype: tiny(dtype, check.device), small, 4, LEAST_PSNR),
        (own, lambda dtype: check.pipeline(dtype).components, near, frames, {}),
    ):
        whole = None
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            models = {part: model for part, model in make(dtype).items() if part != "scheduler"}
            pipeline = Pose2VideoPipeline(**models, scheduler=DDIMScheduler(**NOISE))
            reference, poses = random_inputs(arguments["width"], count)
            with exact_float32():
                given = {"context_frames": count, "output_type": "pt", **same_start(pipeline, count, arguments)}
                video = pipeline(reference, poses, **given, **arguments).frames
            del pipeline, models
            check.release()
            whole = video if whole is None else whole
            contrast = whole.std().item()
            if dtype != torch.float32:
                differences = video - whole
                values = {"psnr_dB": psnr(differences), "largest": differences.abs().max().item()}
                ok = values["psnr_dB"] >= least.get(dtype, 0.0)  # False for NaN
                check.report.add(1, f"{name}: {_name(dtype)} against float32", ok, **values, contrast=contrast)


def psnr(differences: Tensor) -> float:
    """PSNR in dB from the differences of values in [0, 1]."""
    return -10 * differences.double().square().mean().clamp(min=1e-20).log10().item()


def same_start(pipeline: Pose2VideoPipeline, frames: int, arguments: dict) -> dict:
    """The same float32 noise for every precision: torch may draw other numbers in float16 or bfloat16."""
    side = pipeline.vae_scale_factor
    plane = (arguments["height"] // side, arguments["width"] // side)
    shape = (1, pipeline.denoising_unet.config.in_channels, frames, *plane)
    return {"latents": torch.randn(shape, generator=torch.Generator().manual_seed(99))}


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
