"""Options of the training scripts: YAML and `key=value` overrides → typed, checked values."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from musepose.models.configs import TRAIN_TIMESTEPS, check_noise
from musepose.utils.config_file import Config, read_config_file
from musepose.utils.errors import UserError
from musepose.utils.options import DTYPES, build, check_keys, option

EXAMPLE = "configs/train_stage_1.yaml or configs/train_stage_2.yaml"
OPTIMIZERS = ("adamw", "muon")
SCHEDULES = ("constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial")  # diffusers'


@dataclass(frozen=True, kw_only=True)
class Command:
    """Flags of the command line. All other options are YAML keys and overrides."""

    config: Path | None = option(
        None, "the YAML file; default configs/train_stage_1.yaml or configs/train_stage_2.yaml", key=None, project=True
    )
    resume: str | None = option(
        None, "latest, or the folder of a training state; default: start from scratch", key=None, metavar="STATE"
    )


@dataclass(kw_only=True)
class Data:
    meta_paths: list[str] = option(help="manifests (meta.json) of one or several data sets, from prepare_dataset.py")
    train_bs: int = option(1, "batch size of each process; every sample has one reference", low=1, high=4096)
    train_width: int = option(768, "pixels", low=64, high=8192, multiple=8)
    train_height: int = option(768, "pixels", low=64, high=8192, multiple=8)
    sample_margin: int = option(
        30, "stage 1: minimum distance of reference and target in frames; less if the video is too short", low=0
    )
    targets_per_reference: int = option(
        1, "stage 1: targets for each reference, which share one pass of the reference UNet", low=1, high=4096
    )
    n_sample_frames: int = option(48, "stage 2: frames of a clip", low=1)
    sample_rate: int = option(1, "stage 2: take every n-th frame; doubled above 30 frames a second", low=1, high=1000)
    cache_latents: str | None = option(
        None, "folder of a latents cache: all frames are encoded once before training, not in every step"
    )
    num_workers: int = option(0, "data loader workers of each training process", low=0, high=256)


@dataclass(kw_only=True)
class TimestepBias:
    """Samples more timesteps from the high-noise end, where reference and pose are the only information."""

    portion: float = option(0.0, "sample this share of timesteps from [first, T), the high-noise end", low=0, high=1)
    first: int = option(600, "first timestep of the high-noise end", low=0)


@dataclass(kw_only=True)
class Solver:
    max_train_steps: int = option(30000, "optimizer steps in total", low=1)
    gradient_accumulation_steps: int = option(1, "micro-steps for each optimizer step", low=1)
    mixed_precision: str = option("fp16", "autocast type; fp16 needs a GPU", choices=("no", "fp16", "bf16"))
    gradient_checkpointing: bool = option(False, "recompute activations: less memory, a third more time")
    optimizer: str = option(
        "adamw",
        "muon needs about half the steps when training from scratch",
        choices=OPTIMIZERS,
    )
    learning_rate: float = option(1e-5, "peak learning rate", above=0)
    lr_scheduler: str = option("constant", "learning rate schedule of diffusers", choices=SCHEDULES)
    lr_warmup_steps: int = option(1, "warm-up steps to the peak learning rate", low=0)
    lr_decay_steps: int = option(
        0, "the last n of max_train_steps, in which a constant learning rate falls to 0", low=0
    )
    adam_beta1: float = option(0.9, "decay of the first moment", low=0, below=1)
    adam_beta2: float = option(0.999, "decay of the second moment", low=0, below=1)
    adam_epsilon: float = option(1e-8, "added to the denominator", low=0)
    adam_weight_decay: float = option(1e-2, "decoupled weight decay", low=0)
    max_grad_norm: float = option(1.0, "gradients are clipped to this norm", above=0)
    ema_decay: float | None = option(
        None, "EMA decay of the saved and validated weights, such as 0.9999; null: no EMA", low=0, high=1
    )


@dataclass(kw_only=True)
class Validation:
    validation_steps: int = option(1000, "sample the test cases every n steps, into output_dir/samples", low=1)
    test_cases: dict[str, list[str]] = option({}, "reference picture: [aligned pose video, ...]")
    num_inference_steps: int = option(20, "denoising steps", low=1, high=1000)
    guidance_scale: float = option(3.5, "up to 1: no guidance", low=0)
    shared_noise: float | None = option(
        None, "as --shared_noise of test_stage_2.py; null: the training's shared_noise", low=0, high=1
    )
    frames: int = option(24, "maximum number of frames of each video", low=1)
    seed: int = option(99, "seed of the noise", low=-(2**63), high=2**63 - 1)


@dataclass(kw_only=True)
class TrainConfig:
    data: Data = field(default_factory=Data)
    solver: Solver = field(default_factory=Solver)
    val: Validation = field(default_factory=Validation)
    noise_scheduler_kwargs: dict[str, Any] = option(
        help="arguments of diffusers' DDIMScheduler; prediction_type: v_prediction or epsilon"
    )
    timestep_bias: TimestepBias = field(default_factory=TimestepBias)
    base_model_path: Path = option(
        help="folder with unet/config.json, and with the UNet's weights unless from_scratch", project=True
    )
    vae_model_path: Path = option(help="folder of the autoencoder", project=True)
    image_encoder_path: Path = option(help="folder of the CLIP image encoder", project=True)
    inference_config: Path = option(
        Path("configs/inference_v2.yaml"), "YAML of the motion modules and the pose guider", project=True
    )
    from_scratch: bool = option(False, "stage 1: random UNets instead of the base model's")
    start_from: Path | None = option(
        None, "stage 1: folder of models to start from, such as save_dir of an earlier training", project=True
    )
    controlnet_openpose_path: Path | None = option(
        None, "stage 1: initialise the pose guider from this ControlNet's conditioning embedding", project=True
    )
    stage1_ckpt_dir: Path | None = option(None, "stage 2: folder of the models that stage 1 saved")
    mm_path: Path | None = option(
        None,
        "stage 2: AnimateDiff's mm_sd_v15_v2.ckpt; null: zero-initialised motion modules, an identity at the start",
        project=True,
    )
    weight_dtype: str = option("fp16", "type of the frozen weights on a GPU", choices=DTYPES)
    save_dtype: str = option("fp16", "type of the saved models", choices=DTYPES)
    uncond_ratio: float = option(0.1, "share of samples without reference, for classifier-free guidance", low=0, high=1)
    noise_offset: float = option(0.05, "strength of offset noise", low=0)
    shared_noise: float = option(
        0.0, "share of the noise's variance that all frames of a clip share, as --shared_noise of test_stage_2.py",
        low=0, high=1,
    )  # fmt: skip
    snr_gamma: float | None = option(5.0, "gamma of the min-SNR loss weights; null: no weights", low=0)
    figure_weight: float = option(
        1.0, "weight in the loss of the pixels on and near the drawn pose; of all others: 1", above=0
    )
    seed: int = option(12580, "seed of weights, samples and noise", low=0, high=2**32 - 1)  # NumPy's range
    output_dir: str = option(help="folder of training states, samples and logs")
    save_dir: str | None = option(None, "folder of the models; null: output_dir/weights")
    checkpointing_steps: int = option(2000, "write a training state every n steps", low=1)
    total_limit: int = option(3, "training states to keep", low=1)
    save_model_step_interval: int = option(2000, "write the models every n steps", low=1)
    log_steps: int = option(10, "log every n steps", low=1)
    report_to: str = option("tensorboard", "tracker of accelerate, such as tensorboard or wandb; none: no tracker")

    @property
    def model_folder(self) -> Path:
        return Path(self.save_dir) if self.save_dir else Path(self.output_dir) / "weights"


def sample_name(picture: str, video: str) -> str:
    """The file name of a validation case's video."""
    return f"{Path(picture).stem}_{Path(video).stem}.mp4"


def read_config(path: str | os.PathLike, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read the YAML `path` and apply `overrides` such as "solver.learning_rate=1e-4".

    Raises UserError: not a YAML file, an unknown or missing key, a value of the wrong type or out of range.
    """
    return checked(read_config_file(Path(path), EXAMPLE, overrides))


def checked(given: Config) -> TrainConfig:
    """The options of a config that has been read. Raises UserError as `read_config` does."""
    check_keys(given, [TrainConfig])
    config = build(TrainConfig, config=given)
    _check_noise(config, given)
    solver = config.solver
    if solver.lr_decay_steps and not solver.lr_scheduler.startswith("constant"):
        raise UserError(
            f"{given.origin('solver.lr_decay_steps')} is {solver.lr_decay_steps}, but solver.lr_scheduler is "
            f"{solver.lr_scheduler}, which decays by itself: give constant or constant_with_warmup"
        )
    if config.start_from and config.controlnet_openpose_path:
        raise UserError(
            f"{given.origin('start_from')} and controlnet_openpose_path both give the pose guider: leave one out"
        )
    return config


def _check_noise(config: TrainConfig, given: Config) -> None:
    """Check the noise schedule's arguments, and the options whose limit is its number of timesteps."""
    where = given.origin("noise_scheduler_kwargs")
    config.noise_scheduler_kwargs = check_noise(config.noise_scheduler_kwargs, f"{where}.")
    timesteps = config.noise_scheduler_kwargs.get("num_train_timesteps", TRAIN_TIMESTEPS)
    if config.timestep_bias.first >= timesteps:
        wrong = f"{given.origin('timestep_bias.first')} is {config.timestep_bias.first}"
        raise UserError(f"{wrong}, but num_train_timesteps is {timesteps}: give at most {timesteps - 1}")
    if config.val.num_inference_steps > timesteps:
        wrong = f"{given.origin('val.num_inference_steps')} is {config.val.num_inference_steps}"
        raise UserError(f"{wrong}, but num_train_timesteps is {timesteps}: give at most {timesteps}")
