"""Aligns the poses of a dance video to the person in a reference picture, and draws them as a pose video.

    python pose_align.py --imgfn_refer ./assets/images/ref.png --vidfn ./assets/videos/dance.mp4
    python pose_align.py --imgfn_refer me.jpg --vidfn dance.mp4 --align_frame 24 --max_frame 0 --scale_from video

Detect once, align many times:

    python pose_align.py --imgfn_refer me.jpg --vidfn dance.mp4 --save_keypoints dance.npz
    python pose_align.py --imgfn_refer me.jpg --vidfn dance.mp4 --keypoints dance.npz --align_frame 24
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from musepose.cli.entry import Parser, run_script
from musepose.pose.job import SCALE_FROM, Settings, prepare
from musepose.pose.runner import load_detector, run_job

PROJECT = Path(__file__).resolve().parent

# flag, type, default, help
FLAGS = (
    ("--imgfn_refer", Path, "./assets/images/ref.png", "reference picture of the person to animate"),
    ("--vidfn", Path, "./assets/videos/dance.mp4", "dance video"),
    ("--detect_resolution", int, 512, "short side of what the detector sees, pixels"),
    ("--image_resolution", int, 720, "short side of the pictures' own poses in the demo video, pixels"),
    ("--align_frame", int, 0, "frame of the dance that is laid onto the picture; the pose video starts with it"),
    ("--det_every", int, 1, "look for persons in every N-th frame only; in between follow those found"),
    ("--max_frame", int, 300, "use at most this many frames of the dance; 0: all"),
    ("--scale_from", str, "frame", "measure the dancer in the align frame, as published, or over the whole video"),
    (
        "--outfn_align_pose_video",
        Path,
        None,
        "aligned pose video; default ./assets/poses/align/img_REF_video_DANCE.mp4",
    ),
    ("--outfn", Path, None, "demo video, side by side; default ./assets/poses/align_demo/img_REF_video_DANCE.mp4"),
    ("--save_keypoints", Path, None, "write what was detected to this .npz file"),
    ("--keypoints", Path, None, "a file written by --save_keypoints for this video; another picture is detected anew"),
    ("--device", str, None, "cpu, cuda, cuda:1, mps, ...; default: cuda or mps if there is one, else cpu"),
    ("--yolox_config", Path, "./configs/dwpose/yolox_l_8xb8-300e_coco.py", "mm config of the person detector"),
    ("--dwpose_config", Path, "./configs/dwpose/dwpose-l_384x288.py", "mm config of the pose network"),
    ("--yolox_ckpt", Path, "./pretrained_weights/dwpose/yolox_l_8x8_300e_coco.pth", "weights of the person detector"),
    ("--dwpose_ckpt", Path, "./pretrained_weights/dwpose/dw-ll_ucoco_384.pth", "weights of the pose network"),
)
CHOICES = {"--scale_from": SCALE_FROM}


def parse(arguments: Sequence[str] | None) -> Settings:
    parser = Parser(
        prog="pose_align.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for flag, kind, default, text in FLAGS:
        shown = text if default is None else f"{text} (default {default})"
        if default is not None:
            default = _default_file(Path(default)) if kind is Path else kind(default)
        choices = CHOICES.get(flag)
        metavar = None if choices else {int: "N", Path: "FILE"}.get(kind, "X")
        parser.add_argument(flag, type=kind, default=default, choices=choices, metavar=metavar, help=shown)
    return Settings(**vars(parser.parse_args(arguments)))


def _default_file(path: Path) -> Path:
    """A file that comes with the project, or is fetched into it: here, or else in the project's own folder."""
    return PROJECT / path if not path.exists() and (PROJECT / path).exists() else path


def main(arguments: Sequence[str] | None = None, load: Callable = load_detector) -> int:
    return run_job(prepare(parse(arguments)), load)


if __name__ == "__main__":
    run_script(main)
