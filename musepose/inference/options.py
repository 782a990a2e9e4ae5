"""Options of test_stage_2.py: command line only, command line and YAML, YAML only."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from musepose.pipelines.options import TAILS, SamplingOptions
from musepose.utils.config_file import Config
from musepose.utils.errors import UserError
from musepose.utils.options import DTYPES, build, option

EXAMPLE = "configs/test_stage_2.yaml"
SCHEDULERS = ("ddim", "dpm++", "unipc", "euler")


@dataclass(frozen=True, kw_only=True)
class Command:
    """Flags that the YAML does not have."""

    config: Path = option(Path(EXAMPLE), "the YAML file: weights and test cases", key=None, project=True)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Sampling and output settings, as flags or in the YAML. Flags override the YAML."""

    width: int = option(768, "sampling width", short="-W", low=8, high=8192, multiple=8)
    height: int = option(768, "sampling height", short="-H", low=8, high=8192, multiple=8)
    length: int = option(300, "use at most this many frames of the pose video", short="-L", low=1)
    context_frames: int = option(48, "frames in a context window, denoised together", short="-S", low=1, high=128)
    context_overlap: int = option(4, "frames that two neighbouring windows share, less than -S", short="-O", low=0)
    cfg: float = option(3.5, "guidance scale; up to 1: no guidance, half the work", low=0, high=1000)
    seed: int = option(99, "seed of the noise, the same for every case", low=-(2**63), high=2**63 - 1)
    steps: int = option(20, "denoising steps", low=1, high=1000)
    scheduler: str = option("ddim", "noise scheduler (solver); published: ddim", choices=SCHEDULERS)
    shared_noise: float = option(
        0.0,
        "share of the initial noise that is the same in all frames: less flicker; published: 0",
        low=0,
        high=1,
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
        "type of weights and sampling; float32 if the device does not support it",
        choices=(*DTYPES, *DTYPES.values()),
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
    compile: bool = option(False, "compile the denoising UNet's layers; needs a C++ compiler")
    split: str | None = option(
        None,
        "with several processes: distribute cases, or the frames of each case; default: cases if there are enough",
        choices=("cases", "frames"),
    )
    output: Path | None = option(
        None,
        "folder of the results; the next run skips finished cases; default: a new folder under ./output",
        metavar="DIR",
    )
    overwrite: bool = option(False, "with --output: render finished cases again")
    no_audio: bool = option(False, "do not copy the sound of the pose video")

    @property
    def sampling(self) -> SamplingOptions:
        """The sampling options of the pipeline."""
        return SamplingOptions(
            width=self.width,
            height=self.height,
            num_inference_steps=self.steps,
            guidance_scale=self.cfg,
            seed=self.seed,
            shared_noise=self.shared_noise,
            context_frames=self.context_frames,
            context_overlap=self.context_overlap,
            tail=self.tail,
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
    """Settings from flags (texts) and the values of the YAML `path`. Raises UserError: a value is invalid."""
    settings = build(Settings, flags, Config(path, dict(config), example=EXAMPLE))
    overlap, frames = settings.context_overlap, settings.context_frames
    if overlap >= frames:
        raise UserError(f"--context_overlap (-O) {overlap} is not below --context_frames (-S) {frames}: lower -O")
    return replace(settings, dtype=DTYPES.get(settings.dtype, settings.dtype))
