"""Checked sampling options of `Pose2VideoPipeline`. Needs no torch."""

import math
import operator
from dataclasses import dataclass, fields
from numbers import Integral, Real

from musepose.pipelines.context_windows import check_windows

TAILS = ("pad", "flush")


@dataclass(frozen=True)
class SamplingOptions:
    """Sampling options. Raises ValueError: a value is invalid. NumPy numbers are accepted.

    tail: "pad", as published: repeat the last pose until the windows fit (`padded_length`), and drop the extra frames.
    "flush": the last window ends at the last frame, without padding; the noise is the same.
    """

    width: int = 768  # pixels, as the height: a multiple of the VAE's factor, 8
    height: int = 768
    num_inference_steps: int = 20
    guidance_scale: float = 3.5  # up to 1: no guidance
    seed: int = 99  # of the noise, if no generator is given
    shared_noise: float = 0.0  # share of the noise's variance that is the same in all frames
    context_frames: int = 48  # denoised together
    context_overlap: int = 4  # frames that two neighbouring windows share
    tail: str = "pad"

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
        if self.tail not in TAILS:
            raise ValueError(f"tail is {self.tail!r}: {' and '.join(TAILS)} are possible")
        check_windows(self.context_frames, self.context_overlap)

    @property
    def guided(self) -> bool:
        """Whether there are two CFG branches, the unconditional and the conditional one."""
        return self.guidance_scale > 1
