"""Aligns the poses of a dance video to the person in a reference picture, and draws them as a pose video.

    python pose_align.py --imgfn_refer ./assets/images/ref.png --vidfn ./assets/videos/dance.mp4
    python pose_align.py --imgfn_refer me.jpg --vidfn dance.mp4 --align_frame 24 --max_frame 0 --scale_from video

Detect once, align many times:

    python pose_align.py --imgfn_refer me.jpg --vidfn dance.mp4 --save_keypoints dance.npz
    python pose_align.py --imgfn_refer me.jpg --vidfn dance.mp4 --keypoints dance.npz --align_frame 24

OpenPose JSON for other tools, and from them:

    python pose_align.py --imgfn_refer me.jpg --vidfn dance.mp4 --save_openpose poses
    python pose_align.py --imgfn_refer me.jpg --vidfn dance.mp4 --keypoints poses/dance \\
        --picture_keypoints poses/picture/me_keypoints.json
"""

from collections.abc import Callable, Sequence

from musepose.cli.flags import parse_options
from musepose.pose.options import Settings


def parse(arguments: Sequence[str] | None) -> Settings:
    return parse_options(Settings, "pose_align.py", __doc__, arguments)


def main(arguments: Sequence[str] | None = None, load: Callable | None = None) -> int:
    """Run pose_align.py; `load` makes the detector from a Job. Returns the exit status."""
    settings = parse(arguments)
    from musepose.pose.job import prepare  # imported here, as --help needs no media libraries
    from musepose.pose.runner import load_detector, run_job

    run_job(prepare(settings), load or load_detector)
    return 0
