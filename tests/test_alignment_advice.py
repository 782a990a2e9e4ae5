"""Beside the alignment: place in the picture, align frame, advice, smoothing, preview."""

from dataclasses import replace

import numpy as np
import pytest
from dancer import dancer
from PIL import Image
from tolerance import POINTS, assert_near, near

from musepose.pose.advice import choose_align_frame, odd_limbs, what_leaves
from musepose.pose.measure import body_points
from musepose.pose.placement import outside, place
from musepose.pose.preview import PANEL_HEIGHT, choose_frames, draw_preview
from musepose.pose.smooth import fill_and_smooth, find_cuts
from musepose.pose.types import to_pose

ASPECT = 0.75


def joints(**build) -> np.ndarray:
    return body_points([to_pose(dancer(**build), np.ones(133))], ASPECT)[0]


def hidden(points: np.ndarray, *which: int) -> np.ndarray:
    points = points.copy()
    points[list(which)] = np.nan
    return points


def test_feet_stand_on_the_pictures_ground_and_jumps_stay_jumps():
    picture, frame = joints() + (0.1, 0.05), joints()
    jump = np.array([frame - (0, 0.2 * (number in (7, 8, 9))) for number in range(20)])
    shift, by = place(picture, jump)
    assert by == "feet"
    placed = jump + shift
    assert placed[0, 10, 1] == near(picture[10, 1])
    assert placed[8, 10, 1] == near(picture[10, 1] - 0.2)


def test_one_frame_with_a_foot_far_below_does_not_lift_the_dance():
    dance = np.array([joints()] * 40)
    dance[5, 10, 1] += 0.4
    np.testing.assert_allclose(place(joints(), dance)[0], 0, rtol=0, atol=POINTS)


def test_hips_decide_across_though_the_dancer_leans():
    leaning = joints()
    leaning[:8, 0] += 0.2
    np.testing.assert_allclose(place(joints(), np.array([leaning] * 5))[0], 0, rtol=0, atol=POINTS)


@pytest.mark.parametrize("cut_off", ["picture", "dance"])
def test_half_bodies_are_placed_by_the_neck(cut_off):
    picture, dance = joints(height=0.9), np.array([joints()] * 5)
    if cut_off == "picture":
        picture = hidden(picture, 9, 10, 12, 13)
    else:
        dance = np.array([hidden(frame, 9, 10, 12, 13) for frame in dance])
    shift, by = place(picture, dance)
    assert by == "neck"
    assert_near(dance[0, 1] + shift, picture[1])


def test_without_a_neck_the_common_joints_decide():
    shift, by = place(joints() + (0.2, 0.1), np.array([hidden(joints(), 1, 5, 10, 13)] * 3))
    assert by == "joints"
    assert_near(shift, (0.2, 0.1))


def test_joints_outside_the_picture():
    points = np.array([joints(), joints() + (0.6, 0), joints() + (2, 0)])
    assert outside(points, ASPECT) == (2, 1)
    some, none = what_leaves(points, ASPECT, total=4)
    assert some.startswith("2 of 4 frames have joints outside the picture")
    assert none == "1 of 4 frames show nobody inside the picture"
    assert what_leaves(points[:1], ASPECT, total=1) == []


def test_joints_that_the_picture_does_not_show_may_be_outside():
    points = np.array([joints() + (0, 0.2)] * 3)  # feet below the picture
    feet = np.isin(np.arange(18), (10, 13))
    assert what_leaves(points, ASPECT, 3)[0].startswith("3 of 3 frames have joints outside the picture")
    assert what_leaves(points, ASPECT, 3, shown=~feet) == []


def test_the_align_frame_is_the_one_most_like_the_picture():
    dance = np.array([joints(time=number / 24) for number in range(6)])  # the arms swing back later
    frame, reason = choose_align_frame(joints(time=4 / 24), dance)
    assert frame == 4
    assert "18 of the picture's 18 joints" in reason and "0 degrees from the picture's" in reason


def test_leaning_one_sided_empty_and_cut_off_frames_are_no_align_frames():
    good = joints(time=0.05)
    leaning, short, empty = joints(), joints(), np.full((18, 2), np.nan)
    leaning[:8, 0] += 0.3
    short[4] = short[3] + 0.3 * (short[4] - short[3])
    dance = np.array([empty, leaning, short, hidden(joints(), 9, 10), good])
    assert choose_align_frame(joints(), dance)[0] == 4


def test_odd_limbs_are_named_with_factor_and_flag():
    scales = dict.fromkeys(
        ("neck", "face", "shoulders", "upper arms", "lower arms", "trunk", "hips", "upper legs"), 1.1
    )
    assert odd_limbs(scales | {"hands": 9.0}) == []
    (line,) = odd_limbs(scales | {"lower legs": 0.55})
    assert "lower legs" in line and "2.00 times as short" in line and "--limb_scale lower_legs=1.10" in line


def test_jitter_at_rest_is_smoothed_and_a_fast_move_kept():
    rng = np.random.default_rng(0)
    time = np.arange(90) / 30
    moving = time > 2
    path = np.stack([np.where(moving, 0.3 * np.sin(2 * np.pi * 1.5 * time), 0), np.zeros(90)], axis=1)[:, None]
    noise = rng.normal(0, 0.003, path.shape)
    visible = np.ones((90, 1), bool)
    smooth, _ = fill_and_smooth(path + noise, visible, [], torso=0.25, rate=30)

    def shake(points):
        return np.abs(np.diff(points[:55], n=2, axis=0)).mean()

    assert shake(smooth) < 0.6 * shake(path + noise)
    kept, _ = fill_and_smooth(path, visible, [], torso=0.25, rate=30)
    assert np.ptp(kept) > 0.99 * np.ptp(path)
    assert np.abs(np.diff(kept, axis=0)).max() > 0.97 * np.abs(np.diff(path, axis=0)).max()


def test_short_gaps_are_filled_and_long_ones_not():
    path = np.linspace(0, 1, 30)[:, None, None] * np.ones((1, 1, 2))
    visible = np.ones((30, 1), bool)
    visible[5:10], visible[15:21] = False, False
    spoilt = np.where(visible[..., None], path, 7.0)
    filled, seen = fill_and_smooth(spoilt, visible, [], torso=0.3, rate=30)
    assert seen[5:10].all() and not seen[15:21].any()
    np.testing.assert_allclose(filled[seen], path[seen], rtol=0, atol=POINTS)
    np.testing.assert_array_equal(filled[~seen], spoilt[~seen])


def test_nothing_is_filled_or_smoothed_across_a_cut():
    path = np.zeros((24, 18, 2)) + joints()
    path[12:] += 1.0
    visible = np.ones((24, 18), bool)
    visible[11:13, 4] = False
    cuts = find_cuts(path, visible)
    smooth, seen = fill_and_smooth(path, visible, cuts, torso=0.3, rate=30)
    assert cuts == [12] and not seen[11:13, 4].any()
    np.testing.assert_allclose(smooth, path, rtol=0, atol=POINTS)


def test_a_fast_dancer_is_no_cut_and_a_long_absence_is_one():
    path = np.array([joints() + (0.05 * np.sin(frame), 0) for frame in range(30)])
    visible = np.ones((30, 18), bool)
    assert find_cuts(path, visible) == []
    visible[10:18] = False
    assert find_cuts(path, visible) == [18]


def test_the_preview_shows_the_align_frame_and_those_that_reach_farthest():
    pose = to_pose(dancer(), np.ones(133))
    poses = [replace(pose, body=pose.body + (0.01 * (frame % 5), 0)) for frame in range(60)]
    poses[30] = replace(pose, body=pose.body + (0.5, 0))
    poses[40] = None
    frames = choose_frames(poses, align_frame=3)
    assert len(frames) == 6 and {3, 30} < set(frames) and 40 not in frames
    assert np.diff(frames).min() >= 5
    preview = draw_preview(Image.new("RGB", (150, 200), "white"), poses, 3)
    assert preview.shape == (2 * PANEL_HEIGHT, 3 * 384, 3) and preview.dtype == np.uint8
    assert len(np.unique(preview.reshape(-1, 3), axis=0)) > 20


def test_a_preview_of_a_dance_without_anybody_is_the_picture():
    assert draw_preview(Image.new("RGB", (100, 200)), [None] * 3, 0).shape == (PANEL_HEIGHT, 256, 3)
