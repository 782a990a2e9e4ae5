"""`find_people`: batches do not change results, and people are tracked between YOLOX's frames until tracking fails."""

import threading
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from dancer import dancer
from media import frame_number, numbered_frame
from tolerance import POINTS

from musepose.media.video_reader import read_frames
from musepose.pose.box_tracking import find_people
from musepose.pose.person_tracking import follow
from musepose.pose.runner import gather_keypoints
from musepose.pose.types import People

ROOT = Path(__file__).parents[1]
SIZE = np.array([400, 200])  # width, height
BOX_MARGIN = np.array([-6, -12, 4, 2])  # of the fake YOLOX's boxes around the keypoints, pixels


class World:
    """People at given positions in each frame, and a detector of them that records its calls."""

    def __init__(self, *frames: list[float], frames_at_once: int = 3, doubtful: tuple[int, ...] = ()) -> None:
        self.frames = frames  # each with its people's places, x in pixels
        self.frames_at_once = frames_at_once
        self.doubtful = doubtful  # frames in which the keypoint network is sure of little
        self.looked: list[int] = []  # numbers of the frames that YOLOX saw
        self.boxes: dict[int, np.ndarray] = {}  # that the keypoint network was given in the others

    def find(self, every: int) -> list[People]:
        return list(find_people(self, self.pictures(), every))

    def pictures(self):
        return (numbered_frame(number, *SIZE) for number in range(len(self.frames)))

    def prepare(self, rgb: np.ndarray) -> int:
        return frame_number(rgb)

    def detect(self, numbers: list[int]) -> list[People]:
        self.looked += numbers
        return [self.people(number, [person(x) for x in self.frames[number]]) for number in numbers]

    def detect_inside(self, numbers, boxes, box_scores) -> list[People]:
        self.boxes |= dict(zip(numbers, boxes, strict=True))
        return [
            self.people(number, [self.inside(number, box) for box in some], some)
            for number, some in zip(numbers, boxes, strict=True)
        ]

    def inside(self, number: int, box: np.ndarray) -> np.ndarray | None:
        """The keypoints of the person nearest to the centre of a box."""
        centre = (box[0] + box[2]) / 2
        near = [x for x in self.frames[number] if abs(x - centre) < 20]
        return person(min(near, key=lambda x: abs(x - centre))) if near else None

    def people(self, number: int, points: list[np.ndarray | None], boxes: np.ndarray | None = None) -> People:
        scores = np.array([np.full(133, 0.1 if p is None else 0.9) for p in points] or [np.full(133, 0.1)])
        if number in self.doubtful:
            scores[:, 4:] = 0.1  # no more than half a face
        found = np.array([np.full((133, 2), 100.0) if p is None else p for p in points] or [np.zeros((133, 2))])
        if boxes is None:
            boxes = np.concatenate([found.min(axis=1), found.max(axis=1)], axis=1) + BOX_MARGIN
        sure = np.linspace(0.9, 0.8, len(found))
        return People(boxes, sure, found / SIZE, scores, fallback=not points, size=tuple(SIZE))


def person(x: float) -> np.ndarray:
    """Keypoints (133, 2) in pixels of a person 120 pixels high who stands at x."""
    return dancer(height=0.6, aspect=2) * SIZE + (x - SIZE[0] / 2, 0)


def places(people: People) -> list[float]:
    return sorted((people.keypoints[:, 0, 0] * SIZE[0]).round(3).tolist())


def helpers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "musepose-prefetch"]


def walk(frames: int, start: float = 100.0) -> list[list[float]]:
    return [[start + 2.0 * n] for n in range(frames)]


@pytest.mark.parametrize("together", [1, 3, 4, 100])
@pytest.mark.parametrize("every", [1, 2, 3, 8])
def test_every_frame_comes_once_and_in_order_whatever_goes_together(every, together):
    world = World(*walk(19), frames_at_once=together)
    assert [places(people) for people in world.find(every)] == walk(19)
    assert sorted(world.looked) == list(range(0, 19, every))


def test_no_frames_no_people():
    assert World().find(1) == []


def test_boxes_between_detections_lie_around_the_keypoints_as_yolox_boxes_do():
    world = World(*walk(6))
    world.find(3)
    for number in (1, 2, 4, 5):
        before = person(world.frames[number - 1][0])
        expected = np.concatenate([before.min(axis=0), before.max(axis=0)]) + BOX_MARGIN
        np.testing.assert_allclose(world.boxes[number], [expected], rtol=0, atol=POINTS)


def test_boxes_end_where_the_picture_ends():
    world = World([20.0], [18.0])
    world.find(2)
    assert world.boxes[1][0, 0] == 0


def test_a_lost_person_is_searched_at_once():
    leap = [[100.0], [102.0], [300.0], [302.0], [304.0]]
    world = World(*leap)
    assert [places(people) for people in world.find(5)] == leap
    assert world.looked == [0, 2]


def test_keypoints_that_are_not_trusted_are_not_followed():
    world = World(*walk(6), doubtful=(2,))
    world.find(6)
    assert world.looked == [0, 2, 3]  # where it was doubtful, and the next, which has nothing to go by
    assert 3 not in world.boxes


def test_without_people_yolox_runs_on_every_frame():
    world = World([], [], [], *walk(3), [], [])
    found = world.find(10)
    assert world.looked == [0, 1, 2, 3, 6, 7]
    assert [people.fallback for people in found] == [True] * 3 + [False] * 3 + [True] * 2


def test_several_people_are_followed():
    world = World(*([80.0 + n, 200.0, 320.0 - n] for n in range(8)))
    assert [places(people) for people in world.find(8)] == list(world.frames)
    assert world.looked == [0]
    assert all(np.array_equal(people.box_scores, np.linspace(0.9, 0.8, 3)) for people in world.find(8))


def test_two_people_who_merge_are_detected_again():
    world = World([90.0, 110.0], [94.0, 106.0], [100.0], [100.0])
    assert [len(people.boxes) for people in world.find(4)] == [2, 2, 1, 1]
    assert world.looked == [0, 2]


def test_second_detections_of_one_person_are_not_followed():
    world = World([100.0, 100.5], [102.0], [104.0])
    assert [len(people.boxes) for people in world.find(3)] == [2, 1, 1]
    assert world.looked == [0]


def test_a_newcomer_is_found_when_yolox_looks_next():
    world = World(*([100.0] if n < 2 else [100.0, 300.0] for n in range(8)))
    assert [len(people.boxes) for people in world.find(4)] == [1, 1, 1, 1, 2, 2, 2, 2]


def test_an_error_while_reading_frames_is_raised_and_leaves_no_thread():
    world = World(*walk(9))

    def frames():
        yield from islice(world.pictures(), 7)
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(find_people(world, frames(), 1))
    assert helpers() == []


def test_closing_early_leaves_no_thread():
    found = find_people(World(*walk(50)), World(*walk(50)).pictures(), 2)
    next(found)
    assert helpers() == ["musepose-prefetch"]
    found.close()
    assert helpers() == []


def test_frames_are_prepared_in_another_thread_and_only_a_few_ahead():
    prepared, threads = [], set()

    class Watched(World):
        def prepare(self, rgb):
            prepared.append(len(prepared))
            threads.add(threading.current_thread())
            return super().prepare(rgb)

    world = Watched(*walk(40), frames_at_once=4)
    for taken, _ in enumerate(find_people(world, world.pictures(), 1)):
        assert len(prepared) <= taken + 4 + 4 + 1  # one batch in use, one queued, one item in the thread
    assert threading.current_thread() not in threads


def test_every_must_be_at_least_1():
    with pytest.raises(ValueError, match="every 0"):
        World([100.0]).find(0)


def test_followed_puppets_are_found_where_yolox_finds_them():
    """On a real video with the puppets' own networks: within 1 % of the torso on average."""
    from musepose.pose.detectors.dwpose.detector import PoseDetector

    puppets = ROOT / "pretrained_weights/puppet/dwpose"
    detector = PoseDetector(
        ROOT / "configs/puppet/yolox.py",
        puppets / "yolox.pth",
        ROOT / "configs/puppet/dwpose.py",
        puppets / "dwpose.pth",
    )
    frames = list(read_frames(ROOT / "assets/videos/dance.mp4", step=2, count=24))  # 15 frames a second
    each, followed = (gather_keypoints(follow(find_people(detector, frames, every))) for every in (1, 8))
    torso = np.linalg.norm(each.points[:, [5, 6]].mean(1) - each.points[:, [11, 12]].mean(1), axis=-1)
    seen = (each.scores > 0.3) & (followed.scores > 0.3)
    off = np.linalg.norm(each.points - followed.points, axis=-1) / torso[:, None]
    assert seen.sum() > 0.99 * (each.scores > 0.3).sum()
    assert off[seen].mean() < 0.01  # torso lengths: a tenth of what a detector is off by
