"""Turns a folder of videos into a data set for training: keypoints, pose videos, and a meta file that lists them.

    python prepare_dataset.py --video_dir ./videos --output ./data/dances
    python prepare_dataset.py --video_dir ./videos --output ./data/dances --workers 4 --device cuda:0,cuda:1

Each video should show one person all the time. The data set is `meta.json`, which training reads, with `keypoints/` and
`poses/`; the videos stay where they are. What cannot be used is listed at the end and in `broken.json`. A run that was
cut short goes on where it stopped; so does one after videos were added or replaced.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from musepose.cli.entry import Parser, run_script
from musepose.training.data.preparation import Load, Settings, load_detector, make_dataset, plan

PROJECT = Path(__file__).resolve().parent

# flag, default, help
DETECTOR_FILES = (
    ("--yolox_config", "./configs/dwpose/yolox_l_8xb8-300e_coco.py", "mm config of the person detector"),
    ("--dwpose_config", "./configs/dwpose/dwpose-l_384x288.py", "mm config of the pose network"),
    ("--yolox_ckpt", "./pretrained_weights/dwpose/yolox_l_8x8_300e_coco.pth", "weights of the person detector"),
    ("--dwpose_ckpt", "./pretrained_weights/dwpose/dw-ll_ucoco_384.pth", "weights of the pose network"),
)


def parse(arguments: Sequence[str] | None) -> Settings:
    parser = Parser(
        prog="prepare_dataset.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--video_dir", type=Path, required=True, metavar="DIR", help="videos, in folders of any depth")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of the data set")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes, each with its own detector")
    parser.add_argument("--device", metavar="X", help="as in pose_align.py; several with commas: workers take turns")
    parser.add_argument(
        "--draw_face", action="store_true", help="draw faces too; pose_align.py and the published weights know none"
    )
    parser.add_argument(
        "--detect_resolution", type=int, default=512, metavar="N", help="short side of what the detector sees, pixels"
    )
    for flag, default, text in DETECTOR_FILES:
        shown = f"{text} (default {default})"
        parser.add_argument(flag, type=Path, default=_default_file(Path(default)), metavar="FILE", help=shown)
    return Settings(**vars(parser.parse_args(arguments)))


def _default_file(path: Path) -> Path:
    """A file that comes with the project, or is fetched into it: here, or else in the project's own folder."""
    return PROJECT / path if not path.exists() and (PROJECT / path).exists() else path


def main(arguments: Sequence[str] | None = None, load: Load = load_detector) -> int:
    settings = parse(arguments)
    return make_dataset(settings, plan(settings), load)


if __name__ == "__main__":
    run_script(main)
