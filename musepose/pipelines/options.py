"""Checked sampling options of `Pose2VideoPipeline`. Needs no torch."""

import math
import operator
from dataclasses import dataclass, fields
from numbers import Integral, Real

from musepose.pipelines.context_windows import BLENDS, check_windows

TAILS = ("pad", "flush")
NOISES = ("independent", "shuffled", "low_frequency")


@dataclass(frozen=True)
class SamplingOptions:
    """Sampling options. Raises ValueError: a value is invalid. NumPy numbers are accepted.

    tail: "pad", as published: repeat the last pose until the windows fit (`padded_length`), and drop the extra frames.
    "flush": the last window ends at the last frame, without padding; the noise is the same.
    blend, shift: see `blend_weights` and `context_windows`.
    guidance_start, guidance_stop: the part of the steps that is guided, from 0 to 1 (Kynkäänniemi et al. 2024).
    guidance_every: from step 1 on every N-th step computes both CFG branches; the others forecast their difference.
    cache_interval: from step 1 on the UNet's deeper layers run in every N-th step (Ma et al. 2023, "DeepCache").
    cache_branch: then the first B down layers and the last B + 1 up layers run in every step.
    """

    width: int = 768  # pixels, as the height: a multiple of the VAE's factor, 8
    height: int = 768
    num_inference_steps: int = 20
    spacing: float = 1.0  # above 1: timesteps lie denser at both ends, see `timesteps_of`
    guidance_scale: float = 3.5  # up to 1: no guidance
    seed: int = 99  # of the noise, if no generator is given
    shared_noise: float = 0.0  # share of the noise's variance that is the same in all frames
    noise: str = "independent"  # or "shuffled", "low_frequency": see `shuffle_noise` and `share_low_frequencies`
    smooth_latents: float = 0.0  # weight of each neighbouring frame in late steps, see `smoothing`
    context_frames: int = 48  # denoised together
    context_overlap: int = 4  # frames that two neighbouring windows share
    tail: str = "pad"
    blend: str = "flat"
    shift: int = 0  # frames by which windows move from step to step
    guidance_start: float = 0.0
    guidance_stop: float = 1.0
    guidance_every: int = 1
    cache_interval: int = 1
    cache_branch: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type is int:
                if isinstance(value, bool) or not isinstance(value, Integral):
                    raise ValueError(f"{field.name} is {value!r}: an integer is needed")
                object.__setattr__(self, field.name, operator.index(value))
            elif field.type is float:
                if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
                    raise ValueError(f"{field.name} is {value!r}: a finite number is needed")
                object.__setattr__(self, field.name, float(value))
        if self.num_inference_steps < 1:
            raise ValueError(f"{self.num_inference_steps} steps: at least 1 is needed")
        if min(self.width, self.height) < 1:
            raise ValueError(f"the size {self.width} x {self.height} is not positive")
        if not 0 <= self.shared_noise <= 1:
            raise ValueError(f"shared_noise is {self.shared_noise}: 0 to 1 is possible")
        for name, values in (("tail", TAILS), ("blend", BLENDS), ("noise", NOISES)):
            if getattr(self, name) not in values:
                raise ValueError(f"{name} is {getattr(self, name)!r}: {', '.join(values)} are possible")
        for name, least in (("shift", 0), ("guidance_every", 1), ("cache_interval", 1), ("cache_branch", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}: at least {least} is needed")
        if not 0 <= self.smooth_latents <= 1 / 3:
            raise ValueError(f"smooth_latents is {self.smooth_latents}: 0 to 1/3 is possible")
        if self.spacing < 1:
            raise ValueError(f"spacing is {self.spacing}: at least 1 is needed")
        if not 0 <= self.guidance_start <= self.guidance_stop <= 1:
            raise ValueError(
                f"guidance_start is {self.guidance_start}, guidance_stop {self.guidance_stop}: 0 <= start <= stop <= 1 "
                "is needed"
            )
        check_windows(self.context_frames, self.context_overlap)

    @property
    def guided(self) -> bool:
        """Whether there are two CFG branches, the unconditional and the conditional one."""
        return self.guidance_scale > 1

    def in_guidance_interval(self, step: int) -> bool:
        """Whether step `step`, from 0 on, is in the guided part of the steps."""
        return self.guidance_start <= step / self.num_inference_steps < self.guidance_stop

    @property
    def shallow_layers(self) -> int:
        """The UNet's up layers that run in every step; 0: all."""
        return self.cache_branch + 1 if self.cache_interval > 1 else 0
