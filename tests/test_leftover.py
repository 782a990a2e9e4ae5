"""pose_align.py that ends early: what was detected stays beside the output, and the next run continues from it."""

import numpy as np
import pytest
from dancer import Detector, dance
from pose_align_folder import FRAMES, IMAGE_ASPECT, frames_of, pose_align_folder  # noqa: F401, a fixture

from musepose.media.video_writer import VideoWriter
from musepose.pose.leftover import leftover_path
from musepose.utils.errors import UserError

LEFTOVER = "assets/poses/align/img_ref_video_dance.mp4.unfinished.npz"


class Counting(Detector):
    """Finds the picture's dancer and the dance's; ends with `error` at a call."""

    def __init__(self, first: int = 0, error: BaseException | None = None, at: int = 5, image: bool = True) -> None:
        picture, (points, scores) = dance(1, aspect=IMAGE_ASPECT), dance(FRAMES, aspect=4 / 3)
        pictures = [(picture[0][0], picture[1][0])] if image else []
        super().__init__(*pictures, *list(zip(points, scores, strict=True))[first:])
        self.error, self.at = error, at

    def __call__(self, rgb):
        if self.calls == self.at and self.error is not None:
            raise self.error
        return super().__call__(rgb)


ENDS = [KeyboardInterrupt(), SystemExit(143), RuntimeError("a card fails"), UserError("the video breaks: repair it")]


def interrupt(folder, error: BaseException, **more) -> int:
    """→ how many frames were detected."""
    detector = Counting(error=error, **more)
    with pytest.raises(type(error)):
        folder.detect(detector=detector)
    assert folder.outputs() == [LEFTOVER]
    with np.load(folder.path / LEFTOVER) as arrays:
        return len(arrays["counts"]) - 1  # without the picture


@pytest.mark.parametrize("error", ENDS, ids=lambda error: type(error).__name__)
def test_the_next_run_detects_only_the_rest(folder, capsys, error):
    done = interrupt(folder, error)
    assert 0 < done < 5
    capsys.readouterr()
    detector = folder.detect(detector=Counting(first=done, image=False))
    assert detector.calls == FRAMES - done
    assert f"continuing with {done} frames" in capsys.readouterr().out
    resumed = frames_of(folder.aligned)
    assert LEFTOVER not in folder.outputs()
    folder.detect(detector=Counting())
    np.testing.assert_array_equal(resumed, frames_of(folder.aligned))


def test_a_failure_after_detection_costs_no_detection(folder, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(VideoWriter, "write", lambda *_: (_ for _ in ()).throw(UserError("the disk is full: free it")))
        with pytest.raises(UserError, match="disk"):
            folder.detect(detector=Counting())
    assert folder.outputs() == [LEFTOVER]
    folder.detect(detector=Counting(error=AssertionError("detected again"), at=0))
    assert LEFTOVER not in folder.outputs()


def another(folder, what: str) -> tuple[str, ...]:
    if what == "video":
        folder.video.write_bytes(folder.video.read_bytes() + b"\0" * 8)
    elif what == "resolution":
        return "--detect_resolution", "640"
    elif what == "interval":
        return "--det_every", "2"
    elif what == "damage":
        (folder.path / LEFTOVER).write_bytes((folder.path / LEFTOVER).read_bytes()[:-200])
    elif what == "format":
        (folder.path / LEFTOVER).write_text("something else")
    return ()


@pytest.mark.parametrize("what", ["video", "resolution", "damage", "format"])
def test_what_does_not_fit_is_detected_anew(folder, what):
    interrupt(folder, KeyboardInterrupt())
    image = what in ("resolution", "damage", "format")
    flags = another(folder, what)
    detector = folder.detect(*flags, detector=Counting(image=image))
    assert detector.calls == FRAMES + image and LEFTOVER not in folder.outputs()


def test_a_disk_that_is_full_is_a_warning_and_the_first_error_is_told(folder, monkeypatch, capsys):
    def full(path):
        raise UserError(f"cannot write {path} (No space left on device): free some space")

    monkeypatch.setattr("musepose.pose.leftover.complete_file", full)
    with pytest.raises(RuntimeError, match="a card fails"):
        folder.detect(detector=Counting(error=RuntimeError("a card fails")))
    assert "what was detected is not kept: cannot write" in capsys.readouterr().err


def test_names_of_the_greatest_length(tmp_path):
    leftover_path(tmp_path / f"{'ü' * 120}.mp4").write_bytes(b"fits")
