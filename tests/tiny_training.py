"""A tiny training: three videos with pose videos, models of a few thousand weights, a config for each stage."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
import yaml
from accelerate.state import AcceleratorState, GradientState
from diffusers import AutoencoderKL
from media import write_video
from tolerance import largest, planted_errors, rounding, scaled
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from musepose.models.pose_guider import PoseGuider
from musepose.models.unet import UNet
from musepose.training.config import TrainConfig, read_config
from musepose.training.data.manifest import Clip, load_manifest, save_manifest
from musepose.training.model import Animator
from musepose.training.stages import STAGE_1, STAGE_2
from musepose.training.trainer import Trainer

SIZE, FRAMES, CLIPS = 64, 8, 3
UNET = {
    "block_out_channels": [8, 16],
    "cross_attention_dim": 8,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
    "in_channels": 4,
    "out_channels": 4,
    "layers_per_block": 1,
    "attention_head_dim": 2,
    "norm_num_groups": 4,
}
MOTION = {"heads": 2, "max_frames": 32, "blocks": 1, "attentions": 2}
GUIDER = [4, 4, 8, 8]
NOISE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "steps_offset": 1,
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
}


def write_models(folder: Path) -> None:
    """Write the frozen models and both inference configs."""
    torch.manual_seed(0)
    (folder / "base" / "unet").mkdir(parents=True)
    (folder / "base" / "unet" / "config.json").write_text(json.dumps(UNET))
    AutoencoderKL(
        block_out_channels=(4, 4, 4, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=2,
        mid_block_add_attention=False,
        scaling_factor=0.5,
    ).save_pretrained(folder / "vae")
    clip = CLIPVisionConfig(
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=224,
        patch_size=112,
        projection_dim=8,
    )
    CLIPVisionModelWithProjection(clip).save_pretrained(folder / "image_encoder")
    for name, motion in (("inference", True), ("inference_stage_1", False)):
        config = {
            "unet_additional_kwargs": {
                "use_motion_module": motion,
                "motion_module_kwargs": {"num_attention_heads": 2, "temporal_position_encoding_max_len": 32},
            },
            "pose_guider_kwargs": {"block_out_channels": GUIDER},
            "noise_scheduler_kwargs": NOISE,
        }
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(config))


def write_clips(folder: Path) -> list[Clip]:
    """Videos of coloured gradients that drift, which a model can tell apart; poses are bars that move."""
    clips = []
    ramp = np.linspace(0, 1, SIZE)
    for number in range(CLIPS):
        video, poses = folder / f"video-{number}.mp4", folder / f"pose-{number}.mp4"
        pictures, bars = [], []
        for frame in range(FRAMES):
            turn = 2 * np.pi * (ramp[:, None] * (number + 1) + ramp[None] + frame / FRAMES)
            shifted = np.stack([np.sin(turn + channel * number) for channel in range(3)], -1)
            pictures.append((127.5 + 100 * shifted).astype(np.uint8))
            bar = np.zeros((SIZE, SIZE, 3), np.uint8)
            bar[:, 6 * frame : 6 * frame + 8, number] = 255
            bars.append(bar)
        write_video(video, pictures, rate=15)
        write_video(poses, bars, rate=15)
        clips.append(Clip(video, poses, None, FRAMES, Fraction(15), SIZE, SIZE))
    save_manifest(folder / "meta.json", clips)
    return clips


def write_workplace(folder: Path) -> Path:
    """Models, clips, and train_stage_1.yaml and train_stage_2.yaml. → the folder."""
    write_models(folder)
    write_clips(folder)
    common = {
        "data": {"meta_paths": ["meta.json"], "train_bs": 2, "train_width": SIZE, "train_height": SIZE},
        "solver": {"mixed_precision": "no", "learning_rate": 1e-3, "max_train_steps": 2},
        "noise_scheduler_kwargs": NOISE,
        "base_model_path": "base",
        "vae_model_path": "vae",
        "image_encoder_path": "image_encoder",
        "save_dtype": "fp32",
        "report_to": "none",
    }
    stage_1 = {"from_scratch": True, "inference_config": "inference_stage_1.yaml", "output_dir": "stage_1"}
    stage_2 = {"inference_config": "inference.yaml", "stage1_ckpt_dir": "stage_1/weights", "output_dir": "stage_2"}
    paths = ("meta_paths", "_path", "_dir", "_config")
    for name, own in (("train_stage_1", stage_1), ("train_stage_2", stage_2)):
        config = common | own
        config = {k: str(folder / v) if k.endswith(paths[1:]) else v for k, v in config.items()}
        config["data"] = common["data"] | {"meta_paths": [str(folder / "meta.json")], "sample_margin": 2}
        config["data"] |= {"n_sample_frames": 4} if name == "train_stage_2" else {}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(config))
    return folder


def config_of(folder: Path, stage: int, *overrides: str) -> TrainConfig:
    return read_config(folder / f"train_stage_{stage}.yaml", overrides)


def make_trainer(folder: Path, stage: int, *overrides: str, resume: str | None = None) -> Trainer:
    """A training in this process, with Accelerate's state reset."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    config = config_of(folder, stage, *overrides)
    return Trainer((STAGE_1, STAGE_2)[stage - 1], config, load_manifest(config.data.meta_paths), resume)


def train(folder: Path, stage: int, *overrides: str, resume: str | None = None) -> tuple[Trainer, list[float]]:
    """Run a training to its end. → it, and the mean loss of each micro-step."""
    training = make_trainer(folder, stage, *overrides, resume=resume)
    return training, run(training)


def run(training: Trainer) -> list[float]:
    losses, step = [], training.micro_step

    def noted(samples: dict) -> Tensor:
        bands = step(samples)
        losses.append((bands[0].sum() / bands[1].sum()).item())
        return bands

    training.micro_step = noted
    training.run()
    return losses


def weights(training: Trainer) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in training.model.named_parameters()}


def training_rounding(folder: Path, *overrides: str) -> tuple[float, float]:
    """Bounds for the rounding of a training's weights, and of its losses: errors are planted in all its networks."""
    found = []
    for planted in ((), ("planted",)):
        training = make_trainer(folder, 1, *overrides, f"output_dir={folder}/{'-'.join(('bound', *planted))}")
        networks = training.model, training.encoder.vae, training.encoder.image_encoder
        with planted_errors(networks if planted else (), torch.float32):
            losses = torch.tensor(run(training))
        found.append((torch.cat([tensor.flatten() for tensor in weights(training).values()]), losses))
    (exact, losses), (off, others) = found
    # Weights: an update is added in one rounding a step. Losses: sums over 4 x 8 x 8 squares.
    weight, loss = rounding(len(losses), largest(exact)), rounding(256, largest(losses))
    return scaled(largest(off - exact)) + weight, scaled(largest(others - losses)) + loss


def random_animator(motion: bool, seed: int = 0) -> Animator:
    """An Animator without zero weights, so that every parameter affects the result."""
    torch.manual_seed(seed)
    animator = Animator(
        UNet(**UNET, has_output=False), UNet(**UNET, motion_module=MOTION if motion else None), PoseGuider(8, 3, GUIDER)
    )
    for parameter in animator.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return animator


def random_inputs(samples: int, frames: int, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """What Animator.forward takes besides noise, timesteps and dropped rows, and the latents."""
    generator = torch.Generator().manual_seed(5)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(dtype)

    return {
        "latents": normal(samples, frames, 4, 8, 8),
        "reference": normal(samples, 4, 8, 8),
        "token": normal(samples, 1, 8),
        "poses": torch.rand((samples, frames, 3, SIZE, SIZE), generator=generator).to(dtype),
    }
