"""Options of evaluate.py for pairs of videos. Those for puppets are in puppet/options.py."""

from dataclasses import dataclass
from pathlib import Path

from musepose.pose.options import DetectorFiles
from musepose.utils.options import option


@dataclass(frozen=True, kw_only=True)
class PairOptions(DetectorFiles):
    """Which videos to compare, and how."""

    pairs: list[str] = option(
        help="RESULT TRUTH [RESULT TRUTH ...], a folder of results and one of ground truths, or a list: .txt or .csv",
        metavar="PATH",
    )
    json: Path | None = option(None, "write all metrics to this file")
    device: str = option("cpu", "cpu, cuda, cuda:1, mps, ..., for the networks")
    frames: int | None = option(None, "compare only the first N frames; by default lengths must match", low=1)
    truth_step: int = option(1, "compare with every Nth frame of the ground truth", low=1)
    resize: bool = option(False, "resize results to the ground truth's size; by default sizes must match")
    poses: bool = option(False, "detect the dancer in both, and compare joint positions")
    lpips: Path | None = option(
        None,
        "TorchScript file: pictures, pictures (n,3,h,w) in [-1,1] -> n distances; it is a program that can read and "
        "write files: take one that you trust",
    )
    fvd: Path | None = option(
        None, "TorchScript file: clips (n,3,f,224,224) in [-1,1] -> features, such as I3D's; a program as well"
    )
    fvd_frames: int = option(16, "frames of a clip for --fvd", low=1)
