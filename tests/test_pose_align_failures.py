"""pose_align.py where a run fails halfway or is interrupted: one error, no half-written file, no thread left."""

import errno
import threading

import pytest
from dancer import Detector, dance
from pose_align_folder import FRAMES, pose_align_folder  # noqa: F401, a fixture

from musepose.media.video_reader import probe, read_frames
from musepose.media.video_writer import VideoWriter
from musepose.utils.errors import UserError

LEFTOVER = "assets/poses/align/img_ref_video_dance.mp4.unfinished.npz"


def test_both_videos_appear_or_none(folder, monkeypatch):
    close = VideoWriter._close_container

    def full(self, *exception):
        close(self, *exception)
        if self.path.resolve() == folder.aligned.resolve():
            raise OSError(errno.ENOSPC, "No space left")

    monkeypatch.setattr(VideoWriter, "_close_container", full)
    with pytest.raises(UserError, match="free some space"):
        folder.run("--keypoints", folder.save())
    assert folder.outputs() == []


def test_no_person_in_the_picture_is_reported_before_the_video_is_searched(folder):
    points, scores = dance(1)
    detector = Detector((points[0], scores[0] * 0))
    with pytest.raises(UserError, match="no person was found in .*ref.png"):
        folder.detect(detector=detector)
    assert detector.calls == 1


def test_detected_keypoints_are_kept_if_the_alignment_fails(folder):
    with pytest.raises(UserError, match="in frame 0 .*--align_frame 1"):
        folder.detect("--save_keypoints", folder.keypoints, missing=(0,))
    assert folder.run("--keypoints", folder.keypoints, "--align_frame", 1) == 0
    assert probe(folder.aligned).frames == FRAMES - 1


def test_a_run_that_breaks_leaves_no_file(folder, monkeypatch):
    folder.save()
    monkeypatch.setattr("musepose.pose.runner.side_by_side", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        folder.run("--keypoints", folder.keypoints)
    assert folder.outputs() == []


def broken_off(path, count):
    yield from read_frames(path, count=5)


def broken(path, count):
    yield from read_frames(path, count=5)
    raise UserError("dance.mp4 is damaged: give a whole video file")


@pytest.mark.parametrize("known", [False, True], ids=["detecting", "drawing"])
@pytest.mark.parametrize("frames, message", [(broken_off, "breaks off after 5 of 8 frames"), (broken, "is damaged")])
def test_a_video_that_breaks_in_the_middle_is_one_error_and_leaves_nothing(folder, monkeypatch, known, frames, message):
    if known:
        folder.save()
    monkeypatch.setattr("musepose.pose.runner.read_frames", frames)
    with pytest.raises(UserError, match=message) as caught:
        folder.run("--keypoints", folder.keypoints) if known else folder.detect()
    assert folder.outputs() == ([] if known else [LEFTOVER]) and left_running(caught) == []


def left_running(caught: pytest.ExceptionInfo) -> list[str]:
    """The prefetch threads that still run while the exception keeps the generators alive."""
    assert caught.tb is not None
    return [thread.name for thread in threading.enumerate() if thread.name == "musepose-prefetch"]


def test_ctrl_c_while_detecting_leaves_no_thread_and_no_file(folder):
    class Interrupted(Detector):
        def __call__(self, rgb):
            if self.calls == 5:
                raise KeyboardInterrupt
            return super().__call__(rgb)

    points, scores = dance(1 + FRAMES)
    with pytest.raises(KeyboardInterrupt) as caught:
        folder.detect("--save_keypoints", folder.keypoints, detector=Interrupted(*zip(points, scores, strict=True)))
    assert folder.outputs() == [LEFTOVER] and left_running(caught) == [] and not folder.keypoints.exists()


def test_ctrl_c_while_writing_leaves_no_thread_and_no_file(folder, monkeypatch):
    write = VideoWriter.write

    def interrupted(self, frame):
        if self.frames == 3:
            raise KeyboardInterrupt
        write(self, frame)

    folder.save()
    monkeypatch.setattr(VideoWriter, "write", interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        folder.run("--keypoints", folder.keypoints)
    assert folder.outputs() == [] and left_running(caught) == []
