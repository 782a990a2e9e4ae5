"""Metrics against plain arithmetic: PSNR, SSIM, change between frames, joints, Fréchet distance."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tolerance import assert_near, near, rounding

from musepose.evaluation.metrics import MAX_PSNR, FrameDifferences, joint_distances, psnr, ssim, to_float
from musepose.evaluation.networks import frechet_distance
from musepose.pose.types import Pose

# Sums of up to 3072 squares or products; decibels, and what a variance of 0.08 divides, are below 20.
EXACT = rounding(3072, 20, torch.float64)


def random_picture(seed: int, height: int = 17, width: int = 19) -> np.ndarray:
    return np.random.default_rng(seed).random((height, width, 3))


def test_psnr_of_a_constant_error():
    truth = 0.5 * random_picture(1)
    assert psnr(truth + 0.1, truth) == pytest.approx(20, abs=EXACT)


def test_psnr_of_black_for_white_bytes_is_zero():
    white = np.full((4, 4, 3), 255, np.uint8)
    assert psnr(to_float(white), to_float(np.zeros_like(white))) == 0


def test_psnr_does_not_wrap_around_where_bytes_would():
    """Noise on bytes: a difference of -100 would count as 156, or its square as 16, in uint8."""
    rng = np.random.default_rng(2)
    truth, result = rng.integers(0, 256, (2, 32, 32, 3), np.uint8)
    squares = [(int(a) - int(b)) ** 2 for a, b in zip(result.flat, truth.flat, strict=True)]
    expected = 10 * np.log10(255**2 * len(squares) / sum(squares))
    assert psnr(to_float(result), to_float(truth)) == pytest.approx(expected, abs=EXACT)


def test_psnr_of_identical_pictures_is_capped():
    assert psnr(random_picture(1), random_picture(1)) == MAX_PSNR


def test_weighted_psnr_depends_only_on_weighted_pixels():
    truth = 0.5 * random_picture(1)
    result, weights = truth.copy(), np.zeros(truth.shape[:2])
    result[:5] += 0.1
    weights[:5] = 0.7
    assert psnr(result, truth, weights) == pytest.approx(20, abs=EXACT)
    assert psnr(result, truth, 1 - (weights > 0)) == MAX_PSNR


def naive_ssim(x: np.ndarray, y: np.ndarray) -> float:
    """Window by window, as the paper has it."""
    distance = np.arange(-5, 6)
    window = np.exp(-(distance[:, None] ** 2 + distance[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    values = []
    for channel in range(x.shape[2]):
        for i in range(x.shape[0] - 10):
            for j in range(x.shape[1] - 10):
                a, b = (p[i : i + 11, j : j + 11, channel] for p in (x, y))
                mean_a, mean_b = (window * a).sum(), (window * b).sum()
                var_a, var_b = (window * (a - mean_a) ** 2).sum(), (window * (b - mean_b) ** 2).sum()
                cov = (window * (a - mean_a) * (b - mean_b)).sum()
                value = (2 * mean_a * mean_b + 1e-4) * (2 * cov + 9e-4)
                values.append(value / ((mean_a**2 + mean_b**2 + 1e-4) * (var_a + var_b + 9e-4)))
    return float(np.mean(values))


def test_ssim_equals_a_naive_one():
    x, y = random_picture(1), 0.7 * random_picture(1) + 0.3 * random_picture(2)
    assert ssim(x, y) == pytest.approx(naive_ssim(x, y), abs=EXACT)
    assert ssim(x, x) == pytest.approx(1, abs=EXACT)


def test_ssim_refuses_pictures_smaller_than_its_window():
    with pytest.raises(ValueError, match="11"):
        ssim(random_picture(1, 10, 30), random_picture(2, 10, 30))


def test_changes_of_a_result_that_changes_twice_as_much():
    """In levels of 255: the ground truth brightens by 1 per frame, the result by 2."""
    truths = [np.full((4, 4, 3), value, np.uint8) for value in (10, 11, 12)]
    results = [np.full((4, 4, 3), value, np.uint8) for value in (50, 52, 54)]
    changes = FrameDifferences.of(results, truths)
    assert_near((changes.result, changes.truth, changes.error), [[2, 2], [1, 1], [1, 1]])


def test_changes_in_opposite_directions_do_not_cancel():
    up, down = np.zeros((2, 4, 4, 3), np.uint8)
    up[0], down[1] = 30, 30
    changes = FrameDifferences.of([np.zeros_like(up), up], [np.zeros_like(down), down])
    assert changes.error == near([15])


def standing_pose() -> Pose:
    """All joints somewhere, neck at (0.5, 0.2), mid-hips at (0.5, 0.6)."""
    body = np.random.default_rng(3).random((18, 2))
    body[1], body[8], body[11] = (0.5, 0.2), (0.4, 0.6), (0.6, 0.6)
    hands, face = np.zeros((2, 21, 2)), np.zeros((68, 2))
    return Pose(body, np.ones(18, bool), hands, np.ones((2, 21), bool), face, np.ones(68, bool))


def test_joint_distances_are_in_torso_lengths_of_pixels():
    """Torso: 0.4 of the height. A shift by 0.1 of the width is 0.2 of the height in a picture twice as wide as high."""
    truth = standing_pose()
    shifted = replace(truth, body=truth.body + (0.1, 0))
    assert_near(joint_distances(shifted, truth, aspect=2), np.full(18, 0.5))


def test_joints_that_only_the_result_lacks_are_infinitely_far_and_others_do_not_count():
    truth, visible = standing_pose(), np.ones(18, bool)
    truth = replace(truth, body_visible=np.where(np.arange(18) == 4, False, visible))
    result = replace(truth, body_visible=np.where(np.arange(18) == 7, False, visible))
    distances = joint_distances(result, truth, aspect=1)
    assert np.isnan(distances[4]) and np.isinf(distances[7])
    assert np.count_nonzero(distances == 0) == 16
    assert np.isinf(joint_distances(None, truth, aspect=1)[truth.body_visible]).all()


def test_without_a_torso_no_joint_counts():
    hips = np.isin(np.arange(18), (8, 11))
    truth = replace(standing_pose(), body_visible=~hips)
    assert np.isnan(joint_distances(standing_pose(), truth, aspect=1)).all()


def test_frechet_distance_of_numbers_is_the_known_formula():
    first, second = np.random.default_rng(4).normal(0, (1, 3), (200, 2)).T
    expected = (first.mean() - second.mean()) ** 2 + (first.std(ddof=1) - second.std(ddof=1)) ** 2
    assert frechet_distance(first[:, None], second[:, None]) == pytest.approx(expected, rel=EXACT)


def test_frechet_distance_where_covariances_do_not_commute():
    rng = np.random.default_rng(5)
    first, second = (rng.normal(size=(count, 4)) @ rng.normal(size=(4, 4)) for count in (50, 60))
    a, b = np.cov(first.T), np.cov(second.T)
    root_trace = np.sqrt(np.linalg.eigvals(a @ b).real).sum()
    expected = np.square(first.mean(0) - second.mean(0)).sum() + np.trace(a + b) - 2 * root_trace
    assert frechet_distance(first, second) == pytest.approx(expected, rel=EXACT)
    assert frechet_distance(first, first) == pytest.approx(0, abs=EXACT**0.5)  # roots of rounding errors
