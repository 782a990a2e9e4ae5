"""Frozen encoders of training: pictures → VAE latents, and CLIP embeddings as the one cross-attention token."""

import hashlib
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from musepose.pipelines.images import clip_pixels
from musepose.training.config import Data
from musepose.training.data.dataset import resize_lanczos, to_tensor


class Encoder:
    """The frozen VAE and CLIP image encoder, and the training batches that they encode."""

    def __init__(self, vae: Any, image_encoder: Any, data: Data, autocast: bool = False):
        self.vae, self.image_encoder, self.data = vae, image_encoder, data
        self.autocast = autocast  # bfloat16 autocast of float32 models halves the encoding time on a CPU

    def digest(self) -> str:
        """A hash of the encoders' weights and precision, for the latents cache."""
        digest = hashlib.sha256(f"autocast {self.autocast}".encode())
        for model in (self.vae, self.image_encoder):
            digest.update(str(model.dtype).encode())
            for tensor in model.state_dict().values():
                digest.update(tensor.detach().cpu().double().sum().numpy().tobytes())
        return digest.hexdigest()[:16]

    @torch.no_grad()
    def latents(self, pixels: Tensor) -> Tensor:
        """f 3 H W in [-1, 1] → f c h w: the posterior's mean times the VAE's scaling factor, as in inference."""
        pixels = pixels.to(self.vae.device, self.vae.dtype)
        with torch.autocast(pixels.device.type, torch.bfloat16, enabled=self.autocast):
            mean = self.vae.encode(pixels).latent_dist.mean
        return (mean * self.vae.config.scaling_factor).float()

    @torch.no_grad()
    def tokens(self, pixels: Tensor) -> Tensor:
        """CLIP input f 3 224 224 → embeddings f 1 d."""
        encoder = self.image_encoder
        return encoder(pixels.to(encoder.device, encoder.dtype)).image_embeds[:, None].float()

    def encode_pictures(self, pictures: list[np.ndarray]) -> tuple[Tensor, Tensor]:
        """Pictures (h, w, 3) uint8 of any size → latents f c h w, tokens f 1 d."""
        pixels = (
            to_tensor([resize_lanczos(p, self.data.train_width, self.data.train_height) for p in pictures]) / 127.5 - 1
        )
        return self.latents(pixels), self.tokens(clip_pixels([Image.fromarray(p) for p in pictures]))

    def batch(self, samples: dict[str, Any], device: torch.device) -> dict[str, Tensor]:
        """Collate of ClipDataset → reference b c h w, token b 1 d, latents b f c h w, poses b f 3 H W in [0, 1]."""
        reference, targets = samples["reference"], samples["targets"]
        poses = targets["poses"].to(device).float() / 255
        if "latents" in targets:
            parts = reference["latents"], reference["token"], targets["latents"]
        else:
            frames = targets["pixels"]
            latents = torch.cat([self.latents(part) for part in frames.flatten(0, 1).split(8)])  # in chunks, for memory
            parts = (
                self.latents(reference["pixels"]),
                self.tokens(reference["clip_pixels"]),
                latents.unflatten(0, frames.shape[:2]),
            )
        names = ("reference", "token", "latents")
        return {name: part.to(device) for name, part in zip(names, parts, strict=True)} | {"poses": poses}
