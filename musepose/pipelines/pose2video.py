"""The sampling pipeline: a reference picture and a pose video → a video of that person in these poses."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DiffusionPipeline, SchedulerMixin
from diffusers.image_processor import VaeImageProcessor
from diffusers.utils import BaseOutput
from einops import rearrange
from PIL import Image
from torch import Tensor
from transformers import CLIPVisionModelWithProjection

from musepose.memory.offload import ModelOffloader
from musepose.memory.plan import HIGH, MemoryPlan
from musepose.models.attention import BlockContext
from musepose.models.pose_guider import PoseGuider
from musepose.models.unet import UNet
from musepose.models.weights import WeightPaths, load_models, scheduler_config
from musepose.pipelines.context_windows import padded_length
from musepose.pipelines.denoising import Denoiser, PoseFeatures
from musepose.pipelines.guidance import Guide
from musepose.pipelines.images import OUTPUT_TYPES, Picture, clip_pixels, convert_output, rgb_array, to_bytes
from musepose.pipelines.noise import video_noise
from musepose.pipelines.options import SamplingOptions
from musepose.pipelines.pose_frames import PoseFrames
from musepose.pipelines.schedulers import make_scheduler, set_timesteps, timesteps_of
from musepose.pipelines.smoothing import is_smoothed, smooth_latents
from musepose.pipelines.steps import Step, frames_of, plan_steps
from musepose.utils.distributed import ProcessGroup
from musepose.utils.errors import UserError
from musepose.utils.prefetch import prefetch

DECODE_SHARE = 4  # frames that are decoded together, and prefetched
Progress = Callable[[str, int, int], None]  # stage ("denoising" or "decoding"), done, total
StepCallback = Callable[["Pose2VideoPipeline", int, Tensor, dict[str, Tensor]], "dict[str, Tensor] | None"]


@dataclass
class Pose2VideoOutput(BaseOutput):
    """frames: a batch of one video, see `convert_output`; as "latent": (1, c, f, h, w)."""

    frames: list[list[Image.Image]] | np.ndarray | Tensor


class Pose2VideoPipeline(DiffusionPipeline):
    """MusePose's sampling (the image animation of Animate Anyone, Hu et al. 2023, over overlapping windows)."""

    def __init__(
        self,
        vae: AutoencoderKL,
        image_encoder: CLIPVisionModelWithProjection,
        reference_unet: UNet,
        denoising_unet: UNet,
        pose_guider: PoseGuider,
        scheduler: SchedulerMixin,  # any of diffusers' for v- or noise prediction
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
        self.offloader = ModelOffloader(self.models)
        self.group = ProcessGroup()

    @classmethod
    def from_published(
        cls,
        paths: WeightPaths,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        memory: MemoryPlan = HIGH,
        scheduler: str = "ddim",  # one of `schedulers.SCHEDULERS`
    ) -> "Pose2VideoPipeline":
        """Load the published layout. Raises UserError as `check_weights` and `make_scheduler` do."""
        schedule = make_scheduler(scheduler_config(paths), scheduler)
        pipeline = cls(**load_models(paths, "cpu" if memory.offload else device, dtype), scheduler=schedule)
        # Without offloading, the device is where the pipeline's `to` puts the models.
        pipeline.offloader = ModelOffloader(pipeline.models, torch.device(device) if memory.offload else None, memory)
        return pipeline

    def models(self) -> Mapping[str, torch.nn.Module]:
        """The networks among the components, by name."""
        return {name: model for name, model in self.components.items() if isinstance(model, torch.nn.Module)}

    @property
    def vae_scale_factor(self) -> int:
        """Side of a latent in pixels."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def reference_processor(self) -> VaeImageProcessor:
        return VaeImageProcessor(self.vae_scale_factor, do_convert_rgb=True)

    @torch.no_grad()
    def __call__(
        self,
        image: Picture,  # the reference
        pose_images: Iterable[Picture],  # skeleton pictures of any size
        options: SamplingOptions | None = None,
        *,
        num_frames: int | None = None,  # default: as many as there are pose images
        generator: torch.Generator | None = None,  # of the noise; default: one from options.seed
        latents: Tensor | None = None,  # initial noise 1 c f h w of unit variance, f with padding
        output_type: str = "pil",  # "pil", "np", "pt" or "latent"
        # Receives latents, the UNet's input as "sample", and "prediction", f c h w each; may return other latents.
        callback_on_step_end: StepCallback | None = None,
        return_dict: bool = True,
        progress: Progress | None = None,
        **changes: Any,  # fields of SamplingOptions that override `options`, such as width=512
    ) -> Pose2VideoOutput | tuple:
        """Sample a whole video in memory; `stream` is for long videos.

        Pictures are PIL's, (h, w, 3) uint8 RGB arrays, or (3, h, w) tensors. Every process of a group returns all
        frames. Raises ValueError: invalid arguments; UserError: latents or pictures are not finite.
        """
        options = replace(options or SamplingOptions(), **changes)
        self.check(options, num_frames, output_type)
        set_timesteps(self.scheduler, options.num_inference_steps, options.spacing)

        poses, shown, steps = self._read_poses(pose_images, num_frames, options)
        contexts = self.offloader.within_memory(lambda: self.prepare(image, options))
        windows = {window for step in steps for window in step.windows}
        features = PoseFeatures(self.pose_guider, poses, windows, self.offloader)
        how = (self.offloader, self.group, options.blend, options.shallow_layers)
        predict = Denoiser(self.denoising_unet, contexts, features, *how)
        guide = Guide(options.guidance_scale, options.guidance_every > 1)

        length = steps[0].windows[-1].stop
        given = None if latents is None else self._given(latents, length, options)
        latents = self.initial_noise(shown, options, generator)[:length] if given is None else given
        latents = latents * self.scheduler.init_noise_sigma if self.scheduler.init_noise_sigma != 1 else latents
        for step, timestep in enumerate(self.scheduler.timesteps):
            sample = self.scheduler.scale_model_input(latents, timestep)
            prediction = guide(predict(sample, float(timestep), steps[step]), steps[step])
            latents = self.scheduler.step(prediction, timestep, latents, return_dict=False)[0]
            if is_smoothed(step, options):
                latents = smooth_latents(latents, options.smooth_latents)
            _require_finite(latents, f"step {step + 1}")
            if callback_on_step_end:
                tensors = {"latents": latents, "sample": sample, "prediction": prediction}
                latents = (callback_on_step_end(self, step, timestep, tensors) or {}).get("latents", latents)
            if progress:
                progress("denoising", step + 1, options.num_inference_steps)

        latents = latents[:shown]
        if output_type == "latent":
            frames = rearrange(latents, "f c h w -> 1 c f h w")
        else:
            frames = convert_output(torch.cat([self.decode(part) for part in latents.split(DECODE_SHARE)]), output_type)
        return Pose2VideoOutput(frames=frames) if return_dict else (frames,)

    def stream(
        self,
        image: Picture,
        pose_images: Iterable[Picture],
        options: SamplingOptions | None = None,
        *,
        progress: Progress | None = None,
        **arguments: Any,  # as of `__call__`
    ) -> Iterator[np.ndarray]:
        """Yield the frames (height, width, 3) uint8 RGB one by one; the next ones are prefetched."""
        latents = self.sample_latents(image, pose_images, options, progress=progress, **arguments)
        yield from self.decode_stream(latents, progress)

    def sample_latents(
        self,
        image: Picture,
        pose_images: Iterable[Picture],
        options: SamplingOptions | None = None,
        **arguments: Any,  # as of `__call__`
    ) -> Tensor:
        """→ the denoised latents f c h w, in every process of a group."""
        arguments |= {"output_type": "latent", "return_dict": False}
        (latents,) = self(image, pose_images, options, **arguments)
        return rearrange(latents, "1 c f h w -> f c h w")

    def decode_stream(self, latents: Tensor, progress: Progress | None = None) -> Iterator[np.ndarray]:
        """Latents f c h w → the frames as of `stream`. Every process of a group decodes what it is given."""
        decoded = (one for part in latents.split(DECODE_SHARE) for one in to_bytes(self.decode(part)).numpy())
        with closing(prefetch(decoded, DECODE_SHARE)) as pictures:
            for index, picture in enumerate(pictures):
                yield picture
                if progress:
                    progress("decoding", index + 1, len(latents))

    def _read_poses(
        self, pictures: Iterable[Picture], num_frames: int | None, options: SamplingOptions
    ) -> tuple[PoseFrames, int, list[Step]]:
        """→ pose frames, number of frames to return, the work of each step."""
        if num_frames is None:
            poses = PoseFrames(pictures, options.width, options.height)
            return poses, poses.length, plan_steps(options, poses.length, self.group.count)
        steps = plan_steps(options, num_frames, self.group.count)
        wanted = set().union(*(frames_of(step.shares[self.group.rank]) for step in steps))
        return PoseFrames(pictures, options.width, options.height, wanted), num_frames, steps

    def prepare(self, image: Picture, options: SamplingOptions) -> list[list[BlockContext]]:
        """The UNet's inputs that are the same in all steps, for each CFG branch, the unconditional one first."""
        image = Image.fromarray(rgb_array(image, background="white"))
        token = self.embed_reference(image)
        features = self.reference_features(self.encode_reference(image, options.width, options.height), token)
        return self.contexts(token, features, options.guided)

    def contexts(self, token: Tensor, features: list[Tensor], guided: bool) -> list[list[BlockContext]]:
        """Token 1 1 d and reference features → the result of `prepare`."""
        self.offloader.use("denoising_unet", "pose_guider")
        unconditional = [self.denoising_unet.prepare(torch.zeros_like(token))] if guided else []
        return [*unconditional, self.denoising_unet.prepare(token, features)]

    def encode_reference(self, image: Image.Image, width: int, height: int) -> Tensor:
        """→ 1 c h w: the mean of the VAE's posterior times its scaling factor."""
        self.offloader.use("vae")
        pixels = self.reference_processor.preprocess(image, height=height, width=width)
        mean = self.vae.encode(pixels.to(self.vae.device, self.vae.dtype)).latent_dist.mean
        return mean * self.vae.config.scaling_factor

    def embed_reference(self, image: Image.Image) -> Tensor:
        """→ 1 1 d: the picture's CLIP embedding, the only token of the cross-attention."""
        self.offloader.use("image_encoder")
        pixels = clip_pixels([image])
        encoder = self.image_encoder
        return encoder(pixels.to(encoder.device, encoder.dtype)).image_embeds[:, None]

    def reference_features(self, latents: Tensor, token: Tensor) -> list[Tensor]:
        """Reference latents 1 c h w and token 1 1 d → the input of every spatial self-attention, 1 n c each."""
        self.offloader.use("reference_unet")
        return self.reference_unet(latents, 0, self.reference_unet.prepare(token))

    def initial_noise(
        self, num_frames: int, options: SamplingOptions, generator: torch.Generator | None = None
    ) -> Tensor:
        """→ f c h w for the padded length, in the sampling dtype, of unit variance, see `video_noise`."""
        length = padded_length(num_frames, options.context_frames, options.context_overlap)
        generator = generator or torch.Generator("cpu").manual_seed(options.seed)
        return video_noise(
            length, self._plane(options), generator, self.denoising_unet.dtype, self.offloader.device, options
        )

    def _given(self, latents: Tensor, length: int, options: SamplingOptions) -> Tensor:
        wanted = (1, self._plane(options)[0], length, *self._plane(options)[1:])
        if tuple(latents.shape) != wanted:
            raise ValueError(f"latents is {tuple(latents.shape)}: {wanted} is needed")
        latents = latents.to(self.offloader.device, self.denoising_unet.dtype)
        return rearrange(latents, "1 c f h w -> f c h w").clone()

    def _plane(self, options: SamplingOptions) -> tuple[int, int, int]:
        """c, h, w of a frame's latents."""
        side = self.vae_scale_factor
        return self.denoising_unet.config.in_channels, options.height // side, options.width // side

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """f c h w → pictures f 3 H W, float32 in [0, 1], on the CPU. Raises UserError: they are not finite."""
        self.offloader.use("vae")
        latents = latents.to(self.vae.device, self.vae.dtype) / self.vae.config.scaling_factor

        def attempt() -> Tensor:
            return torch.cat([self._decode(part) for part in latents.split(self.offloader.plan.decode_frames)])

        return self.offloader.within_memory(attempt)

    def _decode(self, latents: Tensor) -> Tensor:
        pictures = self.vae.decode(latents).sample
        _require_finite(pictures, "decoding")
        return (pictures / 2 + 0.5).clamp(0, 1).float().cpu()

    def check(self, options: SamplingOptions, num_frames: int | None = None, output_type: str = "pil") -> None:
        """Raises ValueError: the models do not support these arguments."""
        width, height, factor = options.width, options.height, self.vae_scale_factor
        if width % factor or height % factor:
            raise ValueError(f"the size {width} x {height} is not a multiple of {factor}")
        timesteps_of(self.scheduler, options.num_inference_steps, options.spacing)
        if options.shallow_layers and options.shallow_layers >= (layers := self.denoising_unet.up_layers):
            raise ValueError(f"cache_branch is {options.cache_branch}: this UNet has 0 to {layers - 2}")
        motion = self.denoising_unet.config.motion_module
        if motion and options.context_frames > motion["max_frames"]:
            raise ValueError(
                f"context_frames is {options.context_frames}: the motion modules know {motion['max_frames']} positions"
            )
        if num_frames is not None and num_frames < 1:
            raise ValueError(f"num_frames is {num_frames}: at least 1 is needed")
        if output_type not in OUTPUT_TYPES:
            raise ValueError(f"output_type is {output_type!r}: {', '.join(OUTPUT_TYPES)} are possible")


def _require_finite(tensor: Tensor, where: str) -> None:
    if not tensor.isfinite().all():
        raise UserError(f"not finite after {where}: try --dtype bf16 or fp32, check the weights")
