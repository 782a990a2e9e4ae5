"""evaluate.py --puppets: the program with tiny random weights, and the quality of the puppet weights."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from tolerance import near

import evaluate
from musepose.pose.align import fit_alignment
from puppet.cross_identity_score import SAME_LENGTH, TARGET, dance_pictures, limb_errors
from puppet.image_score import GRADIENT_SIZE, Subject, gradient_energy, make_subject, picture_figures, seam_transitions
from puppet.score_tables import worst_tenth
from puppet.world import HELD_OUT
from random_models.tiny_weights import ROOT, write_published_layout

MOTION_MODULE = ROOT / "pretrained_weights" / "puppet" / "MusePose" / "motion_module.pth"  # what is trained last
# Of four characters, well below what the weights reach: this catches what is broken, not what is worse.
LOWEST_PSNR, LOWEST_FIGURE, LOWEST_SSIM, LOWEST_GAIN = 23.0, 17.0, 0.82, 3.0


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, Path]:
    """The scores of two characters with tiny weights, and the filmstrip."""
    folder = tmp_path_factory.mktemp("puppets")
    write_published_layout(folder / "weights")
    with_motion = ROOT / "configs" / "inference_v2.yaml"
    without = folder / "stage_1.yaml"
    without.write_text(with_motion.read_text().replace("use_motion_module: true", "use_motion_module: false"))
    sizes = "--size 64 --characters 2 --clip_frames 2 --baseline_frames 1 --steps 1 --workers 1 --motion 1 --across 0"
    flags = [*sizes.split(), "--context_frames", "3", "--context_overlap", "1"]
    flags += ["--weights", str(folder / "weights"), "--inference_config", str(with_motion)]
    flags += ["--stage_1_config", str(without), "--filmstrip", str(folder / "strip.png")]
    assert evaluate.main(["--puppets", *flags, "--json", str(folder / "scores.json")]) == 0
    return json.loads((folder / "scores.json").read_text()), folder / "strip.png"


def test_every_row_is_a_mean_over_characters(run: tuple[dict, Path]):
    scores, _ = run
    for row in ("vae", "model", "reference", "other_reference", "other_poses"):
        for name in ("psnr", "gradient_energy"):
            each = [character["image"][row][name] for character in scores["characters"]]
            assert len(set(each)) == 2
            assert scores["image"][row][name] == near({"mean": np.mean(each), "worst_tenth": min(each)})


def test_motion_is_measured_with_and_without_motion_modules(run: tuple[dict, Path]):
    motion = run[0]["motion"]
    for clip in motion.values():
        assert clip["stage_1"]["change"] != clip["stage_2"]["change"]
        assert clip["stage_1"]["true_change"] == clip["stage_2"]["true_change"] > 0
    long = motion["three_windows"]["stage_2"]
    assert min(long["seam_error"], long["rest_error"]) <= long["error"] <= max(long["seam_error"], long["rest_error"])


def test_the_filmstrip_shows_four_pictures_a_character(run: tuple[dict, Path]):
    assert Image.open(run[1]).size == (8 * 64 + 7 * 4, 64)


def test_the_reference_shows_the_same_place_but_another_moment():
    subject = make_subject(0, 2, 192)
    reference = np.asarray(subject.reference.resize((192, 192))).astype(int)
    differs = np.abs(reference - subject.ground_truth[0]).max(axis=2) > 60
    assert 0.005 < differs.mean() < 0.3
    assert len(subject.poses) == len(subject.ground_truth) == len(subject.masks) == 2


def test_a_mask_covers_the_figure_that_the_pose_shows():
    subject = make_subject(1, 2, 192)
    drawn = np.asarray(Image.fromarray(subject.poses[0]).resize((192, 192))).max(axis=2) > 100
    assert (subject.masks[0] > 0.5)[drawn].mean() > 0.9
    assert (subject.masks[0] > 0.5).mean() < 0.5


def wave(side: int, amplitude: float = 0.4) -> np.ndarray:
    """Grey stripes down, 16 of them: (side, side, 3) from 0 to 1."""
    column = 0.5 + amplitude * np.sin(np.arange(side) / side * 16 * 2 * np.pi)
    return np.tile(column[None, :, None], (side, 1, 3))


def test_gradient_energy_is_the_mean_squared_gradient_inside_the_mask():
    picture, mask = wave(GRADIENT_SIZE), np.zeros((GRADIENT_SIZE, GRADIENT_SIZE))
    mask[30:90, 24:48] = 1  # two whole waves of 12 pixels
    slope = 0.4 * np.sin(2 * np.pi / 12)  # the largest: half the difference of the two neighbours
    assert gradient_energy(picture, mask) == near(slope**2 / 2)
    changed = picture.copy()
    changed[:, 50:] = 0
    assert gradient_energy(changed, mask) == gradient_energy(picture, mask)
    assert gradient_energy(wave(GRADIENT_SIZE, 0.2), mask) == near(gradient_energy(picture, mask) / 4)


def test_gradient_energy_is_measured_at_one_size_for_any_rendered_size():
    energies = [gradient_energy(wave(side), np.ones((side, side))) for side in (GRADIENT_SIZE, 2 * GRADIENT_SIZE)]
    assert energies[1] == pytest.approx(energies[0] * np.cos(np.pi / 24) ** 2, rel=0.02)  # pairs of pixels in one


def test_blur_lowers_the_gradient_energy_of_a_figure_and_noise_raises_it():
    subject = make_subject(0, 2, GRADIENT_SIZE)
    blurred = [cv2.GaussianBlur(truth, (0, 0), 1.5) for truth in subject.ground_truth]
    noise = np.random.default_rng(0).normal(0, 12, subject.ground_truth[0].shape)
    noisy = [np.clip(truth + noise, 0, 255).astype(np.uint8) for truth in subject.ground_truth]
    energies = [picture_figures(r, subject)["gradient_energy"] for r in (blurred, subject.ground_truth, noisy)]
    assert energies[0] < 0.7 and energies[1] == 1 and energies[2] > 1.1


def test_the_background_does_not_count_in_the_gradient_energy():
    truth = (wave(GRADIENT_SIZE) * 255).astype(np.uint8)
    mask = np.zeros((GRADIENT_SIZE, GRADIENT_SIZE))
    mask[:, :96] = 1
    result = truth.copy()
    result[:, 98:] = 0
    subject = Subject(Image.fromarray(truth), [], [truth], [mask])
    assert picture_figures([result], subject)["gradient_energy"] == 1


def test_seams_are_the_transitions_at_overlaps():
    """Windows 0-3, 3-6, 6-9: frames 3 and 6 lie in two."""
    assert np.flatnonzero(seam_transitions(10, 4, 1)).tolist() == [2, 3, 5, 6]
    assert np.flatnonzero(seam_transitions(12, 4, 0)).tolist() == [3, 7]


def test_the_worst_tenth_is_the_mean_of_the_lowest():
    assert worst_tenth([*range(20)]) == 0.5
    assert worst_tenth([3, 2, 4]) == 2


def test_with_ground_truth_keypoints_alignment_gives_the_targets_limbs():
    """The dancer's limbs differ from the target's, so the metric can distinguish them."""
    seed, frames = HELD_OUT + 4, [0, 15, 18, 21]
    dance = [shown.people[0].pose for shown in dance_pictures(seed, seed, frames)]
    truth = [shown.people[0].pose for shown in dance_pictures(seed, seed + TARGET, frames)]
    alignment = fit_alignment(truth[0], dance[0], image_aspect=1, frame_aspect=1)
    assert max(limb_errors([alignment.apply(pose) for pose in dance], truth)) < SAME_LENGTH
    assert max(limb_errors(dance, truth)) > 2 * SAME_LENGTH


@pytest.mark.skipif(not MOTION_MODULE.is_file(), reason="the puppet weights are not there")
def test_the_puppet_weights_animate_held_out_characters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    flags = "--characters 4 --clip_frames 3 --baseline_frames 1 --workers 1 --motion 0 --across 0".split()
    flags += ["--set_ups", "0"]
    assert evaluate.main(["--puppets", *flags, "--json", str(tmp_path / "scores.json")]) == 0
    image = json.loads((tmp_path / "scores.json").read_text())["image"]
    assert image["model"]["psnr"]["mean"] > LOWEST_PSNR
    assert image["model"]["figure"]["mean"] > LOWEST_FIGURE
    assert image["model"]["ssim"]["mean"] > LOWEST_SSIM
    for row in ("reference", "other_reference", "other_poses"):
        assert image[row]["model_better"]["mean"] > LOWEST_GAIN
