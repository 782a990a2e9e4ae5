"""The image stage: one reference picture and a skeleton video → the video of that person in those poses."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
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

from musepose.memory.offload import Residency
from musepose.memory.plan import HIGH, MemoryPlan
from musepose.models.attention import BlockContext
from musepose.models.pose_guider import PoseGuider
from musepose.models.unet import UNet
from musepose.models.weights import WeightPaths, load_models, scheduler_config
from musepose.pipelines.context_windows import check_windows, padded_length, windows
from musepose.pipelines.denoising import Denoiser, PoseGuide, frames_of
from musepose.pipelines.noise import initial_noise
from musepose.pipelines.pose_frames import PoseFrames
from musepose.utils.distributed import Processes
from musepose.utils.prefetch import ahead

CLIP_SIDE = 224
DECODE_SHARE = 4  # frames that a process decodes before the next one's turn
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
        models = {name: model for name, model in self.components.items() if isinstance(model, torch.nn.Module)}
        self.residency = Residency(models)
        self.processes = Processes()

    @classmethod
    def from_published(
        cls,
        paths: WeightPaths,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        memory: MemoryPlan = HIGH,
    ) -> "Pose2VideoPipeline":
        """Load the published layout. Raises UserError as `check_weights` does."""
        models = load_models(paths, "cpu" if memory.offload else device, dtype)
        pipeline = cls(**models, scheduler=DDIMScheduler(**scheduler_config(paths)))
        # Models that never wait elsewhere may be moved by the pipeline's `to`.
        pipeline.residency = Residency(models, torch.device(device) if memory.offload else None, memory)
        return pipeline

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
        tail: str = "pad",
        progress: Progress | None = None,
        **sampling,
    ) -> Iterator[np.ndarray]:
        """Yield num_frames pictures (height, width, 3) uint8 RGB; the next ones are decoded meanwhile.

        tail: "pad", as published: the last pose is repeated until the windows fit (`padded_length`), and the surplus is
        not decoded. "flush": the last window ends at the last frame, from the same noise. With several processes every
        one yields all pictures.
        """
        padded = padded_length(num_frames, context_frames, context_overlap)
        latents = self.sample(
            reference,
            pose_frames,
            width=width,
            height=height,
            context_frames=context_frames,
            context_overlap=context_overlap,
            video_length=padded if tail == "pad" else num_frames,
            noise_length=padded,
            progress=progress,
            **sampling,
        )
        with closing(ahead(self._decode_shares(latents[:num_frames]), DECODE_SHARE)) as pictures:
            for index, picture in enumerate(pictures):
                yield picture
                if progress:
                    progress("decoding", index + 1, num_frames)

    def _decode_shares(self, latents: Tensor) -> Iterator[np.ndarray]:
        """Pictures of all frames in order. The processes take turns, a few frames each."""
        workers = self.processes
        size = min(DECODE_SHARE, -(-len(latents) // workers.count))
        height, width = (side * self.vae_scale_factor for side in latents.shape[-2:])
        for batch in latents.split(size * workers.count):
            # Every process sends as much, the last ones perhaps black pictures that are cut off again.
            pictures = torch.zeros(size, height, width, 3, dtype=torch.uint8)
            mine = batch[workers.rank * size : (workers.rank + 1) * size]
            if len(mine):
                pictures[: len(mine)] = rearrange(self.decode(mine) * 255, "f c h w -> f h w c").round().byte()
            yield from torch.cat(workers.gather(pictures))[: len(batch)].numpy()

    @torch.no_grad()
    def sample(
        self,
        reference: Image.Image,
        pose_frames: Iterable[np.ndarray],  # (h, w, 3) uint8 RGB each, of any size
        *,
        width: int,
        height: int,
        video_length: int | None = None,  # default: as many as there are poses; if longer, the last one is repeated
        noise_length: int | None = None,  # default: video_length; if longer, the noise is that of a longer video
        num_inference_steps: int = 20,
        guidance_scale: float = 3.5,  # no guidance where <= 1
        seed: int = 99,
        shared_noise: float = 0.0,  # portion of the starting noise's variance that is the same in all frames
        context_frames: int = 48,
        context_overlap: int = 4,
        progress: Progress | None = None,
    ) -> Tensor:
        """→ latents f c h w, denoised by DDIM (Song et al. 2020). Raises ValueError for sizes that do not fit."""
        self.check(width, height, num_inference_steps, context_frames, context_overlap)
        guided = guidance_scale > 1

        def spans_of(length: int) -> list[range]:
            return list(windows(length, context_frames, context_overlap))

        wanted = None if video_length is None else frames_of(spans_of(video_length), 1 + guided, self.processes)
        poses = PoseFrames(pose_frames, width, height, wanted)
        length = poses.length if video_length is None else video_length
        contexts = self.residency.within_memory(lambda: self.prepare(reference, width, height, guided))
        latents = self.initial_noise(noise_length or length, width, height, seed, shared_noise)[:length]
        spans = spans_of(length)
        guide = PoseGuide(self.pose_guider, poses, spans, self.residency)
        denoiser = Denoiser(self.denoising_unet, contexts, guide, spans, self.residency, self.processes)
        self.scheduler.set_timesteps(num_inference_steps)
        for step, timestep in enumerate(self.scheduler.timesteps):
            for frames, prediction in denoiser(latents, float(timestep)):
                if len(contexts) == 2:
                    unconditional, conditional = prediction
                    guided = unconditional + guidance_scale * (conditional - unconditional)
                else:
                    guided = prediction[0]
                part = latents[frames.start : frames.stop]
                part.copy_(self.scheduler.step(guided, timestep, part).prev_sample)
            if progress:
                progress("denoising", step + 1, num_inference_steps)
        return latents

    def prepare(self, reference: Image.Image, width: int, height: int, guided: bool) -> list[list[BlockContext]]:
        """What stays the same over a sampling, for each row of the guidance: the unconditional one first."""
        token = self.embed_reference(reference)
        features = self.reference_features(self.encode_reference(reference, width, height), token)
        return self.contexts(token, features, guided)

    def contexts(self, token: Tensor, features: list[Tensor], guided: bool) -> list[list[BlockContext]]:
        """Token 1 1 d and the reference's features → the rows of `prepare`."""
        self.residency.use("denoising_unet", "pose_guider")
        rows = [self.denoising_unet.prepare(torch.zeros_like(token))] if guided else []
        return [*rows, self.denoising_unet.prepare(token, features)]

    def encode_reference(self, reference: Image.Image, width: int, height: int) -> Tensor:
        """→ 1 c h w: the mean of the VAE's posterior in the UNets' scale."""
        self.residency.use("vae")
        pixels = self.reference_processor.preprocess(reference, height=height, width=width)
        mean = self.vae.encode(pixels.to(self.vae.device, self.vae.dtype)).latent_dist.mean
        return mean * self.vae.config.scaling_factor

    def embed_reference(self, reference: Image.Image) -> Tensor:
        """→ 1 1 d: the picture's CLIP embedding, as the one token of the cross-attention."""
        self.residency.use("image_encoder")
        pixels = clip_pixels([reference])
        encoder = self.image_encoder
        return encoder(pixels.to(encoder.device, encoder.dtype)).image_embeds[:, None]

    def reference_features(self, latents: Tensor, token: Tensor) -> list[Tensor]:
        """Reference latents 1 c h w and token 1 1 d → the input of every spatial self-attention, 1 n c each."""
        self.residency.use("reference_unet")
        return self.reference_unet(latents, 0, self.reference_unet.prepare(token))

    def initial_noise(self, length: int, width: int, height: int, seed: int, shared: float = 0.0) -> Tensor:
        """→ f c h w in the sampling dtype, of the scheduler's variance, see `noise.initial_noise`."""
        side = self.vae_scale_factor
        plane = (self.denoising_unet.config.in_channels, height // side, width // side)
        noise = initial_noise(length, plane, seed, self.denoising_unet.dtype, self.residency.device, shared)
        return noise * self.scheduler.init_noise_sigma if self.scheduler.init_noise_sigma != 1 else noise

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """f c h w → pictures f 3 H W, float32 in [0, 1], on the CPU."""
        self.residency.use("vae")
        latents = latents.to(self.vae.device, self.vae.dtype) / self.vae.config.scaling_factor

        def attempt() -> Tensor:
            return torch.cat([self._decode(part) for part in latents.split(self.residency.plan.decode_frames)])

        return self.residency.within_memory(attempt)

    def _decode(self, latents: Tensor) -> Tensor:
        return (self.vae.decode(latents).sample / 2 + 0.5).clamp(0, 1).float().cpu()

    def check(self, width: int, height: int, steps: int, context_frames: int, context_overlap: int) -> None:
        """Raises ValueError: these models cannot sample that."""
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
