"""A training's settings: YAML and command line → typed values, checked."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from musepose.utils.errors import UserError
from musepose.utils.options import DTYPES

PRECISIONS = ("no", "fp16", "bf16")
SCHEDULES = ("constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial")  # diffusers'
OPTIMIZERS = ("adamw", "muon")
PREDICTIONS = ("v_prediction", "epsilon")
BELOW_ONE = 1 - 1e-9


@dataclass
class Data:
    meta_paths: list[str] = MISSING  # of data sets, as prepare_dataset.py writes them
    train_bs: int = 1  # samples a process and micro-step: one reference each
    train_width: int = 768
    train_height: int = 768
    sample_margin: int = 30  # frames, stage 1: how far target and reference lie apart at least, where the video allows
    targets_per_reference: int = 1  # stage 1: targets that share a reference, and its cost
    n_sample_frames: int = 48  # stage 2: of a clip
    sample_rate: int = 1  # stage 2: every so many frames one is taken; doubled above 30 frames a second
    cache_latents: str | None = None  # folder: VAE latents, CLIP embeddings and resized poses are computed once
    num_workers: int = 0  # processes that read videos, for each training process


@dataclass
class TimestepBias:
    """Draws a portion of the timesteps from `first` on, where reference and pose are all a model has."""

    portion: float = 0.0
    first: int = 600


@dataclass
class Solver:
    max_train_steps: int = 30000
    gradient_accumulation_steps: int = 1
    mixed_precision: str = "fp16"
    gradient_checkpointing: bool = False
    optimizer: str = "adamw"  # one of OPTIMIZERS; muon learns faster from nothing
    learning_rate: float = 1e-5
    lr_scheduler: str = "constant"  # one of SCHEDULES
    lr_warmup_steps: int = 1
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-8
    adam_weight_decay: float = 1e-2
    max_grad_norm: float = 1.0
    ema_decay: float | None = None  # of the weights that are saved and validated; null: the last ones


@dataclass
class Validation:
    validation_steps: int = 1000
    test_cases: dict[str, list[str]] = field(default_factory=dict)  # reference picture → aligned pose videos
    num_inference_steps: int = 20
    guidance_scale: float = 3.5
    frames: int = 24  # at most, of each video
    seed: int = 99


@dataclass
class TrainConfig:
    data: Data = field(default_factory=Data)
    solver: Solver = field(default_factory=Solver)
    val: Validation = field(default_factory=Validation)
    noise_scheduler_kwargs: dict[str, Any] = MISSING
    timestep_bias: TimestepBias = field(default_factory=TimestepBias)
    base_model_path: str = MISSING  # with unet/config.json, and unet's weights unless from_scratch
    vae_model_path: str = MISSING
    image_encoder_path: str = MISSING
    inference_config: str = "./configs/inference_v2.yaml"  # the motion modules, and the pose guider's sizes
    from_scratch: bool = False  # stage 1: random UNets instead of the base model's
    controlnet_openpose_path: str | None = None  # stage 1: the pose guider starts from its conditioning embedding
    stage1_ckpt_dir: str | None = None  # stage 2: what stage 1 saved
    mm_path: str | None = None  # stage 2: AnimateDiff's mm_sd_v15_v2.ckpt; null: motion modules that change nothing yet
    weight_dtype: str = "fp16"  # of what is frozen, on a GPU
    save_dtype: str = "fp16"
    uncond_ratio: float = 0.1
    noise_offset: float = 0.05
    shared_noise: float = 0.0  # portion of the noise's variance that a sample's frames share, as test_stage_2.py's flag
    snr_gamma: float | None = 5.0
    seed: int = 12580
    output_dir: str = MISSING  # states, samples, logs
    save_dir: str | None = None  # the models; null: output_dir/weights
    checkpointing_steps: int = 2000
    total_limit: int = 3  # states kept
    save_model_step_interval: int = 2000
    log_steps: int = 10
    report_to: str = "tensorboard"  # accelerate's names; none: no tracker

    @property
    def model_folder(self) -> Path:
        return Path(self.save_dir) if self.save_dir else Path(self.output_dir) / "weights"


def sample_name(picture: str, video: str) -> str:
    """The file of a validation case."""
    return f"{Path(picture).stem}_{Path(video).stem}.mp4"


LIMITS = {  # smallest and largest value
    "data.train_bs": (1, None),
    "data.train_width": (64, None),
    "data.train_height": (64, None),
    "data.sample_margin": (0, None),
    "data.targets_per_reference": (1, None),
    "data.n_sample_frames": (1, None),
    "data.sample_rate": (1, None),
    "data.num_workers": (0, None),
    "solver.max_train_steps": (1, None),
    "solver.gradient_accumulation_steps": (1, None),
    "solver.lr_warmup_steps": (0, None),
    "solver.adam_beta1": (0, BELOW_ONE),
    "solver.adam_beta2": (0, BELOW_ONE),
    "solver.adam_epsilon": (0, None),
    "solver.adam_weight_decay": (0, None),
    "solver.ema_decay": (0, 1),
    "val.validation_steps": (1, None),
    "val.num_inference_steps": (1, 1000),
    "val.frames": (1, None),
    "timestep_bias.portion": (0, 1),
    "timestep_bias.first": (0, 999),
    "uncond_ratio": (0, 1),
    "noise_offset": (0, None),
    "shared_noise": (0, 1),
    "snr_gamma": (0, None),
    "checkpointing_steps": (1, None),
    "total_limit": (1, None),
    "save_model_step_interval": (1, None),
    "log_steps": (1, None),
}


def read_config(path: str | os.PathLike, overrides: Sequence[str] = ()) -> TrainConfig:
    """The YAML `path`, changed by `overrides` such as "solver.learning_rate=1e-4".

    Raises UserError: no YAML, an unknown or missing key, a value of the wrong kind or out of range.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} is missing: give a training config with --config FILE.yaml")
    try:
        loaded = OmegaConf.load(path)
    except Exception as error:  # OmegaConf passes on whatever its YAML reader raises
        raise UserError(f"{path} cannot be read as YAML ({error}): mend it") from error
    try:
        given = OmegaConf.from_dotlist(list(overrides))
        merged = OmegaConf.merge(OmegaConf.structured(TrainConfig), loaded, given)
        missing = sorted(OmegaConf.missing_keys(merged))
        if missing:
            raise UserError(f"{path}: the key {missing[0]} is missing: compare it with the configs/train_*.yaml")
        config = OmegaConf.to_object(merged)
    except (OmegaConfBaseException, ValueError, TypeError) as error:
        told = str(error).splitlines()[0]
        raise UserError(f"{path}: {told}: compare it with the configs/train_*.yaml") from error
    _check(config, path)
    return config


def _check(config: TrainConfig, path: Path) -> None:
    for key, (low, high) in LIMITS.items():
        value: Any = config
        for part in key.split("."):
            value = getattr(value, part)
        if value is not None and (value < low or (high is not None and value > high)):
            wanted = f"at least {low}" if high is None else f"{low} to {high}"
            raise UserError(f"{path}: {key} is {value}: give {wanted}")
    data, solver = config.data, config.solver
    for key in ("train_width", "train_height"):
        if getattr(data, key) % 8:
            raise UserError(f"{path}: data.{key} is {getattr(data, key)}: give a multiple of 8")
    for key in ("learning_rate", "max_grad_norm"):
        if getattr(solver, key) <= 0:
            raise UserError(f"{path}: solver.{key} is {getattr(solver, key)}: give more than 0")
    prediction = config.noise_scheduler_kwargs.get("prediction_type", "epsilon")
    for key, value, choices in (
        ("solver.optimizer", solver.optimizer, OPTIMIZERS),
        ("solver.lr_scheduler", solver.lr_scheduler, SCHEDULES),
        ("noise_scheduler_kwargs.prediction_type", prediction, PREDICTIONS),
        ("solver.mixed_precision", solver.mixed_precision, PRECISIONS),
        ("weight_dtype", config.weight_dtype, tuple(DTYPES)),
        ("save_dtype", config.save_dtype, tuple(DTYPES)),
    ):
        if value not in choices:
            raise UserError(f"{path}: {key} is {value}: give {', '.join(choices)}")
