"""BlazePose with its true networks on drawn figures: pictures, videos, several people."""

import threading
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from blazepose_weights import WEIGHTS, needs_blazepose

from musepose.media.image import read_image
from musepose.media.video_reader import read_frames
from musepose.pose.detectors.blazepose.detector import BlazePoseDetector
from musepose.pose.keypoint_file import load_keypoints
from musepose.pose.person_tracking import choose_person, follow
from musepose.pose.types import KEYPOINTS, People
from puppet.pose_pictures import make_shots

ASSETS = Path(__file__).parents[1] / "assets"
LIMBS = slice(5, 17)  # shoulders to ankles
FRAMES = 12

pytestmark = needs_blazepose


@pytest.fixture(scope="module")
def detector() -> BlazePoseDetector:
    return BlazePoseDetector(WEIGHTS)


@pytest.fixture(scope="module")
def truth():
    return load_keypoints(ASSETS / "keypoints/img_ref_video_dance.npz")


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return np.asarray(read_image(ASSETS / "images/ref.png").convert("RGB"))


@pytest.fixture(scope="module")
def found(detector) -> list[People]:
    return list(detector.find(read_frames(ASSETS / "videos/dance.mp4", count=FRAMES)))


def distances(points: np.ndarray, true: np.ndarray) -> np.ndarray:
    """How far the limbs' joints are off, in true torso lengths. Square pictures."""
    torso = np.linalg.norm(true[[5, 6]].mean(axis=0) - true[[11, 12]].mean(axis=0))
    return np.linalg.norm(points[LIMBS] - true[LIMBS], axis=1) / torso


def test_a_drawn_figure_is_found_in_a_picture(detector, picture, truth):
    people = detector(picture)
    assert people.keypoints.shape == (1, KEYPOINTS, 2) and people.size == picture.shape[1::-1]
    # Where a drawn figure's joints are is a convention; the networks know only those of people.
    assert np.median(distances(people.keypoints[0], truth.image_keypoints.points[0])) < 0.15
    assert people.scores[0, LIMBS].min() > 0.5 and people.box_scores[0] > 0.5
    assert people.scores[0, [30, 91, 112]].min() > 0.5  # face, hands
    box = people.boxes[0] / np.tile(people.size, 2)
    limbs = people.keypoints[0, LIMBS]
    assert (limbs >= box[:2] - 1e-9).all() and (limbs <= box[2:] + 1e-9).all()


def test_the_same_picture_gives_the_same(detector, picture):
    first, second = detector(picture), detector(picture)
    assert (first.keypoints == second.keypoints).all() and (first.scores == second.scores).all()


def test_a_picture_of_nothing_shows_nobody(detector):
    people = detector(np.full((120, 90, 3), 128, np.uint8))
    assert len(people.boxes) == 0 and choose_person(people) is None


@pytest.mark.parametrize("size", [(1, 1), (3, 300), (300, 3)])
def test_pictures_of_any_shape(detector, size):
    assert len(detector(np.full((*size, 3), 200, np.uint8)).boxes) == 0


def test_metres_are_those_of_a_person(detector, picture):
    people = detector(picture)
    metres = people.metres[0]
    assert metres.shape == (23, 3) and people.depth.shape == (1, KEYPOINTS)
    assert np.abs(metres[[11, 12]].mean(axis=0)).max() < 0.05  # the origin is between the hips
    shoulders = metres[[5, 6]].mean(axis=0)
    assert 0.3 < -shoulders[1] < 0.7  # y points down
    assert metres[5, 0] > 0 > metres[6, 0]  # who faces us has his left at our right


def test_a_dancer_is_followed(found, truth):
    assert len(found) == FRAMES
    off = [
        distances(people.keypoints[person], truth.video_keypoints.points[number])
        for number, (people, person) in enumerate(follow(found))
        if person is not None
    ]
    assert len(off) == FRAMES and np.median(off) < 0.15


def test_all_of_a_video_is_found_as_its_beginning(detector, found):
    again = detector.find(read_frames(ASSETS / "videos/dance.mp4"))
    for first, second in zip(found[:4], islice(again, 4), strict=True):
        assert (first.keypoints == second.keypoints).all()
    again.close()


def test_no_threads_are_left_behind(detector):
    frames = detector.find(read_frames(ASSETS / "videos/dance.mp4"))
    next(frames)
    assert any(thread.name == "musepose-prefetch" for thread in threading.enumerate())
    frames.close()
    assert not any(thread.name == "musepose-prefetch" for thread in threading.enumerate())


def test_what_the_frames_raise_is_raised(detector, picture):
    def frames():
        yield picture
        raise OSError("the disk is gone")

    found = detector.find(frames())
    assert len(next(found).boxes) == 1
    with pytest.raises(OSError, match="the disk is gone"):
        next(found)


def test_two_people(detector):
    shot = next(s for s in make_shots(500_003, 512, people=2) if s.shown.min() > 0.9)
    people = detector(shot.image)
    true = shot.keypoints[:, LIMBS].mean(axis=1)
    seen = people.keypoints[:, LIMBS].mean(axis=1) * people.size
    nearest = np.linalg.norm(true[:, None] - seen[None], axis=-1)
    assert len(people.boxes) == 2
    assert sorted(nearest.argmin(axis=1)) == [0, 1] and nearest.min(axis=1).max() < 0.1 * shot.image.shape[0]
