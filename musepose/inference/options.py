"""Settings of test_stage_2.py: one table for its flags and its YAML keys."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from musepose.pipelines.options import SamplingOptions
from musepose.utils.errors import UserError
from musepose.utils.options import DTYPES, Setting, parse_setting

SETTINGS = (
    Setting(("--width", "-W"), int, 768, "sampling width, a multiple of 8", low=8, high=8192, multiple=8),
    Setting(("--height", "-H"), int, 768, "sampling height, a multiple of 8", low=8, high=8192, multiple=8),
    Setting(("--length", "-L"), int, 300, "use at most this many frames of the pose video", low=1),
    Setting(("--context_frames", "-S"), int, 48, "frames denoised together", low=1, high=128),
    Setting(("--context_overlap", "-O"), int, 4, "frames that two neighbouring windows share, less than -S", low=0),
    Setting(("--cfg",), float, 3.5, "guidance scale; no guidance up to 1", low=0),
    Setting(("--seed",), int, 99, "where the noise starts, for each case anew", low=-(2**63), high=2**63 - 1),
    Setting(("--steps",), int, 20, "denoising steps", low=1, high=1000),
    Setting(
        ("--scheduler",),
        str,
        "ddim",
        "how the steps are taken: ddim, as published; dpm++, unipc and euler for fewer steps",
        choices=("ddim", "dpm++", "unipc", "euler"),
    ),
    Setting(
        ("--shared_noise",),
        float,
        0.0,
        "portion of the starting noise that is the same in all frames: less flicker; published: 0",
        low=0,
        high=1,
    ),
    Setting(
        ("--fps",),
        Fraction,
        None,
        "rate of the result, such as 15 or 30000/1001; default: keeps the tempo",
        low=Fraction(1, 1000),
        high=1000,
    ),
    Setting(
        ("--skip",),
        int,
        1,
        "leave out this many frames after each one taken, as the weights were trained",
        low=0,
        high=999,
    ),
    Setting(("--device",), str, None, "cpu, cuda, cuda:1, mps, ...; default: cuda or mps if there is one, else cpu"),
    Setting(
        ("--dtype",), str, "fp16", "of weights and sampling", choices=(*DTYPES, *DTYPES.values()), key="weight_dtype"
    ),
    Setting(
        ("--vram",),
        float,
        "auto",
        "memory to get along with, in GB, or high, or low; auto: what is free. Changes time, not the result",
        low=1,
        words=("auto", "high", "sequential", "medium", "low", "least"),
    ),
    Setting(
        ("--tail",),
        str,
        "pad",
        "pad: the last pose is repeated until the windows fit, as published; flush: no frame is denoised in vain",
        choices=("pad", "flush"),
    ),
    Setting(("--compile",), bool, False, "compile the denoising UNet's layers; needs a C++ compiler"),
    Setting(
        ("--split",),
        str,
        None,
        "with several processes: share out the cases, or the frames of each; default: cases if there are enough",
        choices=("cases", "frames"),
    ),
    Setting(
        ("--output",), str, None, "folder of the results, for runs to be resumed; default: a new one under ./output"
    ),
    Setting(("--overwrite",), bool, False, "with --output: render finished cases again"),
    Setting(("--no_audio",), bool, False, "leave out the sound of the pose video"),
)


@dataclass(frozen=True)
class Settings:
    """The checked values of `SETTINGS`."""

    width: int
    height: int
    length: int
    context_frames: int
    context_overlap: int
    cfg: float
    seed: int
    steps: int
    scheduler: str  # ddim, dpm++, unipc, euler
    shared_noise: float
    fps: Fraction | None
    skip: int
    device: str | None
    dtype: str  # float16, float32, bfloat16
    vram: str | float  # auto, high, low, or GB
    tail: str  # pad, flush
    compile: bool
    split: str | None  # cases, frames
    output: str | None
    overwrite: bool
    no_audio: bool

    @property
    def sampling(self) -> SamplingOptions:
        """As the pipeline takes them."""
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


def merge_settings(flags: Mapping[str, Any], config: Mapping[str, Any], path: Path) -> Settings:
    """A flag wins over the YAML, the YAML over the default. Raises UserError: a value that cannot be."""
    values = {}
    for setting in SETTINGS:
        key = setting.key or setting.name
        if flags.get(setting.name) is not None:
            values[setting.name] = parse_setting(setting, flags[setting.name], setting.flags[0])
        elif config.get(key) is not None:
            values[setting.name] = parse_setting(setting, config[key], f"{path}: {key}")
        else:
            values[setting.name] = setting.default
    values["dtype"] = DTYPES.get(values["dtype"], values["dtype"])
    overlap, frames = values["context_overlap"], values["context_frames"]
    if overlap >= frames:
        raise UserError(f"--context_overlap (-O) {overlap} is not below --context_frames (-S) {frames}: lower -O")
    return Settings(**values)
