"""Options of pose_align.py, and the detector's files, which other commands use too."""

from dataclasses import dataclass
from pathlib import Path

from musepose.pose.person_choice import LARGEST, WORDS
from musepose.utils.options import option

DETECTOR = "detector"  # heading in --help
DRAWING = "drawing"
DETECTORS = ("dwpose", "blazepose")  # the first is the default
AUTO = "auto"


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
        "mm config of the person detector; it is Python code, which runs",
        group=DETECTOR,
        project=True,
    )
    dwpose_config: Path = option(
        Path("configs/dwpose/dwpose-l_384x288.py"),
        "mm config of the pose network; Python code as well",
        group=DETECTOR,
        project=True,
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
    align: str = option(
        "published",
        "published: limb lengths of the picture over those of one frame; robust: lengths over the whole video, "
        "corrected for foreshortening, feet on the picture's ground",
        choices=("published", "robust"),
    )
    smooth: bool | None = option(
        None,
        "interpolate gaps of up to 5 frames and filter jitter of body, hands and face, never across a cut; --no-smooth "
        "keeps the keypoints as detected. Default: only with --align robust",
    )
    limb_scale: str | None = option(
        None,
        "scale these limbs of the dancer by hand: upper_arms=0.9,lower_legs=1.1. --save_keypoints records it, "
        "--keypoints repeats it, none ignores the record",
        metavar="LIMB=X,...",
    )
    strict: bool = option(
        False, "stop with an error if limbs are odd, joints leave the picture, or frames have no person"
    )
    align_frame: int | str = option(
        0,
        "frame of the dance that is aligned to the picture; the pose video starts with it. With --align robust it only "
        "marks the preview and --start_at_align_frame. auto: the frame most like the picture",
        low=0,
        words=(AUTO,),
    )
    start_at_align_frame: bool = option(
        False, "with --align robust: start the pose video at the align frame instead of frame 0"
    )
    det_every: int = option(
        1,
        "look for persons in every N-th frame only; in between follow those found, as blazepose does in any case",
        low=1,
    )
    max_frame: int = option(300, "use at most this many frames of the dance; 0: all", low=0)
    from_: float = option(0.0, "second of the dance to begin with; frames are counted from there", low=0)
    to: float | None = option(None, "second of the dance to end before; default: its end", above=0)
    scale_from: str = option(
        "frame",
        "with --align published: measure limb lengths in the align frame, or over the whole video, which is robust to "
        "foreshortening in that frame",
        choices=("frame", "video"),
    )
    outfn_align_pose_video: Path | None = option(
        None, "aligned pose video; default assets/poses/align/img_REF_video_DANCE.mp4"
    )
    outfn: Path | None = option(
        None, "demo video, side by side; default assets/poses/align_demo/img_REF_video_DANCE.mp4"
    )
    preview: Path | None = option(
        None,
        "the picture with the aligned skeletons of six frames, the align frame and those that reach farthest out; "
        "default: beside the demo video, its name and _preview.png",
        metavar="FILE.png",
    )
    person: int | str = option(
        LARGEST,
        "which of several people in the video: the largest, or the N-th from the left (1 is left, also called left), "
        "judged over the first second that shows somebody",
        low=1,
        words=WORDS,
        metavar="WHO",
    )
    picture_person: int | str = option(
        LARGEST, "which of several people in the picture, likewise", low=1, words=WORDS, metavar="WHO"
    )
    save_keypoints: Path | None = option(None, "write the detected keypoints to this .npz file")
    keypoints: Path | None = option(
        None,
        "a file written by --save_keypoints for this video (a new picture is detected again), or OpenPose JSON: a "
        "folder with a file a frame, or a .json file with a list of frames; 18 or 25 body points, pixels or fractions",
        project=True,
    )
    picture_keypoints: Path | None = option(
        None, "OpenPose JSON of the picture, instead of detecting", project=True, metavar="FILE.json"
    )
    save_openpose: Path | None = option(
        None,
        "write OpenPose JSON, a file a frame, into this folder: dance and picture in their pixels, and aligned, the "
        "aligned poses in the picture's pixels",
        metavar="DIR",
    )
    colors: str = option(
        "musepose",
        "palette of the drawn poses: musepose, which its weights learned, or openpose, red and blue exchanged, which "
        "other models learned",
        choices=("musepose", "openpose"),
        group=DRAWING,
    )
    draw_face: bool = option(False, "draw the face too; MusePose's weights know none", group=DRAWING)
    line_width: float = option(
        1.0, "draw strokes and points so many times as wide as published", low=0.1, high=10, group=DRAWING
    )
    device: str | None = option(None, "cpu, cuda, cuda:1, mps, ...; default: cuda or mps if there is one, else cpu")
