"""Preparing the pose video: reading, resizing to the sampling size, caching on disk."""

from itertools import islice

from benchmarks.measure import ROOT, Table, median_times, with_speedups
from musepose.media.video_reader import read_frames
from musepose.pipelines.pose_frames import PoseFrames
from musepose.pose.draw import draw_video_frame
from musepose.pose.keypoint_file import load_keypoints
from musepose.pose.types import to_pose

KEYPOINTS = ROOT / "assets" / "keypoints" / "img_ref_video_dance.npz"
SIZE = (576, 576)  # of the dance


def pose_frames() -> Table:
    """96 frames of 576 x 576 to 768 x 768: in one thread, and with one thread per processor."""
    import musepose.pipelines.pose_frames as module

    parallel = module.parallel_map

    def read() -> None:
        PoseFrames(islice(read_frames(ROOT / "assets" / "videos" / "dance.mp4"), 96), 768, 768)

    def one_thread() -> None:
        module.parallel_map = map
        try:
            read()
        finally:
            module.parallel_map = parallel

    rows = with_speedups(median_times({"one thread": one_thread, "threads": read}, 5))
    return Table("Preparing 96 pose frames, 768 x 768", ("variant", "seconds", "first / this"), rows)


def pose_windows() -> Table:
    """What plan `low` pays in each step, as it keeps no pose features: a window's 48 pose frames read back."""
    found = load_keypoints(KEYPOINTS).video_keypoints
    drawn = [draw_video_frame(to_pose(found.points[i], found.scores[i]), SIZE, SIZE) for i in range(48)]
    rows = []
    for side in (512, 768):
        frames = PoseFrames(drawn, side, side)
        times = median_times({"": lambda frames=frames: frames.read(range(48))}, 9)
        rows.append((f"{side} x {side}", times[""], frames.bytes_on_disk / 48 / 1000, 3 * side * side / 1000))
    return Table("48 pose frames read back", ("size", "seconds", "kB on disk, each", "kB raw, each"), rows)
