"""What --save_openpose writes: OpenPose JSON of the dance, the picture and the aligned poses."""

from collections.abc import Iterable
from pathlib import Path

from musepose.pose.job import ALIGNED, DANCE, PICTURE, Job
from musepose.pose.openpose_files import write_frames
from musepose.pose.types import Pose
from musepose.utils.files import complete_folder


def save_openpose(
    job: Job,
    image_pose: Pose,
    dance_poses: Iterable[Pose | None],  # from the dance's first frame on
    aligned: Iterable[Pose | None],  # of each frame of the aligned pose video
) -> None:
    """Write the folder, which appears when it is complete. Raises UserError where it cannot be written."""
    settings = job.settings
    with complete_folder(settings.save_openpose) as folder:
        for part, video, poses, size in (
            (DANCE, settings.vidfn, dance_poses, (job.dance.width, job.dance.height)),
            (PICTURE, settings.imgfn_refer, [image_pose], job.reference.size),
            (ALIGNED, job.aligned_path, aligned, job.reference.size),
        ):
            frames = ([] if pose is None else [pose] for pose in poses)
            write_frames(folder / part, Path(video).stem, frames, size, numbered=part != PICTURE)
