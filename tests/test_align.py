"""Alignment: the recorded cases, and each rule."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from dancer import POSE_CASES, dancer, golden_case, golden_pose
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tolerance import assert_near, rounding

from musepose.pose.align import BODY_LIMBS, SEGMENT_LIMBS, fit_alignment, limb_scales, segment_lengths, typical_lengths
from musepose.pose.types import NECK, Pose, to_pose
from musepose.utils.errors import UserError

# The records are float32, of coordinates below 2 (documented: 1e-6).
RECORDED = rounding(1, 2)
# Ours are float64: the mean size of 21 points, six limbs in a row, a dozen operations each; random values are below 10.
EXACT = rounding(100, 10, torch.float64)


def pose_of(scores: np.ndarray | None = None, **build) -> Pose:
    return to_pose(dancer(**build), np.ones(133) if scores is None else scores)


def hide(pose: Pose, *joints: int) -> Pose:
    """Give these joints random coordinates and mark them as not visible."""
    body, visible = pose.body.copy(), pose.body_visible.copy()
    body[list(joints)], visible[list(joints)] = (7.0, -3.0), False
    return replace(pose, body=body, body_visible=visible)


def hide_hands(pose: Pose) -> Pose:
    return replace(pose, hands=np.full_like(pose.hands, -1), hands_visible=np.zeros_like(pose.hands_visible))


@pytest.mark.parametrize("name", POSE_CASES)
def test_equals_the_recorded_alignment(name):
    case, _ = golden_case(name)
    reference, video, first = case["reference"], case["video"], case["align_frame"]
    frames = [golden_pose(entry) for entry in video["frames"]]
    alignment = fit_alignment(
        golden_pose(reference["pose"]),
        frames[first],
        reference["width"] / reference["height"],
        video["width"] / video["height"],
    )
    assert len(case["aligned"]) == len(frames) - first
    for frame, entry in zip(frames[first:], case["aligned"], strict=True):
        aligned, expected = alignment.apply(frame), golden_pose(entry)
        np.testing.assert_allclose(aligned.body, expected.body, atol=RECORDED, rtol=0)
        seen = frame.hands_visible
        np.testing.assert_allclose(aligned.hands[seen], expected.hands[seen], atol=RECORDED, rtol=0)
        if frame.face_visible.any():
            np.testing.assert_allclose(aligned.face, expected.face, atol=RECORDED, rtol=0)
        assert (aligned.body_visible == frame.body_visible).all()


# Joints and hand points anywhere on a grid coarse enough that different ones are apart.
coordinates = st.integers(0, 400).map(lambda value: value / 200 - 0.5)


def points(*shape: int) -> st.SearchStrategy[np.ndarray]:
    count = int(np.prod(shape)) * 2
    flat = st.lists(coordinates, min_size=count, max_size=count)
    return flat.map(lambda values: np.array(values).reshape(*shape, 2))


@st.composite
def poses(draw) -> Pose:
    def mask(*shape):
        count = int(np.prod(shape))
        return np.array(draw(st.lists(st.booleans(), min_size=count, max_size=count))).reshape(shape)

    body = draw(points(18))
    visible = mask(18)
    visible[[0, NECK]] = True  # one limb that can be measured
    body[0] = body[NECK] + (0.01, -0.1)
    hands = draw(points(2, 21))
    return Pose(body, visible, hands, mask(2, 21), draw(points(68)), mask(68))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])  # for busy machines
@given(poses(), st.sampled_from([9 / 16, 0.6, 1.0, 16 / 9]), st.booleans())
def test_equal_skeletons_stay_as_they_are(pose, aspect, from_video):
    lengths = typical_lengths([segment_lengths(pose, aspect)] * 3) if from_video else None
    aligned = fit_alignment(pose, pose, aspect, aspect, lengths).apply(pose)
    np.testing.assert_allclose(aligned.body, pose.body, atol=EXACT, rtol=0)
    np.testing.assert_allclose(aligned.hands, pose.hands, atol=EXACT, rtol=0)
    np.testing.assert_allclose(aligned.face, pose.face, atol=EXACT, rtol=0)


def test_a_larger_person_elsewhere_in_another_shape_of_picture_is_matched():
    reference, frame = pose_of(height=0.9, aspect=0.6), pose_of(height=0.3, aspect=16 / 9)
    reference = replace(reference, body=reference.body + 0.04, hands=reference.hands + 0.04)
    aligned = fit_alignment(reference, frame, 0.6, 16 / 9).apply(frame)
    np.testing.assert_allclose(aligned.body, reference.body, atol=EXACT, rtol=0)
    np.testing.assert_allclose(aligned.hands, reference.hands, atol=EXACT, rtol=0)


def test_the_movement_is_kept_and_scaled_by_limb():
    """Arms twice as long in the reference: the wrist moves twice as far about the shoulder, the rest is unchanged."""
    reference, first, later = pose_of(arms=0.2), pose_of(arms=0.1), pose_of(arms=0.1, time=0.2)
    alignment = fit_alignment(reference, first, 0.75, 0.75)
    aligned = alignment.apply(later)
    np.testing.assert_allclose(
        aligned.body[4] - aligned.body[2], 2 * (later.body[4] - later.body[2]), atol=EXACT, rtol=0
    )
    np.testing.assert_allclose(aligned.body[8:14], later.body[8:14], atol=EXACT, rtol=0)


def test_the_shift_of_the_first_frame_holds_for_all():
    reference, first = pose_of(), pose_of()
    later = replace(first, body=first.body + (0.1, -0.05))
    aligned = fit_alignment(reference, first, 0.75, 0.75).apply(later)
    np.testing.assert_allclose(aligned.body, reference.body + (0.1, -0.05), atol=EXACT, rtol=0)


@pytest.mark.parametrize("hidden_in", ["reference", "first"])
def test_a_limb_not_seen_in_both_takes_the_mean_of_the_others(hidden_in):
    reference, first = pose_of(height=0.8), pose_of(height=0.4)
    if hidden_in == "reference":
        reference = hide(reference, 10, 13)
    else:
        first = hide(first, 10, 13)
    scales = fit_alignment(reference, first, 0.75, 0.75).scales
    assert scales["lower legs"] == pytest.approx(2, rel=EXACT)
    ratios = {limb: 1.0 + number for number, limb in enumerate(BODY_LIMBS)} | {"hands": np.nan, "trunk": np.nan}
    known = [ratio for ratio in ratios.values() if not np.isnan(ratio)]
    scales = limb_scales(np.array([ratios[limb] for limb in SEGMENT_LIMBS]), np.ones(len(SEGMENT_LIMBS)))
    assert scales["trunk"] == pytest.approx(np.mean(known), rel=EXACT)
    assert scales["neck"] == 1


def test_one_visible_side_measures_the_limb():
    reference, first = hide(pose_of(arms=0.24), 6, 7), pose_of(arms=0.16)
    scales = fit_alignment(reference, first, 0.75, 0.75).scales
    assert scales["upper arms"] == pytest.approx(1.5, rel=EXACT)
    assert scales["lower arms"] == pytest.approx(1.5, rel=EXACT)


def test_hands_without_points_scale_as_the_arms_do():
    reference, first = pose_of(arms=0.24), hide_hands(pose_of(arms=0.16))
    assert fit_alignment(reference, first, 0.75, 0.75).scales["hands"] == pytest.approx(1.5, rel=EXACT)


def test_hands_with_points_scale_a_third_by_their_own_size():
    reference, first = pose_of(arms=0.24), pose_of(arms=0.16)
    assert fit_alignment(reference, first, 0.75, 0.75).scales["hands"] == pytest.approx((1 + 1.5 + 1.5) / 3, rel=EXACT)


def test_joints_on_one_another_measure_nothing():
    first = pose_of()
    first.body[9] = first.body[8]
    lengths = segment_lengths(first, 0.75)
    rows = [row for row, limb in enumerate(SEGMENT_LIMBS) if limb == "upper legs"]
    assert np.isnan(lengths[rows[0]]) and lengths[rows[1]] > 0


def test_a_foreshortened_frame_spoils_the_scales_of_the_frame_but_not_of_the_video():
    reference, whole, short = pose_of(arms=0.16), pose_of(arms=0.16), pose_of(arms=0.02)
    assert fit_alignment(reference, short, 0.75, 0.75).scales["upper arms"] == pytest.approx(8, rel=EXACT)
    lengths = typical_lengths(segment_lengths(pose, 0.75) for pose in [short, *[whole] * 9])
    assert fit_alignment(reference, short, 0.75, 0.75, lengths).scales["upper arms"] == pytest.approx(1, rel=EXACT)


def test_one_frame_with_a_wrong_long_limb_does_not_decide_the_video():
    whole, wrong = pose_of(arms=0.16), pose_of(arms=0.9)
    lengths = typical_lengths(segment_lengths(pose, 0.75) for pose in [wrong, *[whole] * 19])
    np.testing.assert_allclose(lengths, segment_lengths(whole, 0.75), rtol=EXACT)


def test_a_limb_never_seen_in_the_video_has_no_length():
    lengths = typical_lengths([segment_lengths(hide(pose_of(), 10, 13), 0.75)] * 2)
    assert [limb for limb, length in zip(SEGMENT_LIMBS, lengths, strict=True) if np.isnan(length)] == ["lower legs"] * 2


def test_no_common_limb_is_an_error_that_names_the_flag():
    upper, lower = hide(pose_of(), *range(8, 14)), hide(pose_of(), *range(8), *range(14, 18))
    with pytest.raises(UserError, match="no limb is visible .*--align_frame"):
        fit_alignment(upper, lower, 0.75, 0.75)
    with pytest.raises(UserError, match="no limb is visible .*--align_frame"):
        fit_alignment(upper, lower, 0.75, 0.75, segment_lengths(pose_of(), 0.75))


def test_without_a_visible_neck_the_common_joints_decide_the_place():
    reference = pose_of()
    first = hide(replace(reference, body=reference.body + (0.2, 0.1)), 5)
    first.body_visible[NECK] = False
    first.body[NECK] += (0.5, 0.5)  # junk
    legs = slice(8, 14)
    aligned = fit_alignment(reference, first, 0.75, 0.75).apply(first)
    # All common joints together get their place: of the legs alone a tenth of the move (0.2, 0.1) may be left.
    assert_near(aligned.body[legs].mean(axis=0), reference.body[legs].mean(axis=0), 0.02)
