"""A run of pose_align.py: all the checks that can be made before a model loads."""

import os
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from musepose.media.image import read_image
from musepose.media.video_reader import VideoInfo, probe
from musepose.media.video_writer import CONTAINERS
from musepose.pose.keypoint_file import KeypointFile, Source, load_keypoints
from musepose.pose.options import DetectorFiles, Settings
from musepose.utils.errors import UserError
from musepose.utils.files import DOWNLOAD_HINT, check_writable, require_file
from musepose.utils.options import option_specs

LONGEST_SHAPE = 10  # long side over short side; what is made of a picture grows with it


@dataclass(frozen=True)
class Job:
    """A checked run."""

    settings: Settings
    reference: Image.Image
    dance: VideoInfo
    frames: int  # of the dance, from its first, in which the person is looked for
    aligned_path: Path
    demo_path: Path
    image_source: Source
    video_source: Source
    known: KeypointFile | None  # that fits the dance and covers `frames`

    @property
    def detect_image(self) -> bool:
        return self.known is None or self.known.image.sha256 != self.image_source.sha256

    @property
    def detect_video(self) -> bool:
        return self.known is None


def prepare(settings: Settings) -> Job:
    """Check the files that the settings name. Raises UserError. Writes nothing, and imports neither torch nor mm."""
    reference = read_image(settings.imgfn_refer)
    dance = probe(settings.vidfn)
    check_shape(settings.imgfn_refer, *reference.size)
    check_shape(settings.vidfn, dance.width, dance.height)
    frames = min(settings.max_frame or dance.frames, dance.frames)
    if settings.align_frame >= frames:
        used = f"{dance.path} has {dance.frames} frames" if frames == dance.frames else f"--max_frame is {frames}"
        raise UserError(f"--align_frame is {settings.align_frame}, but {used}: give at most {frames - 1}")
    image_source, video_source = Source.of(settings.imgfn_refer), Source.of(settings.vidfn)
    known = None if settings.keypoints is None else _known_keypoints(settings, video_source, frames)
    aligned, demo = _output_paths(settings)
    _check_outputs(settings, aligned, demo)
    job = Job(settings, reference, dance, frames, aligned, demo, image_source, video_source, known)
    if job.detect_image or job.detect_video:
        check_detector_files(settings)
    return job


def check_shape(path: Path, width: int, height: int) -> None:
    """Raises UserError where a picture or video is much longer than high, or the other way round."""
    if max(width, height) > LONGEST_SHAPE * min(width, height):
        raise UserError(f"{path} is {width} x {height}, no shape for a person: crop it to at most {LONGEST_SHAPE} : 1")


def _known_keypoints(settings: Settings, video: Source, frames: int) -> KeypointFile:
    path, known = settings.keypoints, load_keypoints(settings.keypoints)
    if known.video.sha256 != video.sha256:
        raise UserError(
            f"{path} was made for another video ({known.video.name}), not for {settings.vidfn}: "
            "leave --keypoints out to detect anew"
        )
    if known.detect_resolution != settings.detect_resolution:
        raise UserError(
            f"{path} was made with --detect_resolution {known.detect_resolution}, not {settings.detect_resolution}: "
            "give the same, or leave --keypoints out to detect anew"
        )
    have = len(known.video_keypoints.points)
    if have < frames:
        raise UserError(
            f"{path} holds {have} frames, but {frames} are wanted: give --max_frame {have}, "
            "or leave --keypoints out to detect anew"
        )
    return known


def _output_paths(settings: Settings) -> tuple[Path, Path]:
    name = f"img_{settings.imgfn_refer.stem}_video_{settings.vidfn.stem}.mp4"
    aligned = settings.outfn_align_pose_video or Path("assets/poses/align") / name
    return aligned, settings.outfn or Path("assets/poses/align_demo") / name


def _check_outputs(settings: Settings, aligned: Path, demo: Path) -> None:
    """Every output can be written, and none is another one or an input."""
    taken = {os.path.realpath(path): path for path in (settings.imgfn_refer, settings.vidfn)}
    for path in (aligned, demo):
        if path.suffix.lower() not in CONTAINERS:
            raise UserError(f"cannot write a video called {path.name}: end its name in {', '.join(CONTAINERS)}")
    for path in filter(None, (aligned, demo, settings.save_keypoints)):
        real = os.path.realpath(path)
        if real in taken:
            raise UserError(f"{path} is to be written, but it is also {taken[real]}: choose another output path")
        taken[real] = path
        check_writable(path)


def check_detector_files(files: DetectorFiles) -> None:
    """Raises UserError: a config or weight file is missing. Not in the detector's module, which imports torch."""
    for one in option_specs(DetectorFiles):
        remedy = DOWNLOAD_HINT if one.name.endswith("ckpt") else "check the path"
        require_file(getattr(files, one.name), f"{remedy}, or give another with {one.flags[0]}")
