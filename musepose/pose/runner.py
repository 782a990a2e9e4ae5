"""Runs a checked job of pose_align.py: detect, align, draw, write."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TypeVar

import numpy as np

from musepose.media.side_by_side import fit, panel_layout, side_by_side
from musepose.media.video_reader import read_frames
from musepose.media.video_writer import VideoWriter
from musepose.pose.align import Alignment, fit_alignment, segment_lengths, typical_lengths
from musepose.pose.detectors.base import Detector
from musepose.pose.detectors.choice import load_chosen
from musepose.pose.draw import Style, draw_pose_map, draw_video_frame, video_size
from musepose.pose.face import carry_face
from musepose.pose.job import Job
from musepose.pose.keypoint_file import KeypointFile, Keypoints, save_keypoints
from musepose.pose.openpose_output import save_openpose
from musepose.pose.person_choice import WORDS, TooFew
from musepose.pose.person_tracking import choose_person, follow
from musepose.pose.types import BODY_AND_FEET, KEYPOINTS, People, Pose, to_pose
from musepose.utils.errors import UserError
from musepose.utils.files import CompleteFiles
from musepose.utils.prefetch import prefetch
from musepose.utils.progress import progress_bar

Item = TypeVar("Item")
PREFETCH_READ, PREFETCH_DRAWN = 4, 2  # frames buffered between the threads
MAX_LISTED_RANGES = 8  # ranges of empty frames that the report lists


def load_detector(job: Job) -> Detector:
    """The job's detector as the settings have it. Only here torch and the mm packages are imported, if at all."""
    print("loading the detector", flush=True)
    settings = job.settings
    return load_chosen(settings, settings.device, settings.detect_resolution, job.detector)


def run_job(job: Job, load: Callable[[Job], Detector] = load_detector) -> int:
    """Run `job` and return the exit status. `load` is called only if something must be detected.

    Raises UserError: no person in the picture or in the align frame, no limb visible in both, a file cannot be written.
    """
    first = job.settings.align_frame
    if job.frames < job.dance.frames:
        print(f"using {job.frames} of {job.dance.frames} frames (--max_frame 0 uses all)", flush=True)
    if first:
        print(f"starting at frame {first}, the align frame", flush=True)
    found = find_keypoints(job, load)
    if job.settings.save_keypoints is not None:
        save_keypoints(job.settings.save_keypoints, found)
        print(f"wrote {job.settings.save_keypoints}", flush=True)
    image_pose = _pose(found.image_keypoints, 0)
    dance_poses = Poses(found.video_keypoints, job.frames)
    alignment = align_job(job, image_pose, dance_poses)
    _report_empty(dance_poses, first)
    if job.settings.save_openpose is not None:
        aligned = (aligned_pose(job, alignment, dance_poses[i]) for i in range(first, len(dance_poses)))
        save_openpose(job, image_pose, dance_poses, aligned)
        print(f"wrote {job.settings.save_openpose}", flush=True)
    write_videos(job, alignment, image_pose, dance_poses)
    print(f"wrote {job.aligned_path}\nwrote {job.demo_path}", flush=True)
    return 0


class Poses:
    """The followed person's pose in each frame of a video, computed on access; None where the person was not found."""

    def __init__(self, keypoints: Keypoints, frames: int) -> None:
        self._keypoints, self._frames = keypoints, frames

    def __len__(self) -> int:
        return self._frames

    def __getitem__(self, frame: int) -> Pose | None:
        if not 0 <= frame < self._frames:
            raise IndexError(frame)
        return _pose(self._keypoints, frame)


def find_keypoints(job: Job, load: Callable[[Job], Detector]) -> KeypointFile:
    """The person's keypoints in the picture and in the video, from the keypoint file if it has them, else detected."""
    image = video = None
    if job.known is not None:
        video = job.known.video_keypoints
        image = None if job.detect_image else job.known.image_keypoints
    if job.video_people is not None:
        video = _given_video(job, job.video_people)
    if job.image_people is not None:
        image = _chosen(job, job.image_people)
    if image is None or video is None:
        detector = load(job)
        if image is None:
            image = _detect_image(job, detector)
        if video is None:
            video = _detect_video(job, detector)
    return KeypointFile(job.image_source, image, job.video_source, video, job.settings.detect_resolution, job.detector)


def align_job(job: Job, image_pose: Pose | None, dance_poses: Poses) -> Alignment:
    """The alignment for the whole video. Raises UserError if the picture or the align frame shows no person."""
    settings = job.settings
    if image_pose is None:
        raise _no_person_in_image(job)
    first = dance_poses[settings.align_frame]
    if first is None:
        raise _no_person_in_frame(job, dance_poses)
    image_aspect, frame_aspect = job.reference.width / job.reference.height, job.dance.width / job.dance.height
    lengths = None
    if settings.scale_from == "video":
        lengths = typical_lengths(segment_lengths(pose, frame_aspect) for pose in dance_poses if pose is not None)
    return fit_alignment(image_pose, first, image_aspect, frame_aspect, lengths)


def aligned_pose(job: Job, alignment: Alignment, pose: Pose | None) -> Pose | None:
    """The pose of a frame of the dance as it lies in the picture, with its face."""
    if pose is None:
        return None
    image_aspect, frame_aspect = job.reference.width / job.reference.height, job.dance.width / job.dance.height
    return carry_face(pose, alignment.apply(pose), frame_aspect, image_aspect)


def write_videos(job: Job, alignment: Alignment, image_pose: Pose, dance_poses: Poses) -> None:
    """Write the aligned pose video and the demo video; both files appear when both are complete.

    Reading, drawing and encoding run in parallel, a few frames apart.
    """
    dance, image_size = job.dance, job.reference.size
    frame_size = (dance.width, dance.height)
    layout = panel_layout([image_size, image_size, video_size(*image_size), frame_size, frame_size])
    start = job.settings.align_frame / dance.rate  # seconds
    with ExitStack() as stack:
        common = {"audio_from": dance.path, "audio_start": start, "files": stack.enter_context(CompleteFiles())}
        aligned_writer, demo_writer = (
            stack.enter_context(VideoWriter(path, *size, dance.rate, **common))
            for path, size in (
                (job.aligned_path, video_size(*image_size)),
                (job.demo_path, (sum(layout[0]), layout[1])),
            )
        )
        drawn = prefetch(_draw(job, alignment, image_pose, dance_poses, *layout), PREFETCH_DRAWN)
        stack.enter_context(closing(drawn))  # stops the threads before the writers close
        for aligned, strip in _watch(drawn, job.frames - job.settings.align_frame, "drawing"):
            aligned_writer.write(aligned)
            demo_writer.write(strip)


def _draw(
    job: Job,
    alignment: Alignment,
    image_pose: Pose,
    dance_poses: Poses,
    widths: list[int],  # pixels, of the demo video's panels
    height: int,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For each frame of the dance from the align frame on: a frame of the aligned pose video and one of the demo."""
    settings, image_size, frame_size = job.settings, job.reference.size, (job.dance.width, job.dance.height)
    style = Style(settings.colors, settings.draw_face, settings.line_width)
    resolutions = (settings.detect_resolution, settings.image_resolution, style)
    still = [np.asarray(job.reference), draw_pose_map(image_pose, image_size, *resolutions)]
    still = [fit(picture, width, height) for picture, width in zip(still, widths, strict=False)]  # once, not per frame
    with closing(prefetch(_dance_frames(job), PREFETCH_READ)) as frames:
        for index, frame in enumerate(frames):
            if index < settings.align_frame:
                continue
            pose = dance_poses[index]
            aligned = draw_video_frame(aligned_pose(job, alignment, pose), frame_size, image_size, style)
            pose_map = draw_pose_map(pose, frame_size, *resolutions)
            yield aligned, side_by_side([*still, aligned, frame, pose_map], widths, height)


def _pose(keypoints: Keypoints, row: int) -> Pose | None:
    """The pose in one picture; None if no body joint is visible, which means that no person was found."""
    pose = to_pose(keypoints.points[row], keypoints.scores[row])
    return pose if pose.body_visible.any() else None


def _detect_image(job: Job, detector: Detector) -> Keypoints:
    return _chosen(job, detector(np.asarray(job.reference)))


def _chosen(job: Job, people: People) -> Keypoints:
    """The keypoints of the chosen person in the picture."""
    try:
        keypoints = gather_keypoints([(people, choose_person(people, job.settings.picture_person))])
    except TooFew as error:
        raise _too_few(error, "picture_person", job.settings.imgfn_refer) from None
    if _pose(keypoints, 0) is None:  # reported before the video, which takes long
        raise _no_person_in_image(job)
    return keypoints


def _detect_video(job: Job, detector: Detector) -> Keypoints:
    with ExitStack() as stack:
        found = stack.enter_context(closing(detector.find(_dance_frames(job), job.settings.det_every)))
        watched = stack.enter_context(closing(_watch(found, job.frames, "detecting")))  # before an error is told
        return _followed(job, watched)


def _given_video(job: Job, people: list[People]) -> Keypoints:
    """The keypoints of the person that is meant in a file's frames; where none has two people, of whoever is there."""
    if all(len(frame.boxes) <= 1 for frame in people) and job.settings.person in (*WORDS, 1):
        return gather_keypoints((frame, 0 if len(frame.boxes) else None) for frame in people)
    return _followed(job, people)


def _followed(job: Job, people: Iterable[People]) -> Keypoints:
    """The keypoints of the person that is meant in the video."""
    try:
        return gather_keypoints(follow(people, job.settings.person))
    except TooFew as error:
        raise _too_few(error, "person", job.dance.path) from None


def gather_keypoints(chosen: Iterable[tuple[People, int | None]]) -> Keypoints:
    """The chosen person's keypoints in each picture. Other people are dropped."""
    shapes = {"keypoints": (KEYPOINTS, 2), "scores": (KEYPOINTS,), "depth": (KEYPOINTS,), "metres": (BODY_AND_FEET, 3)}
    rows: dict[str, list[np.ndarray]] = {name: [] for name in shapes}
    for people, person in chosen:
        for name, shape in shapes.items():
            known = getattr(people, name)  # None where the detector does not know such things
            if known is not None:
                rows[name].append(np.zeros(shape, np.float32) if person is None else known[person].astype(np.float32))
    points, scores, *more = (np.stack(some) if some else None for some in rows.values())
    return Keypoints(points, scores, *more)


def _dance_frames(job: Job) -> Iterator[np.ndarray]:
    """The first `job.frames` frames of the dance. Raises UserError if decoding gives fewer."""
    done = 0
    with closing(read_frames(job.dance.path, count=job.frames)) as frames:
        for frame in frames:
            yield frame
            done += 1
    if done < job.frames:
        raise UserError(
            f"{job.dance.path} breaks off after {done} of {job.dance.frames} frames: "
            f"repair it, or give --max_frame {done}"
        )


def _watch(items: Iterable[Item], total: int, task: str) -> Iterator[Item]:
    """Yield the items and show a progress bar."""
    with progress_bar(total=total, desc=task, unit="frame") as bar:
        for item in items:
            yield item
            bar.update()


def _too_few(error: TooFew, flag: str, path: Path) -> UserError:
    seen = "nobody else is" if error.count == 1 else f"only {error.count} people are"
    return UserError(f"--{flag} is {error.wanted}, but {seen} seen in {path}: give at most {error.count}")


def _no_person_in_image(job: Job) -> UserError:
    return UserError(f"no person was found in {job.settings.imgfn_refer}: give a picture that shows one person clearly")


def _no_person_in_frame(job: Job, dance_poses: Poses) -> UserError:
    frame = job.settings.align_frame
    candidates = (n for n in (*range(frame, len(dance_poses)), *range(frame)) if dance_poses[n] is not None)
    other = next(candidates, None)
    if other is None:
        return UserError(f"no person was found in {job.dance.path}: give a video that shows one person clearly")
    return UserError(
        f"the dancer was not found in frame {frame} of {job.dance.path}, the align frame: "
        f"choose another one, for instance --align_frame {other}"
    )


def _report_empty(dance_poses: Poses, first: int) -> None:
    empty = [frame for frame in range(first, len(dance_poses)) if dance_poses[frame] is None]
    if not empty:
        return
    runs: list[list[int]] = []
    for frame in empty:
        if runs and frame == runs[-1][1] + 1:
            runs[-1][1] = frame
        else:
            runs.append([frame, frame])
    names = [str(a) if a == b else f"{a}-{b}" for a, b in runs[:MAX_LISTED_RANGES]]
    more = ", ..." if len(runs) > MAX_LISTED_RANGES else ""
    total = len(dance_poses) - first
    print(
        f"the dancer was not found in {len(empty)} of {total} frames, drawn empty: {', '.join(names)}{more}", flush=True
    )
