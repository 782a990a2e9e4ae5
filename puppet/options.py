"""Options of evaluate.py --puppets."""

from dataclasses import dataclass
from pathlib import Path

from musepose.utils.options import option


@dataclass(frozen=True, kw_only=True)
class Options:
    """Weights, sampling settings and the amount of data."""

    weights: Path = option(
        Path("pretrained_weights/puppet"), "folder of the puppet weights", metavar="DIR", project=True
    )
    inference_config: Path = option(
        Path("configs/puppet/inference.yaml"), "motion modules and noise schedule", project=True
    )
    stage_1_config: Path = option(
        Path("configs/puppet/inference_stage_1.yaml"), "the same without motion modules", project=True
    )
    yolox_config: Path = option(Path("configs/puppet/yolox.py"), "mm config of the person detector", project=True)
    dwpose_config: Path = option(Path("configs/puppet/dwpose.py"), "mm config of the pose network", project=True)
    stage: int = option(2, "1 evaluates the model without motion modules", low=1, high=2)
    size: int = option(192, "sampling width and height, pixels", low=16, high=1024, multiple=8)
    steps: int = option(2, "denoising steps", low=1, high=1000)
    cfg: float = option(1.2, "guidance scale; 1 or less: no guidance", low=0)
    shared_noise: float = option(1.0, "fraction of the initial noise shared by all frames", low=0, high=1)
    context_frames: int = option(16, "frames per context window, in the clips of three windows", low=2, high=128)
    context_overlap: int = option(4, "frames shared by consecutive windows", low=0)
    characters: int = option(100, "number of held-out characters", low=1, high=100_000)
    clip_frames: int = option(8, "frames per character", low=2)
    baseline_frames: int = option(2, "frames per character with wrong references and poses", low=1)
    motion: int = option(6, "number of characters with clips of three windows, and with stage 1 alone", low=0)
    across: int = option(8, "number of cross-identity pairs; needs the detector's weights", low=0)
    set_ups: int = option(50, "number of set-ups, of one or two figures, to evaluate the detector on", low=0)
    workers: int = option(2, "processes of one thread each; 1: this process, with all threads", low=1, high=256)
    device: str = option("cpu", "device of the networks: cpu, cuda, cuda:1, mps, ...")

    @property
    def long_frames(self) -> int:
        """Three windows."""
        return 3 * self.context_frames - 2 * self.context_overlap

    @property
    def detector_weights(self) -> tuple[Path, Path]:
        return self.weights / "dwpose" / "yolox.pth", self.weights / "dwpose" / "dwpose.pth"


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """Output files."""

    json: Path | None = option(None, "write all metrics to this file")
    filmstrip: Path | None = option(None, "write an image of the first ten characters to this file, .png")
