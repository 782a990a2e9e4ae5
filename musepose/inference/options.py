"""Options of test_stage_2.py: command line only, command line and YAML, YAML only."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from musepose.pipelines.context_windows import BLENDS
from musepose.pipelines.options import NOISES, TAILS, SamplingOptions
from musepose.pipelines.presets import PRESETS
from musepose.utils.config_file import Config
from musepose.utils.errors import UserError
from musepose.utils.options import DTYPES, build, option

EXAMPLE = "configs/test_stage_2.yaml"
SCHEDULERS = ("ddim", "dpm++", "unipc", "euler")
SPACED = ("dpm++", "euler")  # those that take timesteps


@dataclass(frozen=True, kw_only=True)
class Command:
    """Flags that the YAML does not have."""

    config: Path = option(Path(EXAMPLE), "the YAML file: weights and test cases", key=None, project=True)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Sampling and output settings, as flags or in the YAML. Flags override the YAML."""

    width: int = option(768, "sampling width", short="-W", low=8, high=8192, multiple=8)
    height: int = option(768, "sampling height", short="-H", low=8, high=8192, multiple=8)
    size: int | None = option(
        None,
        "in place of -W and -H: sample N x N pixels in the pose video's aspect ratio, sides in multiples of 64",
        low=64,
        high=4096,
    )
    length: int = option(300, "use at most this many frames of the pose video", short="-L", low=1)
    context_frames: int = option(48, "frames in a context window, denoised together", short="-S", low=1, high=128)
    context_overlap: int = option(4, "frames that two neighbouring windows share, less than -S", short="-O", low=0)
    cfg: float = option(3.5, "guidance scale; up to 1: no guidance, half the work", low=0, high=1000)
    seed: int = option(99, "seed of the noise, the same for every case", low=-(2**63), high=2**63 - 1)
    steps: int = option(20, "denoising steps", low=1, high=1000)
    scheduler: str = option("ddim", "noise scheduler (solver); published: ddim", choices=SCHEDULERS)
    spacing: float = option(
        1.0,
        "above 1: timesteps lie denser at both ends, the more the higher; 1: evenly, as published. "
        "Needs --scheduler dpm++ or euler",
        low=1,
        high=4,
    )
    preset: str | None = option(
        None,
        "steps, scheduler and what is computed anew in each step: exact, as published; fast: 3 times as fast; "
        "draft: 5 times. Single flags win. The price of each: docs/speed.md",
        choices=tuple(PRESETS),
    )
    guidance_start: float = option(0.0, "guidance from this part of the steps on", low=0, high=1)
    guidance_stop: float = option(1.0, "guidance up to this part of the steps", low=0, high=1)
    guidance_every: int = option(
        1,
        "compute the unconditional branch in every N-th step only; the others forecast the branches' difference",
        low=1,
    )
    cache_interval: int = option(
        1, "run the UNet's deeper layers in every N-th step only, and forecast their features (DeepCache)", low=1
    )
    cache_branch: int = option(
        0, "with --cache_interval: the first N down layers and the last N + 1 up layers run in every step", low=0
    )
    shared_noise: float = option(
        0.0,
        "share of the initial noise that is the same in all frames: less flicker; published: 0",
        low=0,
        high=1,
    )
    noise: str = option(
        "independent",
        "initial noise of the frames: independent, as published; shuffled: every window has that of the first one in "
        "another order (FreeNoise); low_frequency: all frames have its low frequencies in common",
        choices=NOISES,
    )
    smooth_latents: float = option(
        0.0,
        "weight of each neighbouring frame when late steps average latents over time: less flicker",
        low=0,
        high=0.33,
    )
    fps: Fraction | None = option(
        None,
        "frame rate of the result, such as 15 or 30000/1001; default: keeps the tempo. "
        "Without sound if the tempo changes by more than 1 %",
        low=Fraction(1, 1000),
        high=1000,
    )
    skip: int = option(
        1,
        "skip this many frames after each one used, and divide the rate by this + 1: 30 frames a second become 15, "
        "as the weights were trained",
        low=0,
        high=999,
    )
    device: str | None = option(None, "cpu, cuda, cuda:1, mps, ...; default: cuda or mps if available, else cpu")
    dtype: str = option(
        "fp16",
        "type of weights and sampling; float32 if the device does not support it; auto: fp16, on a CPU bf16 if it has "
        "instructions for it",
        choices=("auto", *DTYPES, *DTYPES.values()),
        key="weight_dtype",
    )
    vram: str | float = option(
        "auto",
        "memory limit in GB, or a memory plan: high, sequential, medium, low, least; auto: the largest that fits. "
        "Changes the speed, not the result",
        low=1,
        words=("auto", "high", "sequential", "medium", "low", "least"),
    )
    tail: str = option(
        "pad",
        "pad: repeat the last pose until the windows fit, as published; "
        "flush: the last window ends at the last frame, without padding",
        choices=TAILS,
    )
    blend: str = option(
        "flat",
        "weights of a window's frames where windows overlap: flat, as published; triangle: they fall towards its ends",
        choices=BLENDS,
    )
    shift: int = option(
        0, "windows move by so many frames from step to step, so that no frame is always a seam; one window more", low=0
    )
    compile: bool = option(False, "compile the denoising UNet's layers; needs a C++ compiler")
    split: str | None = option(
        None,
        "with several processes: distribute cases, or the frames of each case; default: cases if there are enough",
        choices=("cases", "frames"),
    )
    output: Path | None = option(
        None,
        "folder of the results; the next run skips finished cases, and refuses to replace those of other settings; "
        "default: a new folder under ./output",
        metavar="DIR",
    )
    overwrite: bool = option(False, "with --output: render finished cases again, and replace those of other settings")
    no_audio: bool = option(False, "do not copy the sound of the pose video")

    @property
    def sampling(self) -> SamplingOptions:
        """The sampling options of the pipeline."""
        return SamplingOptions(
            width=self.width,
            height=self.height,
            num_inference_steps=self.steps,
            spacing=self.spacing,
            guidance_scale=self.cfg,
            seed=self.seed,
            shared_noise=self.shared_noise,
            noise=self.noise,
            smooth_latents=self.smooth_latents,
            context_frames=self.context_frames,
            context_overlap=self.context_overlap,
            tail=self.tail,
            blend=self.blend,
            shift=self.shift,
            guidance_start=self.guidance_start,
            guidance_stop=self.guidance_stop,
            guidance_every=self.guidance_every,
            cache_interval=self.cache_interval,
            cache_branch=self.cache_branch,
        )


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Keys that only the YAML has. Weights are named by the fields of models.weights.WeightPaths."""

    base_model: Path = option(
        help="folder with unet/config.json", key="pretrained_base_model_path", flag=False, project=True
    )
    vae: Path = option(help="folder of the autoencoder", key="pretrained_vae_path", flag=False, project=True)
    image_encoder: Path = option(
        help="folder of the CLIP image encoder", key="image_encoder_path", flag=False, project=True
    )
    denoising_unet: Path = option(
        help="weights of the denoising UNet", key="denoising_unet_path", flag=False, project=True
    )
    reference_unet: Path = option(
        help="weights of the reference UNet", key="reference_unet_path", flag=False, project=True
    )
    pose_guider: Path = option(help="weights of the pose guider", key="pose_guider_path", flag=False, project=True)
    motion_module: Path = option(
        help="weights of the motion modules", key="motion_module_path", flag=False, project=True
    )
    inference_config: Path = option(help="motion modules and noise schedule, a YAML file", flag=False, project=True)
    test_cases: dict[str, list[str]] = option(
        help="reference picture, or a folder of them: [aligned pose video, or a folder of them, ...]", flag=False
    )


def merge_settings(flags: Mapping[str, Any], config: Mapping[str, Any], path: Path) -> Settings:
    """Settings from flags (texts) and the values of the YAML `path`. Raises UserError: a value is invalid.

    A preset counts less than single settings of the same place: flags, --preset, YAML, the YAML's preset, defaults.
    """
    flags = {name: value for name, value in flags.items() if value is not None}
    config = dict(config)
    if "preset" in flags:
        flags = PRESETS.get(flags["preset"], {}) | flags
    elif isinstance(config.get("preset"), str):
        config = PRESETS.get(config["preset"], {}) | config
    by_flag = [name for name in ("width", "height") if name in flags]
    if "size" in flags and by_flag:
        raise UserError(f"--size and --{by_flag[0]} are both given: give --size, or -W and -H")
    if by_flag:
        config.pop("size", None)
    settings = build(Settings, flags, Config(path, config, example=EXAMPLE))
    overlap, frames = settings.context_overlap, settings.context_frames
    if overlap >= frames:
        raise UserError(f"--context_overlap (-O) {overlap} is not below --context_frames (-S) {frames}: lower -O")
    if settings.spacing > 1 and settings.scheduler not in SPACED:
        raise UserError(
            f"--spacing {settings.spacing:g} does not go with --scheduler {settings.scheduler}: "
            f"take {' or '.join(SPACED)}"
        )
    if settings.guidance_start > settings.guidance_stop:
        raise UserError(
            f"--guidance_start {settings.guidance_start:g} is above "
            f"--guidance_stop {settings.guidance_stop:g}: lower it"
        )
    return replace(settings, dtype=DTYPES.get(settings.dtype, settings.dtype))
