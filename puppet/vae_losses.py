"""Losses of the puppets' autoencoder: weighted pixel errors, and a small discriminator."""

import torch.nn.functional as F
from torch import Tensor, nn


def reconstruction_loss(output: Tensor, images: Tensor, masks: Tensor, figure_weight: float) -> Tensor:
    """L1 + MSE; pixels of the figure weigh `figure_weight`, those of the background 1."""
    weights = 1 + (figure_weight - 1) * masks
    error = output - images
    return ((error.abs() + error.square()) * weights).sum() / (3 * weights.sum())


class PatchDiscriminator(nn.Module):
    """PatchGAN discriminator (Isola et al. 2017): receptive field 18 pixels, stride 4."""

    def __init__(self, channels: int):
        super().__init__()
        wide = 2 * channels
        self.layers = nn.Sequential(
            nn.Conv2d(3, channels, 4, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(channels, wide, 4, 2, 1),
            nn.GroupNorm(4, wide),
            nn.LeakyReLU(0.2),
            nn.Conv2d(wide, wide, 3, 1, 1),
            nn.GroupNorm(4, wide),
            nn.LeakyReLU(0.2),
            nn.Conv2d(wide, 1, 1),
        )

    def forward(self, images: Tensor) -> Tensor:
        """(b, 3, h, w) → logits (b, 1, h/4, w/4), positive for real images."""
        return self.layers(images)


def hinge_loss(true: Tensor, made: Tensor, masks: Tensor, figure_weight: float) -> Tensor:
    """The discriminator's hinge loss (Lim & Ye 2017), from its logits for images and for reconstructions."""
    errors = F.relu(1 - true) + F.relu(1 + made)
    return weighted_mean(errors, masks, figure_weight)


def weighted_mean(answers: Tensor, masks: Tensor, figure_weight: float) -> Tensor:
    """Mean of (b, 1, h/4, w/4); patches of the figure weigh `figure_weight`, those of the background 1."""
    weights = 1 + (figure_weight - 1) * F.interpolate(masks, answers.shape[-2:], mode="area")
    return (answers * weights).sum() / weights.sum()


__all__ = ["PatchDiscriminator", "hinge_loss", "reconstruction_loss", "weighted_mean"]
