"""Selection of people by box and keypoints, and tracking of one person through a video."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tolerance import rounding

from musepose.pose.detectors.dwpose.nms import select_people
from musepose.pose.person_tracking import choose_person, follow
from musepose.pose.types import People, to_pose
from musepose.utils.errors import UserError

GOLDEN = Path(__file__).parent / "golden"
SIZE = (1000, 500)  # of the synthetic video: not square, so that mixed-up axes show

# A standing person around (0, 0), 2 high: x, y of the 17 COCO points.
STANDING = np.array(
    [(0, -0.9), (0.03, -0.93), (-0.03, -0.93), (0.06, -0.9), (-0.06, -0.9), (0.2, -0.65), (-0.2, -0.65), (0.3, -0.3)]
    + [(-0.3, -0.3), (0.3, 0), (-0.3, 0), (0.13, 0), (-0.13, 0), (0.15, 0.5), (-0.15, 0.5), (0.15, 1), (-0.15, 1)]
)

EXACT = rounding(3, dtype=torch.float64)  # divided by a side; the neck is a mean of two


def golden(case):
    return json.loads((GOLDEN / case / "case.json").read_text())


@pytest.mark.parametrize("case", ["dwpose_people", "dwpose_nobody"])
def test_select_people_golden(case):
    data = golden(case)
    found = data["detections"]
    boxes = np.array(found["bboxes"]).reshape(-1, 4)
    chosen = select_people(boxes, np.array(found["scores"]), np.array(found["labels"]))
    expected = np.array(data["selected_bboxes"] or []).reshape(-1, 4)
    np.testing.assert_array_equal(boxes[chosen], expected)


def test_select_people_leaves_out_others_the_doubtful_and_doubles():
    box = [0, 0, 100, 200]
    boxes = np.array([box, box, box, [300, 0, 400, 200], [2, 0, 102, 200], [0, 0, np.inf, 200]], dtype=np.float32)
    scores = np.array([0.9, 0.99, 0.5, 0.6, 0.95, 1.0])
    labels = np.array([0, 7, 0, 0, 0, 0])
    assert select_people(boxes, scores, labels).tolist() == [4, 3]


@pytest.mark.parametrize("case", ["dwpose_people", "dwpose_nobody"])
def test_to_pose_golden(case):
    data = golden(case)
    height, width = data["detector_input_shape"][:2]
    keypoints, scores = np.array(data["keypoints"]) / (width, height), np.array(data["keypoint_scores"])
    count = len(keypoints)
    expected = {name: np.array(value) for name, value in data["pose"].items()}
    body = expected["candidate"].reshape(count, 18, 2)
    hands = expected["hands"].reshape(2, count, 21, 2)  # all left hands, then all right hands
    for i in range(count):
        pose = to_pose(keypoints[i], scores[i])
        np.testing.assert_array_equal(pose.body_visible, expected["subset"][i] >= 0)
        np.testing.assert_allclose(pose.body, body[i], rtol=0, atol=EXACT)
        for points, visible, want in (
            (pose.hands, pose.hands_visible, hands[:, i]),
            (pose.face, pose.face_visible, expected["faces"][i]),
        ):
            np.testing.assert_allclose(np.where(visible[..., None], points, -1), want, rtol=0, atol=EXACT)


def test_neck_is_hidden_with_one_shoulder():
    scores = np.ones(133)
    scores[5] = 0.3  # not above 0.3
    pose = to_pose(np.zeros((133, 2)), scores)
    assert pose.body_visible.tolist() == [i not in (1, 5) for i in range(18)]


def test_to_pose_does_not_write_into_its_input():
    keypoints = np.arange(266.0).reshape(133, 2)
    before = keypoints.copy()
    to_pose(keypoints, np.ones(133))
    np.testing.assert_array_equal(keypoints, before)


def crowd(*bodies):
    """People with the given bodies: (x, y, height) in pixels, optionally score and swing of the limbs."""
    boxes, keypoints, scores = [], [], []
    for x, y, height, *more in bodies:
        score, swing = (more + [0.9, 0.0][len(more) :])[:2]
        points = np.zeros((133, 2))
        points[:17] = STANDING * height / 2 + (x, y)
        points[[7, 9, 8, 10, 13, 15, 14, 16], 0] += swing * height * 0.2
        boxes.append([x - height / 5, y - height / 2, x + height / 5, y + height / 2])
        keypoints.append(points / SIZE)
        scores.append(np.full(133, score))
    n = len(bodies)
    return People(
        np.array(boxes).reshape(n, 4),
        np.ones(n),
        np.array(keypoints).reshape(n, 133, 2),
        np.array(scores).reshape(n, 133),
        size=SIZE,
    )


def test_choose_person_takes_the_largest_of_equals():
    assert choose_person(crowd((200, 250, 200), (500, 250, 300), (800, 250, 250))) == 1


def test_choose_person_prefers_a_well_seen_body_to_a_slightly_larger_one():
    assert choose_person(crowd((200, 250, 320, 0.35), (600, 250, 300, 0.9))) == 1


def test_choose_person_counts_only_what_is_inside_the_picture():
    assert choose_person(crowd((-60, 250, 400), (600, 250, 300))) == 1


@pytest.mark.parametrize("people", [crowd(), crowd((200, 250, 300, 0.3))])
def test_choose_person_without_people(people):
    assert choose_person(people) is None


def followed(frames):
    return [person for _, person in follow(frames)]


def crossing(frames, hide=lambda t: False, order=lambda t: 1):
    """A (the taller) walks to the right, B to the left; `hide` leaves A out, `order` -1 lists B first."""
    for t in range(frames):
        a = (200 + 600 * t / (frames - 1), 250, 320, 0.9, np.sin(t / 3))
        b = (800 - 600 * t / (frames - 1), 260, 300, 0.9, np.cos(t / 2))
        yield crowd(*[person for person in (a, b) if not (person is a and hide(t))][:: order(t)])


def test_follows_the_chosen_person_past_a_crossing_one():
    assert followed(crossing(61)) == [0] * 61


def test_the_order_in_which_people_are_found_does_not_matter():
    def order(t):
        return -1 if t % 3 == 1 else 1

    assert followed(crossing(61, order=order)) == [0 if order(t) == 1 else 1 for t in range(61)]


def test_a_person_hidden_while_crossing_is_not_swapped():
    """For some frames only the person in front is detected, near the expected position of the other."""
    found = followed(crossing(61, hide=lambda t: 27 <= t <= 33))
    assert found == [None if 27 <= t <= 33 else 0 for t in range(61)]


def test_survives_frames_without_people():
    frames = [crowd() if 10 <= t < 18 else crowd((300 + 8 * t, 250, 300)) for t in range(30)]
    assert followed(frames) == [None if 10 <= t < 18 else 0 for t in range(30)]


def test_starts_in_the_first_frame_with_a_person():
    assert followed([crowd(), crowd((500, 250, 300, 0.2)), crowd((500, 250, 300), (200, 250, 350))]) == [None, None, 1]


def test_fast_jumps_of_a_single_person_are_followed():
    """A dancer's jump by a third of the body's height between two frames."""
    frames = [crowd((500 + 50 * (-1) ** t, 250, 300, 0.9, (-1) ** t)) for t in range(20)]
    assert followed(frames) == [0] * 20


def test_a_larger_person_who_enters_later_is_not_chosen():
    frames = [crowd((300, 250, 250)) if t < 40 else crowd((800 - t, 250, 450), (300 + t, 250, 250)) for t in range(70)]
    assert followed(frames) == [0] * 40 + [1] * 30


def test_a_person_missed_in_the_first_frame_is_still_chosen():
    frames = [crowd((800, 250, 150)) if t < 2 else crowd((800, 250, 150), (300, 250, 350)) for t in range(50)]
    assert followed(frames) == [None] * 2 + [1] * 48


def test_a_large_person_who_crosses_at_the_start_is_not_chosen():
    frames = [crowd((300, 250, 250), *[(500 + 60 * t, 250, 480)] * (t < 7)) for t in range(50)]
    assert followed(frames) == [0] * 50


def test_a_fallback_box_does_not_outweigh_a_detected_person():
    """The detector fails in every other frame and returns the whole image as the fallback box."""
    ghost = replace(crowd((800, 250, 480, 0.4)), boxes=np.array([[0.0, 0, *SIZE]]), fallback=True)
    assert followed([crowd((200, 250, 200)), ghost] * 25) == [0, None] * 25


def test_a_known_person_is_not_chosen_when_the_dancer_leaves():
    frames = [
        crowd((600 + 40 * t, 250, 320), (250, 250, 250)) if t < 10 else crowd((250, 250, 250)) for t in range(100)
    ]
    assert followed(frames) == [0] * 10 + [None] * 90


def test_a_known_person_is_not_preferred_to_a_new_one():
    """The dancer leaves and returns later, past a larger person who was there all the time."""
    known = (750, 250, 300)
    frames = [crowd(*[(200, 250, 350)] * (t < 40), known, *[(300, 250, 200)] * (t >= 100)) for t in range(150)]
    assert followed(frames) == [0] * 40 + [None] * 60 + [1] * 50


def test_after_a_loss_no_single_frame_decides():
    """A small person enters shortly before a large one."""
    small, large = (800, 250, 100), (300, 250, 350)
    frames = [crowd((500, 250, 300))] * 5 + [crowd()] * 50 + [crowd(small)] * 3 + [crowd(small, large)] * 60
    assert followed(frames) == [0] * 5 + [None] * 53 + [1] * 60


def test_a_fast_person_is_expected_at_the_predicted_position():
    """Hidden for eight frames, the dancer moves by 1.5 times the body height, and a larger person enters."""
    hidden = range(46, 54)
    him = [[(60 + 50 * max(t - 40, 0), 250, 300)] * (t not in hidden) for t in range(59)]
    frames = [crowd(*him[t], *[(100, 250, 400)] * (t >= hidden.stop)) for t in range(59)]
    assert followed(frames) == [None if t in hidden else 0 for t in range(59)]


def test_a_leap_is_measured_by_the_full_body_size():
    """Crouching, the dancer leaps by the crouched height, and a larger person enters."""
    frames = [crowd((400, 300, 300))] * 40 + [crowd((400, 400, 100))] * 3
    frames += [crowd((500, 400, 100), (850, 250, 400))] * 40
    assert followed(frames) == [0] * 83


def test_after_a_cut_the_search_restarts():
    """The frames before the track was given up are not lost."""
    assert followed([crowd((100, 100, 120)) if t < 50 else crowd((800, 300, 350)) for t in range(120)]) == [0] * 120


@pytest.mark.parametrize("cut", [1, 5, 25, 90, 119])
def test_a_cut_near_either_end_costs_no_frame(cut):
    assert followed([crowd((100, 100, 120)) if t < cut else crowd((800, 300, 350)) for t in range(120)]) == [0] * 120


def test_frames_come_out_as_soon_as_they_are_decided():
    """Memory does not grow with the video: at most one second of delay, none while the dancer is detected."""
    taken = []
    frames = (taken.append(t) or crowd(*[(300, 250, 250)] * (t < 50)) for t in range(100))
    late = [len(taken) - t for t, _ in enumerate(follow(frames))]
    assert max(late) == late[0] == 31 and set(late[31:50]) == {1}


def test_two_detections_of_one_person_are_one():
    """Their order alternates; in the end only one remains."""
    frames = [crowd((400 + t, 250, 300), (402 + t, 251, 300, 0.85 + 0.1 * (t % 2))) for t in range(20)]
    found = followed([*frames, crowd((420, 250, 300))])
    assert None not in found


def test_the_size_estimate_does_not_follow_a_crouch_at_once():
    """After a crouch to a third of the height the dancer is still tracked."""
    heights = [300] * 5 + [220, 150, 100, 100, 100, 150, 220, 300]
    assert followed([crowd((400, 400 - h / 2, h), (850, 250, 290)) for h in heights]) == [0] * len(heights)


THREE = ((500, 250, 320), (200, 250, 200), (800, 250, 250))  # middle, left, right


@pytest.mark.parametrize(
    ("which", "index"), [("largest", 0), ("left", 1), ("right", 2), (1, 1), (2, 0), (3, 2)], ids=str
)
def test_who_is_asked_for(which, index):
    assert choose_person(crowd(*THREE), which) == index
    hidden = (100, 250, 300, 0.2)  # further left, but nobody to be seen
    assert choose_person(crowd(*THREE, hidden), which) == index
    # In a video he is followed wherever he goes: all move to the right, the first of them through the others.
    frames = [crowd((500 + 2 * t, 250, 320), (200 + 20 * t, 250, 200), (800, 250, 250)) for t in range(40)]
    assert [person for _, person in follow(frames, which)] == [index] * 40


def test_who_is_asked_for_and_not_there():
    with pytest.raises(UserError, match="person 4 from the left is wanted, but only 3 can be seen"):
        choose_person(crowd(*THREE), 4)
    with pytest.raises(UserError, match="person 4 from the left"):
        list(follow([crowd(*THREE)] * 5, 4))


def test_somebody_who_only_flickers_does_not_count():
    frames = [crowd(*THREE, *([(50, 250, 100)] if t == 0 else [])) for t in range(10)]
    assert [person for _, person in follow(frames, "left")] == [1] * 10


def test_after_a_cut_to_fewer_the_last_of_them_is_taken():
    frames = [crowd(*THREE)] * 10 + [crowd()] * 40 + [crowd((300, 250, 300), (700, 250, 300))] * 10
    persons = [person for _, person in follow(frames, 3)]
    assert persons[:10] == [2] * 10 and persons[-10:] == [1] * 10
