"""A job's keypoints to aligned poses: which rule, which frame of the dance, where the video starts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np

from musepose.pose.advice import choose_align_frame, odd_limbs, what_leaves, without_person
from musepose.pose.align import Alignment, fit_alignment, segment_lengths, typical_lengths
from musepose.pose.face import carry_face
from musepose.pose.job import Job
from musepose.pose.keypoint_file import KeypointFile, Keypoints
from musepose.pose.measure import body_points
from musepose.pose.options import AUTO
from musepose.pose.robust_align import RobustAlignment, fit_robust_alignment
from musepose.pose.smooth import smooth_keypoints
from musepose.pose.types import OPENPOSE_FROM_COCO, Pose, to_pose
from musepose.utils.errors import UserError

SHOULDERS = [5, 6]  # COCO's


class Poses(Sequence):
    """The followed person's pose in each frame of a video, computed on access; None where the person was not found."""

    def __init__(self, keypoints: Keypoints, frames: int) -> None:
        self._keypoints, self._frames = keypoints, frames

    def __len__(self) -> int:
        return self._frames

    def __getitem__(self, frame: int) -> Pose | None:
        if not 0 <= frame < self._frames:
            raise IndexError(frame)
        return pose_of(self._keypoints, frame)


@dataclass(frozen=True)
class Fitted:
    """A dance fitted to a picture."""

    alignment: Alignment | RobustAlignment
    picture: Pose
    poses: Poses  # of the dance
    align_frame: int
    start: int  # the frame with which the pose video starts
    why: str = ""  # why this align frame, if it was chosen here

    def aligned(self, frame: int) -> Pose | None:
        """The pose of a frame of the dance as it lies in the picture, with its face."""
        pose = self.poses[frame]
        if pose is None:
            return None
        aligned = self.alignment.apply(pose)
        return carry_face(pose, aligned, self.alignment.frame_aspect, self.alignment.image_aspect)

    def shown(self) -> list[Pose | None]:
        """The aligned pose of each frame of the dance; None where the pose video does not show it, or nobody."""
        return [None if frame < self.start else self.aligned(frame) for frame in range(len(self.poses))]

    def all_aligned(self) -> Iterator[Pose | None]:
        """Those of the pose video."""
        return (self.aligned(frame) for frame in range(self.start, len(self.poses)))


def pose_of(keypoints: Keypoints, row: int) -> Pose | None:
    """The pose in one picture; None if no body joint is visible, which means that no person was found."""
    pose = to_pose(keypoints.points[row], keypoints.scores[row])
    return pose if pose.body_visible.any() else None


def fit_job(job: Job, found: KeypointFile) -> Fitted:
    """Fit the dance to the picture as the settings say.

    Raises UserError where the picture, the dance, or the align frame that the rule needs shows nobody, or nothing can
    be compared.
    """
    settings, keypoints = job.settings, _used(job, found)
    if job.smooth:
        keypoints = smooth_keypoints(keypoints, job.dance.width / job.dance.height, float(job.dance.rate))
    poses = Poses(keypoints, job.frames)
    aspects = job.reference.width / job.reference.height, job.dance.width / job.dance.height
    picture = pose_of(found.image_keypoints, 0)
    if picture is None:
        raise no_person_in_image(job)
    if all(pose is None for pose in poses):
        raise UserError(f"no person was found in {job.dance.path}: give a video that shows one person clearly")
    frame, why = _align_frame(job, picture, poses, aspects)
    robust = settings.align == "robust"
    start = frame if settings.start_at_align_frame or not robust else 0
    if robust:
        world = _joints_in_space(found.image_keypoints)
        alignment = fit_robust_alignment(picture, poses, *aspects, world, job.limb_scale)
        return Fitted(alignment, picture, poses, frame, start, why)
    first = poses[frame]
    if first is None:
        raise _no_person_in_frame(job, frame, poses)
    lengths = None
    if settings.scale_from == "video":
        lengths = typical_lengths(segment_lengths(pose, aspects[1]) for pose in poses if pose is not None)
    alignment = fit_alignment(picture, first, *aspects, lengths, job.limb_scale)
    return Fitted(alignment, picture, poses, frame, start, why)


def _used(job: Job, found: KeypointFile) -> Keypoints:
    """Those of the frames that are used, which may be fewer than a keypoint file holds."""
    start = job.first - found.video_first
    arrays = {field.name: getattr(found.video_keypoints, field.name) for field in fields(Keypoints)}
    return Keypoints(**{k: None if a is None else a[start : start + job.frames] for k, a in arrays.items()})


def problems(job: Job, fitted: Fitted) -> list[str]:
    """Lines on what looks wrong in the alignment, and on what is missing in the video."""
    aligned = list(fitted.all_aligned())
    there = [pose for pose in aligned if pose is not None]
    aspect, picture = fitted.alignment.image_aspect, fitted.picture
    shown = picture.body_visible & ((picture.body >= 0) & (picture.body <= 1)).all(axis=1)
    return [
        *odd_limbs(fitted.alignment.scales, job.limb_scale),
        *what_leaves(body_points(there, aspect), aspect, len(aligned), shown),
        *without_person([pose is None for pose in aligned], fitted.start),
    ]


def _align_frame(job: Job, picture: Pose, poses: Poses, aspects: tuple[float, float]) -> tuple[int, str]:
    """The frame that is given, or the one most like the picture and why."""
    if job.settings.align_frame != AUTO:
        return job.settings.align_frame, ""
    missing = np.full((18, 2), np.nan)
    dance = [missing if pose is None else body_points([pose], aspects[1])[0] for pose in poses]
    return choose_align_frame(body_points([picture], aspects[0])[0], np.array(dance))


def _joints_in_space(keypoints: Keypoints) -> np.ndarray | None:
    """The body's joints (18, 3) in metres; None where the detector does not know them."""
    if keypoints.metres is None:
        return None
    joints = keypoints.metres[0][OPENPOSE_FROM_COCO].astype(np.float64)
    joints[1] = keypoints.metres[0][SHOULDERS].mean(axis=0)
    return joints


def no_person_in_image(job: Job) -> UserError:
    return UserError(f"no person was found in {job.settings.imgfn_refer}: give a picture that shows one person clearly")


def _no_person_in_frame(job: Job, frame: int, poses: Poses) -> UserError:
    other = next(n for n in (*range(frame, len(poses)), *range(frame)) if poses[n] is not None)
    return UserError(
        f"the dancer was not found in frame {frame} of {job.dance.path}, the align frame: "
        f"choose another one, for instance --align_frame {other}"
    )
