"""The two training stages: which networks they build and train, and how they sample frames."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from musepose.training.config import Data, TrainConfig
from musepose.training.data.dataset import ClipChooser, PairChooser
from musepose.training.model import Animator, build_stage_1, build_stage_2, stage_1_parameters, stage_2_parameters


@dataclass(frozen=True)
class Stage:
    name: str
    build: Callable[[TrainConfig], Animator]
    parameters: Callable[[Animator], list[str]]  # names of the trained parameters
    chooser: Callable[[Data], PairChooser | ClipChooser]
    is_clip: bool  # a sample is a clip: all its frames share one timestep

    def stage1_folder(self, config: TrainConfig) -> Path | None:
        """The folder of stage 1's models, for stage 2; None in stage 1."""
        return config.stage1_ckpt_dir if self.is_clip else None


STAGE_1 = Stage(
    "stage_1",
    build_stage_1,
    stage_1_parameters,
    lambda data: PairChooser(data.sample_margin, data.targets_per_reference),
    is_clip=False,
)
STAGE_2 = Stage(
    "stage_2",
    build_stage_2,
    stage_2_parameters,
    lambda data: ClipChooser(data.n_sample_frames, data.sample_rate),
    is_clip=True,
)
