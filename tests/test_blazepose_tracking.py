"""BlazePose from frame to frame, without its networks: filters, who is followed, and the 133 points made of it."""

import math

import numpy as np
from blazepose_bodies import body_at
from tolerance import assert_near, near

from musepose.pose.detectors.blazepose import tracker as tracking
from musepose.pose.detectors.blazepose.body import Body, BodyFilters
from musepose.pose.detectors.blazepose.face import Face
from musepose.pose.detectors.blazepose.filters import STEP, LowPass, OneEuro
from musepose.pose.detectors.blazepose.hands import Hand
from musepose.pose.detectors.blazepose.wholebody import BODY_LANDMARKS, MESH_POINTS, to_people, whole_body
from musepose.pose.types import KEYPOINTS, to_pose

HEIGHT, WIDTH = 480, 640
PICTURE = np.zeros((HEIGHT, WIDTH, 3), np.uint8)


def test_low_pass():
    low_pass = LowPass(0.1)
    assert [float(low_pass(np.float64(value))) for value in (1, 0, 1)] == near([1, 0.9, 0.91])


def test_one_euro_is_a_low_pass_of_its_least_cutoff_for_what_rests():
    one_euro = OneEuro(least_cutoff=0.05, beta=0)
    alpha = 1 / (1 + 1 / (2 * math.pi * 0.05 * STEP))
    assert [float(one_euro(np.float64(value))) for value in (1, 0)] == near([1, 1 - alpha])


def lag(jump: float, size: float, least_cutoff: float, beta: float) -> float:
    """How far the 1 € filter stays behind a first jump, by its paper's formulas; the speed's cut-off is 1 Hz."""
    speed = jump / size / STEP / (1 + 1 / (2 * math.pi * STEP))
    return jump * (1 - 1 / (1 + 1 / (2 * math.pi * (least_cutoff + beta * speed) * STEP)))


def test_one_euro_opens_with_the_filtered_speed():
    one_euro = OneEuro(least_cutoff=0.05, beta=80)
    one_euro(np.float64(0))
    assert float(one_euro(np.float64(3), size=100)) == near(3 - lag(3, 100, 0.05, 80))


def test_one_euro_treats_near_and_far_alike():
    values = np.random.default_rng(0).normal(size=(20, 5))
    near, far = OneEuro(0.05, 80), OneEuro(0.05, 80)
    for value in values:
        assert_near(near(value * 7, size=700), far(value, size=100) * 7)


def test_numbers_do_not_touch_each_other():
    together, alone = OneEuro(0.05, 80), OneEuro(0.05, 80)
    for value in np.random.default_rng(1).normal(size=(9, 2)):
        assert together(value)[0] == alone(value[:1])[0]


def test_a_body_at_rest_stays_and_a_jump_arrives():
    filters = BodyFilters()
    for _ in range(5):
        rests = filters(body_at(100, 100, visible=1.0))
    assert_near(rests.landmarks, body_at(100, 100).landmarks)
    jumped = filters(body_at(160, 100, visible=0.0))  # 60 pixels; the person's size is 200
    assert_near(body_at(160, 100).landmarks[:, 0] - jumped.landmarks[:, 0], lag(60, 200, 0.05, 80))
    assert_near(160 - jumped.anchors[:, 0], lag(60, 200, 0.01, 10))  # the region moves on more slowly
    assert_near(jumped.visibility, 0.9)  # one frame counts little


class Stage:
    """People at places in each frame, and what stands for the detector and the landmark network."""

    def __init__(self, monkeypatch, *frames: list[float]) -> None:
        self.frames, self.now = frames, -1
        self.detected: list[int] = []  # frames in which the detector ran
        self.landmark = None
        monkeypatch.setattr(tracking, "find_body", lambda _network, _picture, region: self.look(region))
        self.tracker = tracking.Tracker(tracking.BodyFinder(self.detect, None))

    def detect(self, picture, region):
        self.detected.append(self.now)
        points = [body_at(x, 200).anchors for x in self.frames[self.now]]
        return type("Boxes", (), {"points": np.array(points).reshape(-1, 2, 2)})

    def look(self, region) -> Body | None:
        """Whoever stands nearest to the region's middle, if that is near."""
        near = min(self.frames[self.now], key=lambda x: abs(x - region.x), default=math.inf)
        return body_at(near, 200) if abs(near - region.x) < 60 else None

    def play(self) -> list[list[tuple[tracking.Track, Body]]]:
        return [self.step() for _ in self.frames]

    def step(self) -> list[tuple[tracking.Track, Body]]:
        self.now += 1
        return self.tracker(PICTURE)


def places(answer) -> list[int]:
    return [round(float(body.landmarks[:, 0].mean())) for _, body in answer]


def test_somebody_is_followed_without_the_detector(monkeypatch):
    stage = Stage(monkeypatch, *([100 + n] for n in range(10)))
    answers = stage.play()
    assert stage.detected == [0]
    assert len({id(track) for answer in answers for track, _ in answer}) == 1
    assert abs(places(answers[9])[0] - 109) <= 1  # the filter stays behind by less than a frame's pixel


def test_the_detector_runs_at_once_where_somebody_is_lost(monkeypatch):
    stage = Stage(monkeypatch, [100], [100], [400], [400])
    answers = stage.play()
    assert stage.detected == [0, 2]
    assert [places(answer) for answer in answers] == [[100], [100], [400], [400]]
    assert answers[1][0][0] is not answers[2][0][0] and answers[2][0][0] is answers[3][0][0]


def test_the_detector_runs_until_somebody_is_there(monkeypatch):
    stage = Stage(monkeypatch, [], [], [100], [100])
    assert [places(answer) for answer in stage.play()] == [[], [], [100], [100]]
    assert stage.detected == [0, 1, 2]


def test_who_leaves_does_not_keep_the_detector_running(monkeypatch):
    stage = Stage(monkeypatch, [100, 400], [100], [100], [100])
    assert [places(answer) for answer in stage.play()] == [[100, 400], [100], [100], [100]]
    assert stage.detected == [0, 1]


def test_who_joins_is_found_when_the_detector_looks_again(monkeypatch):
    stage = Stage(monkeypatch, [100], *[[100, 400]] * tracking.EVERY)
    answers = stage.play()
    assert stage.detected == [0, tracking.EVERY]
    assert places(answers[-2]) == [100] and places(answers[-1]) == [100, 400]


def test_two_who_became_one_are_one(monkeypatch):
    stage = Stage(monkeypatch, [100, 160], [130, 130], [130])
    answers = stage.play()
    assert len(answers[0]) == 2 and len(answers[1]) == len(answers[2]) == 1
    assert answers[2][0][0] is answers[0][0][0]


def test_at_most_six_are_followed(monkeypatch):
    stage = Stage(monkeypatch, [100 * n for n in range(8)])
    assert places(stage.play()[0]) == [0, 100, 200, 300, 400, 500]


def hand_of(value: float, presence: float) -> Hand:
    return Hand(np.stack([np.full(21, value), np.arange(21.0), np.arange(21.0)], axis=-1), presence)


def test_the_133_points():
    body = body_at(320, 240, visible=0.8)
    body.landmarks[:] = np.arange(33)[:, None] * [10, 1, 2]
    body.visibility[:] = np.arange(33) / 33
    face = Face(np.arange(468)[:, None] * np.ones(3), 0.7)
    points, scores = whole_body(body, (hand_of(1, 0.6), hand_of(2, 0.9)), face)
    assert [round(x / 10) for x in points[:23, 0]] == list(BODY_LANDMARKS)
    assert_near(scores[:23] * 33, BODY_LANDMARKS)
    assert points[23:91, 0].tolist() == list(MESH_POINTS) and (scores[23:91] == 0.7).all()
    assert (points[91:112, 0] == 1).all() and (points[112:, 0] == 2).all()
    assert (scores[91:112] == 0.6).all() and (scores[112:] == 0.9).all()
    # Depths go on from the wrists' and the nose's.
    assert points[91, 2] == body.landmarks[15, 2] and points[112, 2] == body.landmarks[16, 2]
    assert points[23 + 30, 2] == MESH_POINTS[30] - 4 + body.landmarks[0, 2]


def test_left_and_right_are_the_persons_own():
    body = body_at(320, 240)
    body.landmarks[15, :2], body.landmarks[16, :2] = (400, 240), (200, 240)  # BlazePose's left wrist, right wrist
    people = to_people([(body, (hand_of(400, 0.9), hand_of(200, 0.9)), None)], (WIDTH, HEIGHT))
    pose = to_pose(people.keypoints[0], people.scores[0])
    assert pose.body[7, 0] * WIDTH == near(400) and pose.body[4, 0] * WIDTH == near(200)
    assert pose.hands[:, 0, 0] * WIDTH == near([400, 200])


def test_what_was_not_found_has_no_score():
    points, scores = whole_body(body_at(320, 240), (None, None), None)
    assert not points[23:].any() and not scores[23:].any() and (scores[:23] == 1).all()


def test_people_of_a_picture():
    found = [(body_at(100, 200, 50, presence=0.7), (None, None), None), (body_at(400, 200), (None, None), None)]
    people = to_people(found, (WIDTH, HEIGHT))
    assert people.keypoints.shape == (2, KEYPOINTS, 2) and people.size == (WIDTH, HEIGHT)
    assert people.box_scores.tolist() == [0.7, 0.9]
    assert_near(people.boxes[0], [85, 150, 115, 250])
    assert_near(people.keypoints[0, 5] * people.size, found[0][0].landmarks[11, :2])
    assert_near(people.depth[:, 5], 11 / WIDTH)
    assert_near(people.metres[1, 5], found[1][0].metres[11])


def test_boxes_leave_out_what_is_not_seen():
    body = body_at(100, 200)
    body.visibility[30:] = 0.1  # the lowest row
    people = to_people([(body, (None, None), None)], (WIDTH, HEIGHT))
    assert_near(people.boxes, [[70, 100, 130, 280]])


def test_nobody_in_a_picture():
    people = to_people([], (WIDTH, HEIGHT))
    assert people.boxes.shape == (0, 4) and people.keypoints.shape == (0, KEYPOINTS, 2)
    assert people.scores.shape == people.depth.shape == (0, KEYPOINTS) and people.metres.shape == (0, 23, 3)
