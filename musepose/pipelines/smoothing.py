"""Latents smoothed over time in the late steps: less flicker, and a little of the sharpness."""

import torch
from torch import Tensor

from musepose.pipelines.options import SamplingOptions

SMOOTHED_FROM = 0.7  # of the steps; before, the noise that would be averaged is most of the latents


def smooth_latents(latents: Tensor, weight: float) -> Tensor:
    """f c h w → each frame's mean with its two neighbours, of `weight` each. The ends count as their own neighbours."""
    around = torch.cat([latents[:1], latents, latents[-1:]])
    return latents + weight * (around[:-2] - 2 * latents + around[2:])


def is_smoothed(step: int, options: SamplingOptions) -> bool:
    """Whether latents are smoothed after step `step`, from 0 on: after late ones, but not after the last one."""
    steps = options.num_inference_steps
    return options.smooth_latents > 0 and SMOOTHED_FROM * steps <= step < steps - 1
