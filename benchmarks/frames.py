"""Preparing the pose video: reading, resizing to the sampling size, caching on disk."""

from itertools import islice

from benchmarks.measure import ROOT, Table, median_times, with_speedups
from musepose.media.video_reader import read_frames
from musepose.pipelines.pose_frames import PoseFrames


def pose_frames() -> Table:
    """96 frames of 576 x 576 to 768 x 768: in one thread, and with one thread per processor."""
    import musepose.pipelines.pose_frames as module

    parallel = module.each

    def read() -> None:
        PoseFrames(islice(read_frames(ROOT / "assets" / "videos" / "dance.mp4"), 96), 768, 768)

    def one_thread() -> None:
        module.each = map
        try:
            read()
        finally:
            module.each = parallel

    rows = with_speedups(median_times({"one thread": one_thread, "threads": read}, 5))
    return Table("Preparing 96 pose frames, 768 x 768", ("variant", "seconds", "first / this"), rows)
