"""Checks of a pose_align.py run that need no model, made before any model loads."""

import os
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from musepose.media.damage import damaged_frames
from musepose.media.image import read_image
from musepose.media.video_reader import VideoInfo, picture_numbers, probe
from musepose.media.video_writer import VIDEO_OUTPUTS
from musepose.pose.align import BODY_LIMBS
from musepose.pose.detectors.choice import check_detector_files, chosen, detector_files
from musepose.pose.keypoint_file import KeypointFile, Source, load_keypoints
from musepose.pose.limb_scale import parse_limb_scale
from musepose.pose.measure import LIMBS
from musepose.pose.openpose_files import check_replaceable, is_openpose, read_people
from musepose.pose.options import AUTO, DETECTORS, Settings
from musepose.pose.person_choice import LARGEST
from musepose.pose.types import People
from musepose.utils.errors import UserError
from musepose.utils.files import check_writable
from musepose.utils.paths import refuse_inputs

OPENPOSE_PARTS = DANCE, PICTURE, ALIGNED = ("dance", "picture", "aligned")  # sub-folders of --save_openpose
MAX_ASPECT_RATIO = 10  # long side over short side; the size of drawings and videos grows with it


@dataclass(frozen=True)
class Job:
    """A run whose settings and files have been checked."""

    settings: Settings
    reference: Image.Image
    dance: VideoInfo
    first: int  # first frame of the dance that is used; all other frame numbers count from it
    frames: int  # how many frames of the dance are used, counted from `first`
    limb_scale: dict[str, float]  # of --limb_scale, limb -> factor
    aligned_path: Path
    demo_path: Path
    preview_path: Path
    image_source: Source
    video_source: Source
    known: KeypointFile | None  # of --keypoints; matches the dance and covers `frames`
    image_people: People | None = None  # from OpenPose JSON
    video_people: list[People] | None = None  # likewise, for each frame
    damaged: tuple[int, ...] = ()  # frames of the dance up to the last used one that show the one before

    @property
    def detector(self) -> str:
        """Which one is used, for the picture too: the one that made the keypoint file, if there is one."""
        return chosen(self.settings) if self.known is None else self.known.detector

    @property
    def smooth(self) -> bool:
        return self.settings.align == "robust" if self.settings.smooth is None else self.settings.smooth

    @property
    def detect_image(self) -> bool:
        """The picture's keypoints come from no file; those of a keypoint file may be another person's."""
        if self.image_people is not None:
            return False
        same = self.known is not None and same_picture(self.known, self.image_source)
        return not same or self.settings.picture_person != LARGEST

    @property
    def detect_video(self) -> bool:
        return self.known is None and self.video_people is None


def prepare(settings: Settings) -> Job:
    """Check the files that the settings name. Raises UserError. Writes nothing; imports neither torch nor mm*."""
    reference = read_image(settings.imgfn_refer)
    dance = probe(settings.vidfn)
    check_shape(settings.imgfn_refer, *reference.size)
    check_shape(settings.vidfn, dance.width, dance.height)
    first, part = _part(settings, dance)
    frames = min(settings.max_frame or part, part)
    _check_choices(settings)
    if settings.align_frame != AUTO and settings.align_frame >= frames:
        used = f"{dance.path} has {dance.frames} frames" if frames == dance.frames else f"only {frames} are used"
        raise UserError(f"--align_frame is {settings.align_frame}, but {used}: give at most {frames - 1}")
    image_source, video_source = Source.of(settings.imgfn_refer), Source.of(settings.vidfn)
    known = image_people = video_people = None
    if settings.picture_keypoints is not None:
        image_people = _picture_people(settings, reference.size)
    if settings.keypoints is not None and is_openpose(settings.keypoints):
        video_people = _dance_people(settings, dance, first, frames)
    elif settings.keypoints is not None:
        known = _known_keypoints(settings, video_source, first, frames, dance)
    limb_scale = _limb_scale(settings, known, image_source)
    outputs = _output_paths(settings)
    _check_outputs(settings, *outputs)
    sources = image_source, video_source, known, image_people, video_people
    damaged = tuple(damaged_frames(dance, first + frames))
    job = Job(settings, reference, dance, first, frames, limb_scale, *outputs, *sources, damaged)
    if job.detect_image or job.detect_video:
        check_detector_files(settings, job.detector)
    replaced = settings.save_openpose.rglob("*") if settings.save_openpose else ()
    given = settings.imgfn_refer, settings.vidfn, settings.keypoints, settings.picture_keypoints
    of_detectors = (file for name in DETECTORS for file in detector_files(settings, name))
    refuse_inputs([*outputs, settings.save_keypoints, settings.save_openpose, *replaced], [*given, *of_detectors])
    return job


def check_shape(path: Path, width: int, height: int) -> None:
    """Raises UserError if the aspect ratio is beyond 10 : 1 or 1 : 10."""
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise UserError(f"{path} is {width} x {height}, too elongated: crop it to at most {MAX_ASPECT_RATIO} : 1")


def _check_choices(settings: Settings) -> None:
    """Raises UserError if two options exclude each other."""
    if settings.align == "robust" and settings.scale_from != "frame":
        raise UserError("--align robust measures the whole video, as --scale_from does: leave one of the two out")


def same_picture(known: KeypointFile, image: Source) -> bool:
    return known.image.sha256 == image.sha256


def _part(settings: Settings, dance: VideoInfo) -> tuple[int, int]:
    """The first frame of the part of the dance that is used, and how many there are from there to its end."""
    first, end = round(settings.from_ * dance.rate), dance.frames
    if settings.to is not None:
        end = min(round(settings.to * dance.rate), end)
    if first >= dance.frames:
        seconds = float(dance.frames / dance.rate)
        raise UserError(f"--from is {settings.from_:g}, but {dance.path} lasts {seconds:.2f} seconds: give less")
    if first >= end:
        raise UserError(
            f"--to is {settings.to:g}, but --from is {settings.from_:g}: no frame is left, give a later end"
        )
    return first, end - first


def _limb_scale(settings: Settings, known: KeypointFile | None, image: Source) -> dict[str, float]:
    """As given, or else as kept in the keypoint file for this picture."""
    limbs = [*(LIMBS if settings.align == "robust" else BODY_LIMBS), "hands"]
    if settings.limb_scale is not None:
        return parse_limb_scale(settings.limb_scale, limbs)
    if known is None or not same_picture(known, image):
        return {}
    return parse_limb_scale(known.limb_scale, limbs, f"{settings.keypoints} holds a limb scale that")


def _known_keypoints(settings: Settings, video: Source, first: int, frames: int, dance: VideoInfo) -> KeypointFile:
    path, known = settings.keypoints, load_keypoints(settings.keypoints, max(dance.frames, 100_000))
    if settings.person != LARGEST:
        raise UserError(f"{path} holds one person only, so that --person has no choice: leave one of the two out")
    if known.video.sha256 != video.sha256:
        raise UserError(
            f"{path} was made for another video ({known.video.name}), not for {settings.vidfn}: "
            "leave --keypoints out to detect anew"
        )
    if known.resampling != dance.resampling:
        raise UserError(
            f"{path} numbers the frames of {settings.vidfn} by counting its pictures, which are placed by time now: "
            "leave --keypoints out to detect anew"
        )
    if settings.detector not in (None, known.detector):
        raise UserError(
            f"{path} was made by --detector {known.detector}, not {settings.detector}: give the same or none, "
            "or leave --keypoints out to detect anew"
        )
    if known.detector not in DETECTORS:
        raise UserError(f"{path} was made by another detector, {known.detector}: leave --keypoints out to detect anew")
    if known.detector == "dwpose" and known.detect_resolution != settings.detect_resolution:
        raise UserError(
            f"{path} was made with --detect_resolution {known.detect_resolution}, not {settings.detect_resolution}: "
            "give the same, or leave --keypoints out to detect anew"
        )
    if first < known.video_first:
        begin = f"give --from {float(known.video_first / dance.rate):.3f}"
        raise UserError(f"{path} begins with frame {known.video_first}, but {first} is needed: {begin}, or detect anew")
    _check_length(path, known.video_first + len(known.video_keypoints.points) - first, frames)
    return known


def _check_length(path: Path, have: int, frames: int) -> None:
    """`have`: how many frames from the first that is used on."""
    if have < 1:
        raise UserError(f"{path} ends before --from: give less, or leave --keypoints out to detect anew")
    if have < frames:
        raise UserError(
            f"{path} holds {have} frames, but {frames} are needed: give --max_frame {have}, "
            "or leave --keypoints out to detect anew"
        )


def _dance_people(settings: Settings, dance: VideoInfo, first: int, frames: int) -> list[People]:
    """The people of each frame from OpenPose JSON."""
    path = settings.keypoints
    people = read_people(path, (dance.width, dance.height))
    if dance.resampling is not None:
        numbers = picture_numbers(dance)
        if len(people) == numbers[-1] + 1:  # one for each stored picture
            people = [people[number] for number in numbers]
    _check_length(path, len(people) - first, frames)
    if len(people) > dance.frames:
        told = f"{path} holds {len(people)} frames, but {dance.path} has {dance.frames}"
        raise UserError(f"{told}: give the keypoints of this very video, at its own rate")
    return people[first : first + frames]


def _picture_people(settings: Settings, size: tuple[int, int]) -> People:
    path = settings.picture_keypoints
    if not is_openpose(path):
        raise UserError(f"--picture_keypoints is {path}, no OpenPose JSON: give a .json file")
    people = read_people(path, size)
    if len(people) != 1:
        raise UserError(f"{path} holds {len(people)} frames: give the keypoints of one picture")
    return people[0]


def _output_paths(settings: Settings) -> tuple[Path, Path, Path]:
    """Of the aligned pose video, the demo video, and the preview."""
    name = f"img_{settings.imgfn_refer.stem}_video_{settings.vidfn.stem}.mp4"
    aligned = settings.outfn_align_pose_video or Path("assets/poses/align") / name
    demo = settings.outfn or Path("assets/poses/align_demo") / name
    return aligned, demo, settings.preview or demo.with_name(f"{demo.stem}_preview.png")


def _check_outputs(settings: Settings, aligned: Path, demo: Path, preview: Path) -> None:
    """Raises UserError if an output cannot be written, or equals an input or another output."""
    taken = {os.path.realpath(path): path for path in (settings.imgfn_refer, settings.vidfn)}
    for path in (aligned, demo):
        if path.suffix.lower() not in VIDEO_OUTPUTS:
            raise UserError(f"cannot write a video called {path.name}: end its name in {', '.join(VIDEO_OUTPUTS)}")
    if settings.save_keypoints is not None and (settings.picture_keypoints or is_openpose(settings.keypoints)):
        raise UserError("--save_keypoints keeps what a detector found, not OpenPose JSON: leave one of the two out")
    if preview.suffix.lower() != ".png":
        raise UserError(f"cannot write a preview called {preview.name}: end its name in .png")
    for path in filter(None, (aligned, demo, preview, settings.save_keypoints)):
        real = os.path.realpath(path)
        if real in taken:
            raise UserError(f"{path} is an output, but also {taken[real]}: choose another output path")
        taken[real] = path
        check_writable(path)
    if settings.save_openpose is not None:
        _check_openpose_output(settings, taken)


def _check_openpose_output(settings: Settings, taken: dict[str, Path]) -> None:
    """The folder can be written, and nothing that is read or written otherwise lies in there."""
    folder = os.path.realpath(settings.save_openpose)
    read = {os.path.realpath(path): path for path in (settings.keypoints, settings.picture_keypoints) if path}
    for real, path in (taken | read).items():
        if Path(real).is_relative_to(folder):
            raise UserError(f"{settings.save_openpose} is to be replaced, but {path} lies in there: give a new folder")
    check_replaceable(settings.save_openpose, OPENPOSE_PARTS)
