"""Options of prepare_dataset.py."""

from dataclasses import dataclass
from pathlib import Path

from musepose.pose.options import DetectorFiles
from musepose.utils.options import option


@dataclass(frozen=True, kw_only=True)
class Settings(DetectorFiles):
    """Options of prepare_dataset.py."""

    video_dir: Path = option(help="folder of videos, searched recursively", metavar="DIR")
    output: Path = option(help="folder of the data set", metavar="DIR")
    workers: int = option(1, "worker processes, each with its own detector", low=1)
    device: str | None = option(None, "as in pose_align.py; several, separated by commas: workers are spread over them")
    draw_face: bool = option(
        False, "draw faces too; pose_align.py draws none, and the published weights were trained without"
    )
    detect_resolution: int = option(512, "short side of the detector's input, pixels", low=64, high=4096)
