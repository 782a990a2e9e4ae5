"""Prepares one video of a data set: detect keypoints, draw the pose video, write a record."""

import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

from musepose.media.damage import damaged_frames, describe_damage
from musepose.media.video_reader import VideoInfo, probe, read_frames
from musepose.media.video_writer import VideoWriter
from musepose.pose.detectors.base import Detector
from musepose.pose.draw import Style, draw_video_frame, video_size
from musepose.pose.fitting import Poses
from musepose.pose.job import check_shape
from musepose.pose.keypoint_file import Keypoints, Source
from musepose.pose.person_tracking import follow
from musepose.pose.runner import gather_keypoints
from musepose.training.data.clip_keypoints import ClipKeypoints, load_clip_keypoints, save_clip_keypoints
from musepose.training.data.manifest import Clip
from musepose.utils.errors import UserError
from musepose.utils.files import complete_file

MIN_DETECTED = 0.5  # share of the frames; with fewer, most pose pictures would be black


@dataclass(frozen=True)
class Detection:
    """The detector settings that the keypoints depend on."""

    detector: str  # SHA-256 of its configs and weights
    detect_resolution: int
    name: str = "dwpose"  # of the detector


@dataclass(frozen=True)
class Task:
    """A video and the files to write for it."""

    video: Path
    keypoints: Path
    poses: Path
    record: Path  # written last: the sources and settings of the other files
    detection: Detection
    draw_face: bool


@dataclass(frozen=True)
class Outcome:
    """The clip of a video, or the reason why the video is excluded."""

    video: Path
    clip: Clip | None
    left_out: str | None = None  # names the video
    notes: tuple[str, ...] = ()  # what is unusual about the video, a line each


def finished(task: Task) -> Outcome | None:
    """The outcome of an earlier run for the same video and settings; None if its record or files are not whole."""
    record = _read_record(task)
    if record is None or record.get("draw_face") != task.draw_face:
        return None
    left_out = record.get("left_out", "")
    if isinstance(left_out, str) and left_out:
        return Outcome(task.video, None, left_out)
    if left_out is not None or not task.keypoints.is_file():
        return None
    try:
        info, poses = probe(task.video), probe(task.poses)
    except UserError:
        return None
    if poses.frames != info.frames or any(record.get(key) != value for key, value in _shape(info).items()):
        return None
    return Outcome(task.video, _clip(task, info))


def prepare_video(task: Task, load: Callable[[], Detector]) -> Outcome:
    """Write the files of `task`. `load` is called only if no earlier run has detected these keypoints.

    A video that cannot be used is an outcome, not an error. Raises UserError: a file cannot be written.
    """
    stamp = _stamp(task.video)  # taken first: if the video changes meanwhile, the next run prepares it again
    try:
        info = probe(task.video)
        check_shape(task.video, info.width, info.height)
        damaged = damaged_frames(info)
    except Exception as error:  # whatever a broken video raises, the others go on
        return Outcome(task.video, None, _reason(task.video, error))
    keypoints = _known_keypoints(task, info)
    task.record.unlink(missing_ok=True)  # before the files that it describes are replaced
    if keypoints is None:
        detector = load()  # an error here ends the run, not only this video
        try:
            keypoints = detect(info, detector)
        except Exception as error:
            return Outcome(task.video, None, _reason(task.video, error))
        content = ClipKeypoints(Source.of(task.video), keypoints, task.detection.detect_resolution, task.detection.name)
        save_clip_keypoints(task.keypoints, content)
    poses = Poses(keypoints, info.frames)
    left_out = _too_few_detections(task.video, poses)
    if left_out is None:
        draw_poses_video(task.poses, poses, info, task.draw_face)
    _write_record(task, stamp, info, left_out)
    notes = (*info.notes, describe_damage(task.video, damaged)) if damaged else info.notes
    return Outcome(task.video, None if left_out else _clip(task, info), left_out, notes)


def _clip(task: Task, info: VideoInfo) -> Clip:
    shape = info.frames, info.rate, info.width, info.height
    return Clip(task.video, task.poses, task.keypoints, *shape, info.resampling)


def _reason(video: Path, error: Exception) -> str:
    """Why a video is left out, in one line that names it."""
    text = " ".join(str(error).split())
    return text if isinstance(error, UserError) else f"{video} cannot be used ({type(error).__name__}: {text})"


def detect(info: VideoInfo, detector: Detector) -> Keypoints:
    """The points of the person to follow, one row for each frame. Raises UserError where the video is broken."""
    with closing(detector.find(read_frames(info))) as found:
        keypoints = gather_keypoints(follow(found))
    if len(keypoints.points) != info.frames:
        raise UserError(f"{info.path} has {len(keypoints.points)} frames instead of {info.frames}: repair it")
    return keypoints


def draw_poses_video(path: Path, poses: Poses, info: VideoInfo, draw_face: bool) -> None:
    """As pose_align.py draws a dance that is aligned to a picture of its own size: what inference will see."""
    size, style = (info.width, info.height), Style(face=draw_face)
    with VideoWriter(path, *video_size(*size), info.rate) as writer:
        for frame in range(info.frames):
            writer.write(draw_video_frame(poses[frame], size, size, style))


def _too_few_detections(video: Path, poses: Poses) -> str | None:
    """The reason to exclude a video whose person was not detected in enough frames, or None."""
    found = sum(pose is not None for pose in poses)
    if found >= MIN_DETECTED * len(poses) and found:
        return None
    return f"{video} shows a person in only {found} of {len(poses)} frames: cut it, or give --video_dir without it"


def _stamp(video: Path) -> dict | None:
    try:
        status = video.stat()
    except OSError:
        return None
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns}


def _read_record(task: Task) -> dict | None:
    """The record of an earlier run, if video and detector settings are unchanged; else None."""
    try:
        record = json.loads(task.record.read_text(encoding="utf-8"))
        fits = record["video"] == _stamp(task.video) and {"name": "dwpose"} | record["detection"] == asdict(
            task.detection
        )
        return record if fits else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _shape(info: VideoInfo) -> dict[str, object]:
    """What the record says of the video."""
    shape = {"frames": info.frames, "rate": str(info.rate), "width": info.width, "height": info.height}
    return shape | {"resampling": info.resampling}


def _write_record(task: Task, stamp: dict | None, info: VideoInfo, left_out: str | None) -> None:
    record = {
        "video": stamp,
        "detection": asdict(task.detection),
        "draw_face": task.draw_face,
        **_shape(info),
        "left_out": left_out,
    }
    with complete_file(task.record) as partial:
        partial.write_text(json.dumps(record), encoding="utf-8")


def _known_keypoints(task: Task, info: VideoInfo) -> Keypoints | None:
    record = _read_record(task)
    if record is None or record.get("resampling") != info.resampling:
        return None
    try:
        keypoints = load_clip_keypoints(task.keypoints).keypoints
    except UserError:
        return None
    return keypoints if len(keypoints.points) == info.frames else None
