"""Drawing: equal to the recorded images, in size and colours."""

import numpy as np
import pytest
from dancer import DWPOSE_CASES, POSE_CASES, dancer, golden_case, golden_pose

from musepose.media.side_by_side import MAX_WIDTH, panel_layout, side_by_side
from musepose.pose.draw import canvas_size, draw_pose_map, draw_poses, draw_video_frame, grid_size, video_size
from musepose.pose.types import Pose, to_pose

# Share of the pixels that are not black. OpenCV 4.10 and 4.11 draw the recorded pictures to the byte; another may
# round a corner of a limb's ellipse to the next pixel. A missing fingertip is 1.8 in a thousand.
MOST_DIFFERENT = 0.001


def lone_joint(joint: int, place: tuple[float, float] = (0.5, 0.5)) -> Pose:
    body, visible = np.full((18, 2), 0.25), np.zeros(18, bool)
    body[joint], visible[joint] = place, True
    hands, face = np.full((2, 21, 2), 0.75), np.full((68, 2), 0.6)
    return Pose(body, visible, hands, np.zeros((2, 21), bool), face, np.ones(68, bool))


def assert_same_drawing(drawn: np.ndarray, expected: np.ndarray) -> None:
    assert drawn.shape == expected.shape and drawn.dtype == expected.dtype == np.uint8
    different = (drawn != expected).any(axis=-1)
    assert different.sum() <= MOST_DIFFERENT * expected.any(axis=-1).sum()


@pytest.mark.parametrize("name", POSE_CASES)
def test_equals_the_recorded_aligned_drawings(name):
    case, drawings = golden_case(name)
    frame_size = case["video"]["width"], case["video"]["height"]
    image_size = case["reference"]["width"], case["reference"]["height"]
    width, height = canvas_size(*frame_size)
    for number, entry in enumerate(case["aligned"]):
        source = golden_pose(case["video"]["frames"][case["align_frame"] + number])
        aligned = golden_pose(entry)
        pose = Pose(
            aligned.body, source.body_visible, aligned.hands, source.hands_visible, aligned.face, source.face_visible
        )
        canvas = draw_poses([pose], height, width)[..., ::-1]  # recorded before red and blue are exchanged
        assert_same_drawing(canvas, drawings["canvas"][number])
        frame = draw_video_frame(pose, frame_size, image_size)
        assert_same_drawing(frame, drawings["pose_video"][number])


@pytest.mark.parametrize("fault", ["a pixel aside", "no ankle", "no fingertip", "red and blue exchanged"])
def test_faults_make_another_drawing(fault):
    pose = to_pose(dancer(), np.ones(133))
    right = wrong = draw_poses([pose], 256, 192)
    if fault == "a pixel aside":
        wrong = np.roll(right, 1, axis=1)
    elif fault == "red and blue exchanged":
        wrong = right[..., ::-1]
    else:
        visible, joint = (pose.body_visible, 10) if fault == "no ankle" else (pose.hands_visible, (0, 4))
        visible[joint] = False
        wrong = draw_poses([pose], 256, 192)
    assert_same_drawing(right, right)
    with pytest.raises(AssertionError):
        assert_same_drawing(wrong, right)


@pytest.mark.parametrize("name", DWPOSE_CASES)
def test_equals_the_recorded_pose_map_of_the_first_person(name):
    case, drawings = golden_case(name)
    assert grid_size(*case["image_size"], case["detect_resolution"]) == tuple(case["detector_input_shape"][1::-1])
    drawn = draw_pose_map(
        golden_pose(case["pose"]), case["image_size"], case["detect_resolution"], case["image_resolution"]
    )
    assert_same_drawing(drawn[..., ::-1], drawings["pose_map"])


def test_without_people_the_picture_is_black():
    assert draw_poses([], 40, 30).shape == (40, 30, 3)
    assert not draw_poses([], 40, 30).any()
    frame = draw_video_frame(None, (640, 360), (300, 500))
    assert frame.shape == (768, 460, 3) and not frame.any()
    assert not draw_pose_map(None, (640, 360), 512, 720).any()


def test_the_palette_has_red_and_blue_exchanged():
    """OpenPose's nose is red, its right shoulder orange; here blue and its mirror."""
    assert draw_poses([lone_joint(0)], 64, 64)[32, 32].tolist() == [0, 0, 255]
    assert draw_poses([lone_joint(2)], 64, 64)[32, 32].tolist() == [0, 170, 255]


def test_only_visible_points_are_drawn_and_no_faces():
    drawn = draw_poses([lone_joint(4)], 64, 64)
    rows, columns = np.nonzero(drawn.any(axis=-1))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (28, 36, 28, 36)


def test_a_limb_needs_both_its_joints():
    pose = to_pose(dancer(), np.ones(133))
    pose.hands_visible[:] = False
    pose.body_visible[:] = False
    pose.body_visible[[2, 3]] = True
    limb = draw_poses([pose], 200, 150)
    pose.body_visible[3] = False
    assert np.count_nonzero(limb.any(axis=-1)) > np.count_nonzero(draw_poses([pose], 200, 150).any(axis=-1)) > 0


def test_every_person_given_is_drawn():
    left, right = lone_joint(0, (0.25, 0.5)), lone_joint(0, (0.75, 0.5))
    both = draw_poses([left, right], 64, 64)
    assert (both == draw_poses([left], 64, 64) + draw_poses([right], 64, 64)).all() and both[32, 16].any()


@pytest.mark.parametrize("far", [-1e7, 1e7])
def test_points_far_outside_are_ignored(far):
    pose = to_pose(dancer(), np.ones(133))
    pose.body[[0, 4, 16]] = far
    pose.hands[:, 5:9] = far
    assert draw_poses([pose], 120, 90).any()


@pytest.mark.parametrize(
    ("image_size", "expected"), [((512, 768), (512, 768)), ((300, 500), (460, 768)), ((303, 500), (464, 768))]
)
def test_the_video_has_an_even_width_in_the_pictures_shape(image_size, expected):
    assert video_size(*image_size) == expected


def test_the_strip_shows_the_pictures_side_by_side():
    colours = (10, 90, 170)
    pictures = [
        np.full((h, w, 3), c, np.uint8) for (w, h), c in zip([(64, 48), (30, 50), (200, 20)], colours, strict=True)
    ]
    widths, height = panel_layout([(p.shape[1], p.shape[0]) for p in pictures])
    strip = side_by_side(pictures, widths, height)
    assert strip.shape == (height, sum(widths), 3) and sum(widths) <= MAX_WIDTH
    assert all(side % 2 == 0 for side in (*widths, height))
    middles = np.cumsum(widths) - np.array(widths) // 2
    assert strip[height // 2, middles, 0].tolist() == list(colours)


def test_hand_points_beyond_the_left_or_upper_border_carry_no_edges():
    """As recorded; beyond the right or lower border the edge is drawn up to it."""
    pose = lone_joint(0)
    pose.body_visible[:] = False
    pose.hands_visible[0, [0, 1]] = True
    pose.hands[0, 0] = 0.5, 0.5
    columns = {}
    for x in (-0.5, 1.5):
        pose.hands[0, 1] = x, 0.5
        columns[x] = np.nonzero(draw_poses([pose], 64, 64).any(axis=(0, 2)))[0]
    assert columns[-0.5].tolist() == list(range(29, 36))  # the wrist point alone
    assert (columns[1.5].min(), columns[1.5].max()) == (29, 63)
