"""Prepares a training data set from a folder of videos: keypoints, pose videos, and a manifest of the clips.

    python prepare_dataset.py --video_dir ./videos --output ./data/dances
    python prepare_dataset.py --video_dir ./videos --output ./data/dances --workers 4 --device cuda:0,cuda:1

Each video should show one person throughout. The data set is the manifest `meta.json`, which training reads, with
`keypoints/` and `poses/`; the videos stay where they are. Videos that cannot be used are listed at the end and in
`broken.json`. A new run continues an interrupted one, and prepares only videos that were added or replaced.
"""

from collections.abc import Callable, Sequence

from musepose.cli.flags import parse_options
from musepose.training.data.options import Settings


def parse(arguments: Sequence[str] | None) -> Settings:
    return parse_options(Settings, "prepare_dataset.py", __doc__, arguments)


def main(arguments: Sequence[str] | None = None, load: Callable | None = None) -> int:
    """Run prepare_dataset.py; `load` makes the detector of a worker from its index. Returns the exit status."""
    settings = parse(arguments)
    from musepose.training.data.preparation import load_detector, make_dataset, plan  # imported here for --help

    return make_dataset(settings, plan(settings), load or load_detector)
