"""Runs a checked job of pose_align.py: detect, align, draw, write."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
from PIL import Image

from musepose.media.damage import describe_damage
from musepose.media.side_by_side import fit, panel_layout, side_by_side
from musepose.media.video_reader import read_frames
from musepose.media.video_writer import VideoWriter
from musepose.pose.detectors.base import Detector
from musepose.pose.detectors.choice import load_chosen
from musepose.pose.draw import Style, draw_pose_map, draw_video_frame, video_size
from musepose.pose.fitting import Fitted, fit_job, no_person_in_image, pose_of, problems
from musepose.pose.job import Job
from musepose.pose.keypoint_file import KeypointFile, Keypoints, save_keypoints
from musepose.pose.leftover import Leftover, remove_leftover
from musepose.pose.limb_scale import format_limb_scale
from musepose.pose.openpose_output import save_openpose
from musepose.pose.person_choice import WORDS, TooFew
from musepose.pose.person_tracking import choose_person, follow
from musepose.pose.preview import draw_preview
from musepose.pose.types import BODY_AND_FEET, KEYPOINTS, People
from musepose.utils.errors import UserError
from musepose.utils.files import CompleteFiles
from musepose.utils.prefetch import prefetch
from musepose.utils.reporter import CONSOLE, Reporter, watch

PREFETCH_READ, PREFETCH_DRAWN = 4, 2  # frames buffered between the threads


def load_detector(job: Job) -> Detector:
    """The job's detector as the settings have it. Only here torch and the mm packages are imported, if at all."""
    settings = job.settings
    return load_chosen(settings, settings.device, settings.detect_resolution, job.detector)


@dataclass(frozen=True)
class Result:
    """What a finished job found. Its videos are files."""

    found: KeypointFile
    fitted: Fitted
    warnings: Sequence[str]


def run_job(job: Job, load: Callable[[Job], Detector] = load_detector, reporter: Reporter = CONSOLE) -> Result:
    """Run `job`. `load` is called only if something must be detected.

    Raises UserError: no person in the picture or in the align frame, no limb visible in both, a file cannot be written,
    or with --strict a warning; and what the reporter raises.
    """
    for line in job.dance.notes:
        reporter.say(line)
    if job.first or job.frames < job.dance.frames:
        more = f" from frame {job.first} on" if job.first else " (--max_frame 0 uses all)"
        reporter.say(f"using {job.frames} of {job.dance.frames} frames{more}")
    found = find_keypoints(job, load, reporter)
    if job.settings.save_keypoints is not None:
        found = replace(found, limb_scale=format_limb_scale(job.limb_scale))
        save_keypoints(job.settings.save_keypoints, found)
        reporter.say(f"wrote {job.settings.save_keypoints}")
    fitted = fit_job(job, found)
    if fitted.why:
        reporter.say(f"the align frame is {fitted.align_frame}: {fitted.why}")
    if fitted.start:
        reporter.say(f"starting at frame {fitted.start}, the align frame")
    if job.limb_scale:
        reporter.say(f"limb scales given by hand: {format_limb_scale(job.limb_scale)}")
    warnings = problems(job, fitted)
    if warnings and job.settings.strict:
        raise UserError(f"--strict: {'; '.join(warnings)}")
    for line in warnings:
        reporter.say(line)
    if job.settings.save_openpose is not None:
        save_openpose(job, fitted.picture, fitted.poses, fitted.all_aligned())
        reporter.say(f"wrote {job.settings.save_openpose}")
    write_videos(job, fitted, reporter)
    reporter.say(f"wrote {job.aligned_path}\nwrote {job.demo_path}\nwrote {job.preview_path}")
    if job.damaged:
        reporter.say(describe_damage(job.dance.path, job.damaged))
    remove_leftover(job)
    return Result(found, fitted, warnings)


def find_keypoints(job: Job, load: Callable[[Job], Detector], reporter: Reporter = CONSOLE) -> KeypointFile:
    """The person's keypoints in the picture and in the video, from the keypoint file if it has them, else detected."""
    image = video = None
    video_first = job.first
    if job.known is not None:
        video, video_first = job.known.video_keypoints, job.known.video_first
        image = None if job.detect_image else job.known.image_keypoints
    if job.video_people is not None:
        video = _given_video(job, job.video_people)
    if job.image_people is not None:
        image = _chosen(job, job.image_people)
    if image is None or video is None:
        image, video = _detect(job, load, reporter, image, video)
    sources = job.image_source, image, job.video_source, video
    resolution = job.settings.detect_resolution
    return KeypointFile(*sources, resolution, job.detector, video_first=video_first, resampling=job.dance.resampling)


def write_videos(job: Job, fitted: Fitted, reporter: Reporter = CONSOLE) -> None:
    """Write preview, aligned pose video and demo video; the files appear when all are complete.

    Reading, drawing and encoding run in parallel, a few frames apart.
    """
    dance, image_size = job.dance, job.reference.size
    frame_size = (dance.width, dance.height)
    layout = panel_layout([image_size, image_size, video_size(*image_size), frame_size, frame_size])
    start = (job.first + fitted.start) / dance.rate  # seconds
    with ExitStack() as stack:
        files = stack.enter_context(CompleteFiles())
        with files.file(job.preview_path) as partial:
            Image.fromarray(draw_preview(job.reference, fitted.shown(), fitted.align_frame)).save(partial, "PNG")
        common = {"audio_from": dance.path, "audio_start": start, "files": files}
        aligned_writer, demo_writer = (
            stack.enter_context(VideoWriter(path, *size, dance.rate, **common))
            for path, size in (
                (job.aligned_path, video_size(*image_size)),
                (job.demo_path, (sum(layout[0]), layout[1])),
            )
        )
        drawn = prefetch(_draw(job, fitted, *layout), PREFETCH_DRAWN)
        stack.enter_context(closing(drawn))  # stops the threads before the writers close
        for aligned, strip in watch(drawn, reporter, "drawing", job.frames - fitted.start, "frame"):
            aligned_writer.write(aligned)
            demo_writer.write(strip)


def _draw(
    job: Job,
    fitted: Fitted,
    widths: list[int],  # pixels, of the demo video's panels
    height: int,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For each frame of the dance from the start on: a frame of the aligned pose video and one of the demo."""
    settings, image_size, frame_size = job.settings, job.reference.size, (job.dance.width, job.dance.height)
    style = Style(settings.colors, settings.draw_face, settings.line_width)
    resolutions = (settings.detect_resolution, settings.image_resolution, style)
    still = [np.asarray(job.reference), draw_pose_map(fitted.picture, image_size, *resolutions)]
    still = [fit(picture, width, height) for picture, width in zip(still, widths, strict=False)]  # once, not per frame
    with closing(prefetch(_dance_frames(job), PREFETCH_READ)) as frames:
        for index, frame in enumerate(frames):
            if index < fitted.start:
                continue
            aligned = draw_video_frame(fitted.aligned(index), frame_size, image_size, style)
            pose_map = draw_pose_map(fitted.poses[index], frame_size, *resolutions)
            yield aligned, side_by_side([*still, aligned, frame, pose_map], widths, height)


def _detect(
    job: Job, load: Callable[[Job], Detector], reporter: Reporter, image: Keypoints | None, video: Keypoints | None
) -> tuple[Keypoints, Keypoints]:
    """Those that are None, detected. What an interrupted run has detected is taken over."""
    kept = Leftover(job, reporter)
    if kept.video and video is None:
        reporter.say(f"continuing with {len(kept.video)} frames that were detected before ({kept.path})")
    detector = None
    if (image is None and kept.image is None) or (video is None and len(kept.video) < job.frames):
        reporter.say("loading the detector")
        detector = load(job)
    try:
        if image is None:
            image = _chosen(job, kept.image or kept.set_image(detector(np.asarray(job.reference))))
        if video is None:
            video = _detect_video(job, detector, reporter, kept)
    except BaseException:
        kept.keep()
        raise
    kept.save()  # before anything else can fail
    return image, video


def _chosen(job: Job, people: People) -> Keypoints:
    """The keypoints of the chosen person in the picture."""
    try:
        keypoints = gather_keypoints([(people, choose_person(people, job.settings.picture_person))])
    except TooFew as error:
        raise _too_few(error, "picture_person", job.settings.imgfn_refer) from None
    if pose_of(keypoints, 0) is None:  # reported before the video, which takes long
        raise no_person_in_image(job)
    return keypoints


def _detect_video(job: Job, detector: Detector | None, reporter: Reporter, kept: Leftover) -> Keypoints:
    """The person's keypoints; `detector` is None where `kept` holds all frames."""
    known = list(kept.video)
    with ExitStack() as stack:
        found: Iterable[People] = ()
        if len(known) < job.frames:
            frames = _dance_frames(job, len(known))
            found = stack.enter_context(closing(detector.find(frames, job.settings.det_every)))
        watched = watch(chain(known, kept.detect(found)), reporter, "detecting", job.frames, "frame")
        stack.enter_context(closing(watched))  # ends the bar before an error is printed
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


def _dance_frames(job: Job, skipped: int = 0) -> Iterator[np.ndarray]:
    """The `job.frames` frames of the dance that are used, without the first ones.

    Raises UserError if decoding gives fewer.
    """
    done, end = 0, job.first + job.frames
    with closing(read_frames(job.dance, count=end)) as frames:
        for frame in frames:
            if done >= job.first + skipped:
                yield frame
            done += 1
    if done < end:
        told = f"{job.dance.path} breaks off after {done} of {job.dance.frames} frames"
        remedy = f", or give --max_frame {done - job.first}" if done > job.first else ""
        raise UserError(f"{told}: repair it{remedy}")


def _too_few(error: TooFew, flag: str, path: Path) -> UserError:
    seen = "nobody else is" if error.count == 1 else f"only {error.count} people are"
    return UserError(f"--{flag} is {error.wanted}, but {seen} seen in {path}: give at most {error.count}")
