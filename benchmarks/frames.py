"""Getting the pose video ready: reading, resizing to the sampling size, keeping on disk."""

from itertools import islice

from benchmarks.measure import ROOT, Table, against_first, medians
from musepose.media.video_reader import read_frames
from musepose.pipelines.pose_frames import PoseFrames


def pose_frames() -> Table:
    """96 frames of 576 x 576 to 768 x 768: one after the other, and on as many threads as there are processors."""
    import musepose.pipelines.pose_frames as module

    parallel = module.each

    def read() -> None:
        PoseFrames(islice(read_frames(ROOT / "assets" / "videos" / "dance.mp4"), 96), 768, 768)

    def in_turns() -> None:
        module.each = map
        try:
            read()
        finally:
            module.each = parallel

    rows = against_first(medians({"one after the other": in_turns, "threads": read}, 5))
    return Table("Pose frames made ready, 96 of them, 768 x 768", ("way", "seconds", "first / this"), rows)
