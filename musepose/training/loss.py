"""What the UNets learn: the noise schedule, the draws of each sample, the target, and what a timestep counts."""

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DDIMScheduler
from diffusers.training_utils import compute_snr
from torch import Tensor

from musepose.pipelines.noise import share_noise
from musepose.training.checkpoints import seeded
from musepose.training.config import TimestepBias, TrainConfig
from musepose.utils.errors import UserError


@dataclass(frozen=True)
class Draws:
    """What chance decides about b samples of f frames."""

    noise: Tensor  # b f c h w
    timesteps: Tensor  # b f int64
    dropped: Tensor  # b bool: no CLIP token and no reference, as the unconditional rows of the sampling have it


class Objective:
    """Denoising with v- or noise prediction (Salimans & Ho 2022) and min-SNR weights (Hang et al. 2023).

    The schedule has zero terminal SNR (Lin et al. 2023) where its settings say so; the noise has an offset (Guttenberg
    2023), one number a clip and channel. All draws come from a sample's own seed: how samples are spread over batches
    and processes changes nothing.
    """

    def __init__(self, config: TrainConfig, frames_share_timestep: bool):
        self.scheduler = make_scheduler(config.noise_scheduler_kwargs)
        self.steps = self.scheduler.config.num_train_timesteps
        self.uncond_ratio, self.noise_offset, self.snr_gamma = (
            config.uncond_ratio,
            config.noise_offset,
            config.snr_gamma,
        )
        self.shared_noise = config.shared_noise
        self.bias: TimestepBias = config.timestep_bias
        self.frames_share_timestep = frames_share_timestep

    def draw(self, seeds: list[int], shape: tuple[int, int, int, int]) -> Draws:
        """For samples of `shape` f c h w, one seed each."""
        return Draws(*(torch.stack(parts) for parts in zip(*(self._draw(seed, shape) for seed in seeds), strict=True)))

    def _draw(self, seed: int, shape: tuple[int, int, int, int]) -> tuple[Tensor, Tensor, Tensor]:
        frames, channels = shape[:2]
        generator = seeded(seed)
        noise = torch.randn(shape, generator=generator)
        if self.shared_noise:
            noise = share_noise(noise, torch.randn(1, *shape[1:], generator=generator), self.shared_noise)
        noise += self.noise_offset * torch.randn(1, channels, 1, 1, generator=generator)
        count = 1 if self.frames_share_timestep else frames
        biased = torch.rand(count, generator=generator) < self.bias.portion
        first = torch.where(biased, self.bias.first, 0)
        timesteps = first + (torch.rand(count, generator=generator) * (self.steps - first)).long()
        dropped = torch.rand((), generator=generator) < self.uncond_ratio
        return noise, timesteps.expand(frames), dropped

    def noisy(self, latents: Tensor, draws: Draws) -> Tensor:
        """Latents b f c h w with the noise of their timesteps."""
        flat = self.scheduler.add_noise(*(t.flatten(0, 1) for t in (latents, draws.noise, draws.timesteps)))
        return flat.unflatten(0, latents.shape[:2])

    def losses(self, prediction: Tensor, latents: Tensor, draws: Draws) -> Tensor:
        """→ b f, the weighted squared error of each frame."""
        if self.scheduler.config.prediction_type == "v_prediction":
            flat = self.scheduler.get_velocity(*(t.flatten(0, 1) for t in (latents, draws.noise, draws.timesteps)))
            target = flat.unflatten(0, latents.shape[:2])
        else:
            target = draws.noise
        errors = (prediction.float() - target.float()).square().mean((2, 3, 4))
        return errors * self.weights(draws.timesteps)

    def weights(self, timesteps: Tensor) -> Tensor:
        """min(SNR, gamma) / (SNR + 1) for v-prediction, / SNR for noise prediction; 1 without a gamma."""
        if self.snr_gamma is None:
            return torch.ones_like(timesteps, dtype=torch.float32)
        snr = compute_snr(self.scheduler, timesteps.flatten().cpu()).view_as(timesteps).to(timesteps.device)
        if self.scheduler.config.prediction_type == "v_prediction":
            return snr.clamp(max=self.snr_gamma) / (snr + 1)
        return (self.snr_gamma / snr).clamp(max=1)  # as min(SNR, gamma) / SNR, but not 0 / 0 where the SNR is zero


def make_scheduler(settings: dict[str, Any]) -> DDIMScheduler:
    """Raises UserError: a setting that the schedule does not have, or a value that it does not know."""
    try:
        return DDIMScheduler(**settings)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise UserError(f"noise_scheduler_kwargs: {error}: compare it with the configs/train_*.yaml") from error
