"""Validation during training: sample fixed test cases with the inference pipeline."""

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


def sample_videos(model: Animator, encoder: Encoder, config: TrainConfig, folder: Path) -> list[Path]:
    """Render the validation cases into `folder`. → the files written."""
    val, data = config.val, config.data
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
    with torch.no_grad():
        for picture, videos in val.test_cases.items():
            for video in videos:
                info = probe(Path(video))
                frames = min(val.frames, info.frames)
                path = folder / sample_name(picture, video)
                pictures = pipeline.stream(
                    read_image(Path(picture)),
                    read_frames(Path(video), count=frames),
                    num_frames=frames,
                    width=data.train_width,
                    height=data.train_height,
                    num_inference_steps=val.num_inference_steps,
                    guidance_scale=val.guidance_scale,
                    seed=val.seed,
                    shared_noise=config.shared_noise,
                    context_frames=min(frames, data.n_sample_frames),
                    context_overlap=0,
                )
                size = (data.train_width, data.train_height)
                with closing(pictures), VideoWriter(path, *size, info.rate) as writer:
                    for frame in pictures:
                        writer.write(frame)
                written.append(path)
    model.train()
    return written
