"""The denoising loss: noise schedule, random noise and timesteps, prediction target, min-SNR weights."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler
from diffusers.training_utils import compute_snr
from torch import Tensor

from musepose.pipelines.noise import share_noise
from musepose.pipelines.schedulers import make_scheduler
from musepose.training.config import TimestepBias, TrainConfig
from musepose.training.seeding import seeded_generator

DRAWN = 0.2  # brightness above which a pixel of a pose picture is drawn: video compression leaves less
FIGURE_MARGIN = 1 / 24  # of the picture's shorter side


@dataclass(frozen=True)
class NoiseSample:
    """Random numbers of a training batch: b samples of f frames."""

    noise: Tensor  # b f c h w
    timesteps: Tensor  # b f int64
    dropped: Tensor  # b bool: without CLIP token and reference, as the unconditional CFG branch

    def to(self, device: torch.device) -> "NoiseSample":
        return NoiseSample(self.noise.to(device), self.timesteps.to(device), self.dropped.to(device))


class DenoisingLoss:
    """MSE on v- or noise prediction (Salimans & Ho 2022) with min-SNR weights (Hang et al. 2023).

    The schedule may have zero terminal SNR (Lin et al. 2023). Offset noise (Guttenberg 2023) adds one random number for
    each clip and channel. Every sample has its own seed, so batch size and number of processes change nothing.
    """

    def __init__(self, config: TrainConfig, frames_share_timestep: bool):
        self.scheduler = make_noise_schedule(config.noise_scheduler_kwargs)
        self.num_train_timesteps = self.scheduler.config.num_train_timesteps
        self.uncond_ratio, self.noise_offset, self.snr_gamma = (
            config.uncond_ratio,
            config.noise_offset,
            config.snr_gamma,
        )
        self.shared_noise = config.shared_noise
        self.bias: TimestepBias = config.timestep_bias
        self.frames_share_timestep = frames_share_timestep

    def sample(self, seeds: list[int], shape: tuple[int, int, int, int]) -> NoiseSample:
        """Noise, timesteps and CFG dropout for samples of `shape` f c h w, one seed each."""
        samples = (self._sample(seed, shape) for seed in seeds)
        return NoiseSample(*(torch.stack(parts) for parts in zip(*samples, strict=True)))

    def _sample(self, seed: int, shape: tuple[int, int, int, int]) -> tuple[Tensor, Tensor, Tensor]:
        frames, channels = shape[:2]
        generator = seeded_generator(seed)
        noise = torch.randn(shape, generator=generator)
        if self.shared_noise:
            noise = share_noise(noise, torch.randn(1, *shape[1:], generator=generator), self.shared_noise)
        noise += self.noise_offset * torch.randn(1, channels, 1, 1, generator=generator)
        count = 1 if self.frames_share_timestep else frames
        biased = torch.rand(count, generator=generator) < self.bias.portion
        first = torch.where(biased, self.bias.first, 0)
        timesteps = first + (torch.rand(count, generator=generator) * (self.num_train_timesteps - first)).long()
        dropped = torch.rand((), generator=generator) < self.uncond_ratio
        return noise, timesteps.expand(frames), dropped

    def add_noise(self, latents: Tensor, sample: NoiseSample) -> Tensor:
        """Latents b f c h w → noisy latents b f c h w at the sample's timesteps."""
        flat = self.scheduler.add_noise(*(t.flatten(0, 1) for t in (latents, sample.noise, sample.timesteps)))
        return flat.unflatten(0, latents.shape[:2])

    def per_frame(
        self, prediction: Tensor, latents: Tensor, sample: NoiseSample, weights: Tensor | None = None
    ) -> Tensor:
        """Prediction and latents b f c h w → the weighted MSE of each frame, b f.

        `weights` of the pixels, b f h w; None: all alike.
        """
        if self.scheduler.config.prediction_type == "v_prediction":
            flat = self.scheduler.get_velocity(*(t.flatten(0, 1) for t in (latents, sample.noise, sample.timesteps)))
            target = flat.unflatten(0, latents.shape[:2])
        else:
            target = sample.noise
        squares = (prediction.float() - target.float()).square()
        if weights is None:
            errors = squares.mean((2, 3, 4))
        else:
            errors = (squares.mean(2) * weights).sum((2, 3)) / weights.sum((2, 3))
        return errors * self.min_snr_weights(sample.timesteps)

    def min_snr_weights(self, timesteps: Tensor) -> Tensor:
        """min(SNR, gamma) / (SNR + 1) for v-prediction, min(SNR, gamma) / SNR for noise prediction; 1 without gamma."""
        if self.snr_gamma is None:
            return torch.ones_like(timesteps, dtype=torch.float32)
        snr = compute_snr(self.scheduler, timesteps.flatten().cpu()).view_as(timesteps).to(timesteps.device)
        if self.scheduler.config.prediction_type == "v_prediction":
            return snr.clamp(max=self.snr_gamma) / (snr + 1)
        return (self.snr_gamma / snr).clamp(max=1)  # the same, but not 0 / 0 where the SNR is zero


def figure_weights(poses: Tensor, size: tuple[int, int], weight: float) -> Tensor | None:
    """Weights of the latents' pixels from pose pictures b f 3 H W in [0, 1] → b f h w of `size`; None if all are 1.

    The figure is the drawn pose and 1/24 of the picture around it: on puppets this covers 98 % of a figure, and of
    what it covers two thirds are figure.
    """
    if weight == 1:
        return None
    drawn = (poses.flatten(0, 1).amax(1, keepdim=True) > DRAWN).float()
    radius = max(1, round(min(size) * FIGURE_MARGIN))
    figure = F.max_pool2d(F.adaptive_max_pool2d(drawn, size), 2 * radius + 1, stride=1, padding=radius)
    return (1 + (weight - 1) * figure[:, 0]).unflatten(0, poses.shape[:2])


def make_noise_schedule(settings: dict[str, Any]) -> DDIMScheduler:
    """The noise schedule. Raises UserError: DDIMScheduler does not have this argument, or refuses its value."""
    return make_scheduler(settings, example="the configs/train_*.yaml")
