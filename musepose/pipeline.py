"""The image stage: one reference picture and a skeleton video → the video of that person in those poses."""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import transformers
from diffusers import AutoencoderKL, DDIMScheduler, DiffusionPipeline
from diffusers.image_processor import VaeImageProcessor
from diffusers.utils import BaseOutput
from einops import rearrange
from PIL import Image
from torch import Tensor
from transformers import CLIPVisionModelWithProjection

from musepose.errors import UserError
from musepose.models.attention import BlockContext
from musepose.models.pose_guider import PoseGuider
from musepose.models.unet import UNet
from musepose.models.weights import WeightPaths, load_models, scheduler_config
from musepose.windows import WindowAverage, check_windows, padded_length, windows

CLIP_SIDE = 224
# From transformers 5 on, the plain name needs torchvision; the one that works with PIL alone has a name of its own.
CLIPImageProcessor = getattr(transformers, "CLIPImageProcessorPil", None) or transformers.CLIPImageProcessor

Progress = Callable[[str, int, int], None]  # stage ("denoising" or "decoding"), done, total


def clip_pixels(pictures: Sequence[Image.Image]) -> Tensor:
    """Pictures → b 3 224 224 as CLIP wants them, squeezed into the square."""
    squares = [picture.convert("RGB").resize((CLIP_SIDE, CLIP_SIDE)) for picture in pictures]
    return CLIPImageProcessor()(squares, return_tensors="pt").pixel_values


@dataclass
class Pose2VideoOutput(BaseOutput):
    videos: Tensor  # 1 c f h w, float32 in [0, 1], on the CPU


def share_noise(noise: Tensor, common: Tensor, portion: float) -> Tensor:
    """Frames' own noise and one that all share → unit Gaussian frames, correlated by `portion`.

    This is the mixed noise of Ge et al. 2023, "Preserve Your Own Correlation".
    """
    return (1 - portion) ** 0.5 * noise + portion**0.5 * common


@contextmanager
def _temporary_folder_errors() -> Iterator[None]:
    """A temporary folder that is full or not there as a UserError that names it, not the video being written."""
    try:
        yield
    except OSError as error:
        folder = tempfile.tempdir or "(there is none)"
        raise UserError(
            f"cannot write to the temporary folder {folder} ({error.strerror or error}): free some space, or set TMPDIR"
        ) from error


class PoseFrames:
    """Skeleton pictures at sampling size in a temporary file, so that the video's length costs no memory.

    Indices past the end give the last frame: that is how a video is padded. Raises ValueError where there is no
    picture, UserError where the temporary folder cannot hold them.
    """

    def __init__(self, pictures: Iterable[np.ndarray], width: int, height: int):
        self.shape = (height, width, 3)
        self.length = 0
        with _temporary_folder_errors():
            # Unbuffered, so that a full disk shows here and not when the frames are read back.
            self._file = tempfile.TemporaryFile(prefix="musepose-", buffering=0)  # noqa: SIM115 (lives as long as this)
        resizer = VaeImageProcessor()  # the published way to resize, Lanczos on bytes
        for picture in pictures:
            resized = np.asarray(resizer.resize(Image.fromarray(picture), height, width))
            with _temporary_folder_errors():
                self._write(resized.tobytes())
            self.length += 1
        if not self.length:
            raise ValueError("there is no pose frame")

    def _write(self, data: bytes) -> None:
        """All of it: an unbuffered file may take a part, and tells of a full disk only at the next attempt."""
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) :]

    def read(self, frames: range) -> Tensor:
        """→ float32 f 3 h w in [0, 1]."""
        size = int(np.prod(self.shape))
        pictures = []
        for index in frames:
            self._file.seek(min(index, self.length - 1) * size)
            pictures.append(np.frombuffer(self._file.read(size), np.uint8).reshape(self.shape))
        return rearrange(torch.from_numpy(np.stack(pictures)), "f h w c -> f c h w").float() / 255


class Pose2VideoPipeline(DiffusionPipeline):
    """MusePose's sampling (the image animation of Animate Anyone, Hu et al. 2023, over overlapping windows)."""

    def __init__(
        self,
        vae: AutoencoderKL,
        image_encoder: CLIPVisionModelWithProjection,
        reference_unet: UNet,
        denoising_unet: UNet,
        pose_guider: PoseGuider,
        scheduler: DDIMScheduler,
    ):
        super().__init__()
        self.register_modules(
            vae=vae,
            image_encoder=image_encoder,
            reference_unet=reference_unet,
            denoising_unet=denoising_unet,
            pose_guider=pose_guider,
            scheduler=scheduler,
        )
        self.vae_scale_factor = 2 ** (len(vae.config.block_out_channels) - 1)
        self.reference_processor = VaeImageProcessor(self.vae_scale_factor, do_convert_rgb=True)

    @classmethod
    def from_published(
        cls, paths: WeightPaths, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> "Pose2VideoPipeline":
        """Load the published layout. Raises UserError as `check_weights` does."""
        return cls(**load_models(paths, device, dtype), scheduler=DDIMScheduler(**scheduler_config(paths)))

    @torch.no_grad()
    def __call__(
        self,
        reference: Image.Image,
        pose_frames: Iterable[np.ndarray],
        *,
        width: int,
        height: int,
        output_type: str = "pt",  # "pt", or "latent": 1 c f h w before decoding
        **sampling,
    ) -> Pose2VideoOutput:
        """The whole video at once, for short ones; the arguments are those of `sample`."""
        latents = self.sample(reference, pose_frames, width=width, height=height, **sampling)
        video = latents if output_type == "latent" else torch.cat([self.decode(frame[None]) for frame in latents])
        return Pose2VideoOutput(videos=rearrange(video, "f c h w -> 1 c f h w"))

    def stream(
        self,
        reference: Image.Image,
        pose_frames: Iterable[np.ndarray],
        *,
        width: int,
        height: int,
        num_frames: int,
        context_frames: int = 48,
        context_overlap: int = 4,
        progress: Progress | None = None,
        **sampling,
    ) -> Iterator[np.ndarray]:
        """Yield num_frames pictures (height, width, 3) uint8 RGB, decoded one by one.

        As published, the last pose is repeated until the windows fit (`padded_length`), and the surplus is not decoded.
        """
        latents = self.sample(
            reference,
            pose_frames,
            width=width,
            height=height,
            context_frames=context_frames,
            context_overlap=context_overlap,
            video_length=padded_length(num_frames, context_frames, context_overlap),
            progress=progress,
            **sampling,
        )
        for index in range(num_frames):
            picture = self.decode(latents[index : index + 1])[0]
            yield rearrange(picture * 255, "c h w -> h w c").round().byte().numpy()
            if progress:
                progress("decoding", index + 1, num_frames)

    @torch.no_grad()
    def sample(
        self,
        reference: Image.Image,
        pose_frames: Iterable[np.ndarray],  # (h, w, 3) uint8 RGB each, of any size
        *,
        width: int,
        height: int,
        video_length: int | None = None,  # default: as many as there are poses; if longer, the last one is repeated
        num_inference_steps: int = 20,
        guidance_scale: float = 3.5,  # no guidance where <= 1
        seed: int = 99,
        shared_noise: float = 0.0,  # portion of the starting noise's variance that is the same in all frames
        context_frames: int = 48,
        context_overlap: int = 4,
        progress: Progress | None = None,
    ) -> Tensor:
        """→ latents f c h w, denoised by DDIM (Song et al. 2020). Raises ValueError for sizes that do not fit."""
        self._check(width, height, num_inference_steps, context_frames, context_overlap)
        poses = PoseFrames(pose_frames, width, height)
        length = poses.length if video_length is None else video_length
        guided = guidance_scale > 1

        token = self.embed_reference(reference)
        features = self.reference_features(self.encode_reference(reference, width, height), token)
        rows = torch.cat([torch.zeros_like(token), token]) if guided else token
        context = self.denoising_unet.prepare(rows, features)

        latents = self.initial_noise(length, width, height, seed, shared_noise)
        self.scheduler.set_timesteps(num_inference_steps)
        for step, timestep in enumerate(self.scheduler.timesteps):
            average = WindowAverage(latents)
            for window in windows(length, context_frames, context_overlap):
                prediction = self._predict(latents[window.start : window.stop], timestep, context, poses.read(window))
                if guided:
                    unconditional, conditional = prediction.chunk(2)
                    prediction = unconditional + guidance_scale * (conditional - unconditional)
                average.add(window, prediction)
            latents = self.scheduler.step(average.mean(), timestep, latents).prev_sample
            if progress:
                progress("denoising", step + 1, num_inference_steps)
        return latents

    def encode_reference(self, reference: Image.Image, width: int, height: int) -> Tensor:
        """→ 1 c h w: the mean of the VAE's posterior in the UNets' scale."""
        pixels = self.reference_processor.preprocess(reference, height=height, width=width)
        mean = self.vae.encode(pixels.to(self.vae.device, self.vae.dtype)).latent_dist.mean
        return mean * self.vae.config.scaling_factor

    def embed_reference(self, reference: Image.Image) -> Tensor:
        """→ 1 1 d: the picture's CLIP embedding, as the one token of the cross-attention."""
        pixels = clip_pixels([reference])
        encoder = self.image_encoder
        return encoder(pixels.to(encoder.device, encoder.dtype)).image_embeds[:, None]

    def reference_features(self, latents: Tensor, token: Tensor) -> list[Tensor]:
        """Reference latents 1 c h w and token 1 1 d → the input of every spatial self-attention, 1 n c each."""
        return self.reference_unet(latents, 0, self.reference_unet.prepare(token))

    def initial_noise(self, length: int, width: int, height: int, seed: int, shared: float = 0.0) -> Tensor:
        """→ f c h w, drawn on the CPU in the sampling dtype and the published order b c f h w: the same everywhere.

        With `shared`, frames are correlated by that much (see `share_noise`).
        """
        channels = self.denoising_unet.config.in_channels
        shape = (1, channels, length, height // self.vae_scale_factor, width // self.vae_scale_factor)
        generator = torch.Generator("cpu").manual_seed(seed)
        noise = torch.randn(shape, generator=generator, dtype=self.denoising_unet.dtype)
        if shared:
            common = torch.randn(shape[:2] + (1,) + shape[3:], generator=generator, dtype=noise.dtype)
            noise = share_noise(noise, common, shared)
        noise = rearrange(noise, "1 c f h w -> f c h w").contiguous()
        return noise.to(self.denoising_unet.device) * self.scheduler.init_noise_sigma

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """f c h w → pictures f 3 H W, float32 in [0, 1], on the CPU."""
        latents = latents.to(self.vae.device, self.vae.dtype) / self.vae.config.scaling_factor
        return (self.vae.decode(latents).sample / 2 + 0.5).clamp(0, 1).float().cpu()

    def _predict(self, latents: Tensor, timestep: Tensor, context: list[BlockContext], pictures: Tensor) -> Tensor:
        """One window, latents f c h w and pictures f 3 H W → (b f) c h w, b the rows of the context."""
        pose_features = self.pose_guider(pictures.to(self.pose_guider.device, self.pose_guider.dtype))
        rows = len(context[0].text)
        return self.denoising_unet(latents.repeat(rows, 1, 1, 1), timestep, context, pose_features, frames=len(latents))

    def _check(self, width: int, height: int, steps: int, context_frames: int, context_overlap: int) -> None:
        if min(width, height) <= 0 or width % self.vae_scale_factor or height % self.vae_scale_factor:
            raise ValueError(f"the size {width} x {height} is not of positive multiples of {self.vae_scale_factor}")
        if not 1 <= steps <= self.scheduler.config.num_train_timesteps:
            raise ValueError(f"{steps} steps: 1 to {self.scheduler.config.num_train_timesteps} are possible")
        check_windows(context_frames, context_overlap)
        motion = self.denoising_unet.config.motion_module
        if motion and context_frames > motion["max_frames"]:
            raise ValueError(
                f"context_frames is {context_frames}: the motion modules know {motion['max_frames']} positions"
            )
