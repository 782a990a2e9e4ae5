"""Checks the options of an evaluation, loads its models, and generates clips with them."""

import functools
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from musepose.models.weights import WeightPaths, check_weights
from musepose.pipelines.pose2video import Pose2VideoPipeline
from musepose.pose.detectors.dwpose.detector import PoseDetector
from musepose.utils.device import choose_device
from musepose.utils.errors import UserError
from puppet.options import Options
from puppet.scenes import SPAN

RENDERED = 384  # pixels, side of the rendered images, larger than the sampling size as in real use
RATE = 15  # frames per second
CLIP_START = 1.8  # seconds into a scene


@functools.cache
def load_pipeline(options: Options, stage: int) -> Pose2VideoPipeline:
    """Cached: loaded once per process. Raises UserError as `check_weights` does."""
    return Pose2VideoPipeline.from_published(weight_paths(options, stage), choose_device(options.device))


@functools.cache
def load_detector(options: Options) -> PoseDetector:
    """Cached: loaded once per process. Raises UserError as PoseDetector does."""
    yolox, dwpose = options.detector_weights
    return PoseDetector(options.yolox_config, yolox, options.dwpose_config, dwpose, device=options.device)


def has_detector(options: Options) -> bool:
    return all(path.is_file() for path in options.detector_weights)


def weight_paths(options: Options, stage: int) -> WeightPaths:
    config = options.inference_config if stage == 2 else options.stage_1_config
    return WeightPaths.published(options.weights, config)


def check(options: Options) -> None:
    """Raises UserError: missing or unsuitable weights, contradictory numbers. Loads no model."""
    if options.context_overlap >= options.context_frames:
        raise UserError(
            f"--context_overlap {options.context_overlap} is not below --context_frames {options.context_frames}: "
            "lower --context_overlap"
        )
    longest = int((SPAN - CLIP_START) * RATE) + 1
    for name, frames in (
        ("--clip_frames", options.clip_frames),
        ("three windows of --context_frames", longest_clip(options)),
    ):
        if frames > longest:
            raise UserError(f"{name} need {frames} frames, a scene has {longest}: give less")
    if options.baseline_frames > options.clip_frames:
        raise UserError(
            f"--baseline_frames is {options.baseline_frames}, --clip_frames {options.clip_frames}: lower the former"
        )
    choose_device(options.device)
    for stage in stages(options):
        check_weights(weight_paths(options, stage))


def longest_clip(options: Options) -> int:
    """Frames of the longest clip over several context windows; 0 without such clips."""
    return options.long_frames if options.motion else 0


def stages(options: Options) -> list[int]:
    """The stages to run: the evaluated one, and stage 1 alone for comparison."""
    return [2, 1] if options.stage == 2 and options.motion else [options.stage]


def animate(
    pipeline: Pose2VideoPipeline,
    reference: Image.Image,
    poses: Sequence[np.ndarray],
    options: Options,
    seed: int,
    long: bool = False,  # over overlapping context windows; else all frames in one
) -> list[np.ndarray]:
    """→ frames (size, size, 3) uint8 RGB, one per pose."""
    context = (options.context_frames, options.context_overlap) if long else (len(poses), 0)
    frames = pipeline.stream(
        reference,
        poses,
        width=options.size,
        height=options.size,
        num_frames=len(poses),
        num_inference_steps=options.steps,
        guidance_scale=options.cfg,
        seed=seed,
        shared_noise=options.shared_noise,
        context_frames=context[0],
        context_overlap=context[1],
    )
    return list(frames)


@torch.no_grad()
def autoencode(pipeline: Pose2VideoPipeline, picture: np.ndarray) -> np.ndarray:
    """Encode and decode an image (h, w, 3) uint8 with the VAE: an upper bound on the model's quality."""
    height, width = picture.shape[:2]
    decoded = pipeline.decode(pipeline.encode_reference(Image.fromarray(picture), width, height))[0]
    return (decoded * 255).round().byte().numpy().transpose(1, 2, 0)
