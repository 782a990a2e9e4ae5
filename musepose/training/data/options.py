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
    workers: int = option(1, "processes, each with its own detector", low=1, high=256)
    device: str | None = option(None, "as in pose_align.py; several with commas: workers take turns")
    draw_face: bool = option(False, "draw faces too; pose_align.py and the published weights know none")
    detect_resolution: int = option(512, "short side of what dwpose sees, pixels", low=64, high=4096)
