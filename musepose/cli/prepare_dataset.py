"""Turns a folder of videos into a data set for training: keypoints, pose videos, and a meta file that lists them.

    python prepare_dataset.py --video_dir ./videos --output ./data/dances
    python prepare_dataset.py --video_dir ./videos --output ./data/dances --workers 4 --device cuda:0,cuda:1

Each video should show one person all the time. The data set is `meta.json`, which training reads, with `keypoints/` and
`poses/`; the videos stay where they are. What cannot be used is listed at the end and in `broken.json`. A run that was
cut short goes on where it stopped; so does one after videos were added or replaced.
"""

from collections.abc import Callable, Sequence

from musepose.cli.flags import parse_options
from musepose.training.data.options import Settings


def parse(arguments: Sequence[str] | None) -> Settings:
    return parse_options(Settings, "prepare_dataset.py", __doc__, arguments)


def main(arguments: Sequence[str] | None = None, load: Callable | None = None) -> int:
    """Run prepare_dataset.py; `load` makes the detector of a worker by its number. Returns the exit status."""
    settings = parse(arguments)
    from musepose.training.data.preparation import load_detector, make_dataset, plan  # here, as --help needs no media

    return make_dataset(settings, plan(settings), load or load_detector)
