"""Validation during training: sample fixed test cases with the inference pipeline."""

import logging
from contextlib import closing
from pathlib import Path

import torch
from diffusers import DDIMScheduler

from musepose.media.image import read_image
from musepose.media.video_reader import probe, read_frames
from musepose.media.video_writer import VideoWriter
from musepose.pipelines.pose2video import Pose2VideoPipeline
from musepose.training.config import TrainConfig, sample_name
from musepose.training.data.encoding import Encoder
from musepose.training.model import Animator
from musepose.utils.errors import UserError, is_out_of_memory

logger = logging.getLogger(__name__)


def sample_videos(model: Animator, encoder: Encoder, config: TrainConfig, folder: Path) -> list[Path]:
    """Render the validation cases into `folder`. → the files written.

    A case that fails gets a warning, as the training is worth more: its files may have been removed meanwhile, the
    disk may be full, or memory too small.
    """
    pipeline = Pose2VideoPipeline(
        vae=encoder.vae,
        image_encoder=encoder.image_encoder,
        reference_unet=model.reference_unet,
        denoising_unet=model.denoising_unet,
        pose_guider=model.pose_guider,
        scheduler=DDIMScheduler(**config.noise_scheduler_kwargs),
    )
    pipeline.offloader.offloads = False  # training continues on the same device
    written = []
    model.eval()
    try:
        for picture, videos in config.val.test_cases.items():
            for video in videos:
                path = folder / sample_name(picture, video)
                try:
                    _sample(pipeline, config, Path(picture), Path(video), path)
                    written.append(path)
                except Exception as error:
                    if not (isinstance(error, UserError | OSError) or is_out_of_memory(error)):
                        raise
                    reason = " ".join(str(error).split())[:300]
                    logger.warning("%s is not sampled (%s): the training goes on", path, reason)
    finally:
        model.train()
    return written


@torch.no_grad()
def _sample(pipeline: Pose2VideoPipeline, config: TrainConfig, picture: Path, video: Path, path: Path) -> None:
    """Render one case into `path`. Raises UserError: a file cannot be read or written, or the result is not finite."""
    val, data = config.val, config.data
    info = probe(video)
    frames = min(val.frames, info.frames)
    size = (data.train_width, data.train_height)
    pictures = pipeline.stream(
        read_image(picture),
        read_frames(info, count=frames),
        num_frames=frames,
        width=data.train_width,
        height=data.train_height,
        num_inference_steps=val.num_inference_steps,
        guidance_scale=val.guidance_scale,
        seed=val.seed,
        shared_noise=config.shared_noise if val.shared_noise is None else val.shared_noise,
        context_frames=min(frames, data.n_sample_frames),
        context_overlap=0,
    )
    with closing(pictures), VideoWriter(path, *size, info.rate) as writer:
        for frame in pictures:
            writer.write(frame)
