"""Options of pose_align.py, and the detector's files, which other commands use too."""

from dataclasses import dataclass
from pathlib import Path

from musepose.utils.options import option

DETECTOR = "detector"  # heading in --help
DETECTORS = ("dwpose", "blazepose")  # the first is the default


@dataclass(frozen=True, kw_only=True)
class DetectorFiles:
    """Which detector, and its files: DWPose's mm configs and weights, or BlazePose's networks."""

    detector: str | None = option(
        None,
        "dwpose: YOLOX and RTMPose, by mmdet and mmpose; blazepose: MediaPipe's networks, small and fast, by LiteRT. "
        "Default: dwpose, or the one that made --keypoints",
        choices=DETECTORS,
        group=DETECTOR,
    )
    blazepose_dir: Path = option(
        Path("pretrained_weights/blazepose"), "BlazePose's networks", group=DETECTOR, project=True, metavar="DIR"
    )
    yolox_config: Path = option(
        Path("configs/dwpose/yolox_l_8xb8-300e_coco.py"),
        "mm config of the person detector",
        group=DETECTOR,
        project=True,
    )
    dwpose_config: Path = option(
        Path("configs/dwpose/dwpose-l_384x288.py"), "mm config of the pose network", group=DETECTOR, project=True
    )
    yolox_ckpt: Path = option(
        Path("pretrained_weights/dwpose/yolox_l_8x8_300e_coco.pth"),
        "weights of the person detector",
        group=DETECTOR,
        project=True,
    )
    dwpose_ckpt: Path = option(
        Path("pretrained_weights/dwpose/dw-ll_ucoco_384.pth"),
        "weights of the pose network",
        group=DETECTOR,
        project=True,
    )


@dataclass(frozen=True, kw_only=True)
class Settings(DetectorFiles):
    """Options of pose_align.py."""

    imgfn_refer: Path = option(
        Path("assets/images/ref.png"), "reference picture of the person to animate", project=True
    )
    vidfn: Path = option(Path("assets/videos/dance.mp4"), "dance video", project=True)
    detect_resolution: int = option(512, "short side of what dwpose sees, pixels", low=64, high=4096)
    image_resolution: int = option(
        720, "short side of the pictures' own poses in the demo video, pixels", low=64, high=4096
    )
    person: int | str = option(
        "largest",
        "whom to follow in the dance: the largest, the left or right one, or N, the N-th from the left, where they are "
        "first seen",
        words=("largest", "left", "right"),
        low=1,
    )
    picture_person: int | str = option(
        "largest", "whom to take in the picture, likewise", words=("largest", "left", "right"), low=1
    )
    align_frame: int = option(
        0, "frame of the dance that is aligned to the picture; the pose video starts with it", low=0
    )
    det_every: int = option(
        1,
        "look for persons in every N-th frame only; in between follow those found, as blazepose does in any case",
        low=1,
    )
    max_frame: int = option(300, "use at most this many frames of the dance; 0: all", low=0)
    scale_from: str = option(
        "frame",
        "measure limb lengths in the align frame, as published, or over the whole video, which is robust to "
        "foreshortening in that frame",
        choices=("frame", "video"),
    )
    outfn_align_pose_video: Path | None = option(
        None, "aligned pose video; default assets/poses/align/img_REF_video_DANCE.mp4"
    )
    outfn: Path | None = option(
        None, "demo video, side by side; default assets/poses/align_demo/img_REF_video_DANCE.mp4"
    )
    save_keypoints: Path | None = option(None, "write the detected keypoints to this .npz file")
    keypoints: Path | None = option(
        None, "a file written by --save_keypoints for this video; a new picture is detected again", project=True
    )
    device: str | None = option(None, "cpu, cuda, cuda:1, mps, ...; default: cuda or mps if there is one, else cpu")
