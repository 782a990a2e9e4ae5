"""Training of the puppets' detector and keypoint network: tiny networks, few images."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from tolerance import rounding

import puppet.train_pose as program
from musepose.pose.detectors.dwpose.detector import PoseDetector
from musepose.pose.types import People
from musepose.training.optimizers import Muon
from musepose.utils.errors import UserError
from puppet.pose_networks import Dwpose, Yolox, box_iou, simcc_labels
from puppet.pose_pictures import make_shots, partner
from puppet.pose_samples import detection_batch, keypoint_batch
from puppet.pose_score import score_detector
from puppet.world import HELD_OUT

ROOT = Path(__file__).resolve().parents[1]
TINY = {
    "yolox": [
        ("_side = 192", "_side = 96"),
        ("deepen_factor=0.33, widen_factor=0.25", "deepen_factor=0.1, widen_factor=0.125"),
        ("in_channels=[64, 128, 256]", "in_channels=[32, 64, 128]"),
        ("out_channels=64", "out_channels=32"),
        ("in_channels=64, feat_channels=64", "in_channels=32, feat_channels=32"),
    ],
    "dwpose": [
        ("_input = (192, 256)", "_input = (96, 128)"),
        ("in_featuremap_size=(24, 32)", "in_featuremap_size=(12, 16)"),
        ("widen_factor=0.375", "widen_factor=0.125"),
        ("in_channels=96", "in_channels=32"),
        ("hidden_dims=128", "hidden_dims=32"),
    ],
}
NETWORKS = {"yolox": Yolox, "dwpose": Dwpose}


@pytest.fixture(scope="module")
def configs(tmp_path_factory) -> dict[str, Path]:
    """The two mm configs, with tiny networks."""
    folder = tmp_path_factory.mktemp("configs")
    for part, changes in TINY.items():
        text = (ROOT / f"configs/puppet/{part}.py").read_text()
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        (folder / f"{part}.py").write_text(text)
    return {part: folder / f"{part}.py" for part in TINY}


@pytest.fixture(scope="module")
def shots():
    return make_shots(5, short_side=160, people=1)


def settings(part: str, configs: dict[str, Path], folder: Path, steps: int = 3):
    config = OmegaConf.load(ROOT / "configs/puppet/train_pose.yaml")
    few = dict(output_dir=str(folder / "states"), save_dir=str(folder), pool=1, judged=1, checkpointing_steps=2)
    tiny = {part: dict(config=str(configs[part]), steps=steps, decay_steps=2, batch=2)}
    return OmegaConf.merge(config, few | dict(log_steps=1) | tiny)


def batch_of(network, shots):
    if isinstance(network, Yolox):
        return detection_batch(shots, network.side)
    return keypoint_batch([(shot, 0) for shot in shots], network.size, network.flip_indices)


@pytest.mark.parametrize("part", NETWORKS)
def test_steps_lower_the_loss_on_one_batch(part, configs, shots):
    torch.manual_seed(0)
    network = NETWORKS[part](configs[part])
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    batch, losses = batch_of(network, shots), []
    for _ in range(12):
        loss = network(batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.85 * losses[0]


@pytest.mark.parametrize("part", NETWORKS)
def test_a_resumed_run_ends_with_the_same_weights(part, configs, tmp_path, monkeypatch):
    whole = program.train(part, settings(part, configs, tmp_path / "whole"), None)
    broken = settings(part, configs, tmp_path / "broken")
    draw = program.sample_batch

    def fail_at_the_third_step(pool, network, batch, rng):
        if (tmp_path / "broken/states" / part / "step-0000002").is_dir():
            raise KeyboardInterrupt
        return draw(pool, network, batch, rng)

    monkeypatch.setattr(program, "sample_batch", fail_at_the_third_step)
    with pytest.raises(KeyboardInterrupt):
        program.train(part, broken, None)
    monkeypatch.undo()
    resumed = program.train(part, broken, "latest")
    one, other = (torch.load(path, weights_only=True)["state_dict"] for path in (whole, resumed))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_steps_that_make_the_learning_rate_jump_are_refused_and_a_longer_run_is_not(configs, tmp_path):
    program.train("dwpose", settings("dwpose", configs, tmp_path, steps=4), None)  # states of steps 2 and 4
    with pytest.raises(UserError, match="the state of step 4 had a learning rate of 0, these settings continue at"):
        program.train("dwpose", settings("dwpose", configs, tmp_path, steps=8), "latest")
    before = str(tmp_path / "states/dwpose/step-0000002")
    program.train("dwpose", settings("dwpose", configs, tmp_path, steps=5), before)


@pytest.mark.parametrize("part", NETWORKS)
def test_a_training_can_start_from_written_weights(part, configs, tmp_path):
    path = program.train(part, settings(part, configs, tmp_path / "first", steps=1), None)
    torch.manual_seed(5)
    network = NETWORKS[part](configs[part])
    program.load_weights(network.model, path)
    written = torch.load(path, weights_only=True)["state_dict"]
    assert all(torch.equal(tensor, written[key].to(tensor.dtype)) for key, tensor in network.model.state_dict().items())
    assert network.model.state_dict().keys() == written.keys()
    assert all(p.dtype == torch.float32 for p in network.parameters())
    still = {part: dict(learning_rate=0.0, steps=1), "start_from": str(path.parent)}
    again = program.train(part, OmegaConf.merge(settings(part, configs, tmp_path / "second"), still), None)
    for key, tensor in torch.load(again, weights_only=True)["state_dict"].items():
        assert tensor.ndim == 0 or "running" in key or torch.equal(tensor, written[key])
    missing = OmegaConf.merge(settings(part, configs, tmp_path / "third"), {"start_from": str(tmp_path)})
    with pytest.raises(UserError, match=f"{part}.pth is missing: correct start_from"):
        program.train(part, missing, None)


@pytest.mark.parametrize(("name", "kind"), [("adamw", torch.optim.AdamW), ("muon", Muon)])
def test_the_optimizer_is_the_configured_one_and_decays_matrices_only(name, kind):
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8))
    optimizer = program.make_optimizer(network, OmegaConf.create(dict(optimizer=name, learning_rate=1e-3)), 0.1)
    assert type(optimizer) is kind
    decays = {len(p.shape): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert decays == {4: 0.1, 1: 0.0}


def test_an_unknown_optimizer_is_refused(configs, tmp_path):
    wrong = OmegaConf.merge(settings("dwpose", configs, tmp_path), dict(dwpose=dict(optimizer="sgd")))
    with pytest.raises(UserError, match="the optimizer is sgd: give adamw or muon"):
        program.train("dwpose", wrong, None)
    assert not (tmp_path / "dwpose.pth").exists()


def test_the_detector_takes_the_files_written(configs, tmp_path, caplog):
    files = {part: program.train(part, settings(part, configs, tmp_path, steps=1), None) for part in NETWORKS}
    detector = PoseDetector(configs["yolox"], files["yolox"], configs["dwpose"], files["dwpose"])
    figures = score_detector(detector, [HELD_OUT])
    assert not caplog.records  # no tensor in them is of no use
    assert figures["frames"] == 4
    assert all(
        value.dtype == torch.half
        for key, value in torch.load(files["dwpose"])["state_dict"].items()
        if key.endswith("conv.weight")
    )


class Oracle:
    """Returns the ground truth of one set-up, with keypoints shifted by a fraction of the torso length."""

    def __init__(self, shots, shift: float = 0.0, missing: int = 0):
        self.shots, self.shift, self.missing = shots, shift, missing

    def detect(self, pictures):
        return [self._people(shot, i < self.missing) for i, shot in enumerate(self.shots)]

    def _people(self, shot, nobody: bool) -> People:
        height, width = shot.image.shape[:2]
        torso = np.linalg.norm(shot.keypoints[:, [5, 6]].mean(1) - shot.keypoints[:, [11, 12]].mean(1), axis=-1)
        points = shot.keypoints + (self.shift * torso)[:, None, None] * np.array([1.0, 0.0])
        whole = np.array([[0.0, 0.0, width, height]] * len(points))
        boxes = whole if nobody else shot.boxes
        return People(boxes, np.ones(len(boxes)), points / (width, height), shot.visible * 1.0, nobody, (width, height))


@pytest.mark.parametrize("shift, expected", [(0.0, 100), (0.049, 100), (0.051, 0)])
def test_score_counts_points_within_five_per_cent_of_the_torso(shift, expected):
    shots = make_shots(HELD_OUT, short_side=512)
    figures = score_detector(Oracle(shots, shift), [HELD_OUT])
    assert figures["found"] == figures["people_found"] == figures["reported"] == 100
    assert figures["surplus"] == 0
    assert {figures[part] for part in ("joints", "wrists", "hands", "face")} == {expected}


def test_score_does_not_count_a_fallback_box_as_found():
    shots = make_shots(HELD_OUT, short_side=512)
    assert score_detector(Oracle(shots, missing=1), [HELD_OUT])["found"] == 75


def test_the_bodys_points_weigh_more_and_those_under_clothes_most(configs, shots, monkeypatch):
    """With equal predictions of equal points, each point's part of the loss is its weight."""
    network = Dwpose(configs["dwpose"])
    batch = keypoint_batch([(shots[0], 0)], network.size, network.flip_indices)
    middle = torch.tensor(network.size) / 2
    alike = replace(batch, keypoints=middle.expand(1, 133, 2), visible=torch.ones(1, 133, dtype=torch.bool))
    bins = [torch.zeros(1, 133, round(network.split * size), requires_grad=True) for size in network.size]
    monkeypatch.setattr(network, "_predict", lambda images: tuple(bins))
    network(alike).backward()
    for gradient in (axis.grad[0].norm(dim=-1) for axis in bins):
        assert torch.allclose(gradient / gradient[91], expected_weights(), rtol=rounding(10), atol=0)


def expected_weights() -> torch.Tensor:
    weights = torch.ones(133)
    weights[:17] = 6
    weights[[7, 8, 11, 12, 13, 14]] = 12
    return weights


def test_simcc_labels_are_those_of_the_codec(configs):
    network = Dwpose(configs["dwpose"])
    rng = np.random.default_rng(0)
    points = rng.uniform(0, network.size, (1, 133, 2)).astype(np.float32)
    visible = rng.random((1, 133)) < 0.8
    wanted = network.model.head.decoder.encode(points, visible.astype(np.float32))
    for axis, name in enumerate(("keypoint_x_labels", "keypoint_y_labels")):
        size, sigma = network.size[axis], network.sigma[axis]
        arguments = torch.from_numpy(points[..., axis]), torch.from_numpy(visible), size, network.split
        # A position in bins is rounded once, and a normal curve is nowhere steeper than 0.61 / sigma.
        bound = rounding(1, 0.61 * network.split * size / sigma)
        expected = torch.from_numpy(wanted[name])
        assert torch.allclose(simcc_labels(*arguments, sigma), expected, rtol=0, atol=bound)
        assert not torch.allclose(simcc_labels(*arguments, 1.001 * sigma), expected, rtol=0, atol=2 * bound)


def test_exact_crops_are_those_of_inference(configs, shots):
    """The box is centred in the crop, and its limiting side is 1 / 1.25 of the crop's."""
    shot = replace(shots[0], boxes=np.array([[20.0, 30.0, 60.0, 130.0]]))
    corners = np.broadcast_to(shot.boxes.reshape(2, 2), (66, 2, 2)).reshape(132, 2)
    shot = replace(shot, keypoints=np.concatenate([[[40.0, 80.0]], corners])[None])
    points = keypoint_batch([(shot, 0)], (96, 128), list(range(133))).keypoints[0].numpy()
    exact = rounding(20, 128)  # pixels in float32, through an affine map
    assert np.allclose(points[0], (48, 64), rtol=0, atol=exact)
    assert np.allclose(points[1:3, 1], (64 - 0.5 * 128 / 1.25, 64 + 0.5 * 128 / 1.25), rtol=0, atol=exact)


def test_mirrored_crops_exchange_left_and_right(configs, shots):
    """With any augmentation, the left shoulder's keypoint lies on the figure's left side in the image."""
    network = Dwpose(configs["dwpose"])
    for seed in range(8):
        batch = keypoint_batch([(shots[0], 0)], network.size, network.flip_indices, np.random.default_rng(seed))
        left, right = batch.keypoints[0, [5, 6], 0]
        assert left > right  # the puppet faces the viewer in all its pictures


def test_augmented_boxes_stay_around_the_figure(shots):
    """A white rectangle on black: the augmented box is the rectangle's in the augmented image."""
    shot = shots[0]
    image = np.zeros_like(shot.image)
    x0, y0, x1, y1 = shot.boxes[0].astype(int)
    image[y0:y1, x0:x1] = 255
    white = replace(shot, image=image)
    for seed in range(8):
        batch = detection_batch([white], 96, np.random.default_rng(seed))
        rows, columns = np.nonzero(batch.images[0, 0].numpy() > 140)
        edges = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        assert np.abs(batch.boxes[0][0].numpy() - edges).max() < 2  # pixels that interpolation blurs


def test_scenes_for_evaluation_and_training_are_disjoint():
    assert max(partner(n) for n in (0, HELD_OUT // 2, HELD_OUT - 1)) < HELD_OUT
    assert all(HELD_OUT <= partner(HELD_OUT + n) < 2 * HELD_OUT for n in (0, HELD_OUT // 2, HELD_OUT - 1))


def test_box_iou():
    one = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
    other = torch.tensor([[1.0, 0.0, 3.0, 2.0], [4.0, 4.0, 5.0, 5.0]])
    assert torch.allclose(box_iou(one, other), torch.tensor([[1 / 3, 0.0]]), rtol=0, atol=rounding(10))


def test_wrong_part_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["train_pose", "--part", "faces"])
    with pytest.raises(SystemExit) as left:
        program.run_script(program.main)
    assert left.value.code == 2
    assert capsys.readouterr().err.startswith("error: argument --part")
