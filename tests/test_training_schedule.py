"""Learning rates: the plateau with its decay, settings of a resumed training, starts from written models, weights."""

import shutil
from pathlib import Path

import pytest
import torch
from tiny_training import config_of, make_trainer, random_animator, train, write_workplace
from tolerance import near, rounding
from torch import nn

from musepose.models.state_dicts import read_checkpoint
from musepose.training.config import Solver
from musepose.training.loss import figure_weights
from musepose.training.model import save_models
from musepose.training.schedule import make_schedule
from musepose.utils.errors import UserError

EVERY_STEP = ("checkpointing_steps=1", "total_limit=9")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_workplace(tmp_path_factory.mktemp("training"))


@pytest.fixture
def workplace(models: Path, tmp_path: Path) -> Path:
    """The models' folder with an output folder of its own."""
    shutil.rmtree(models / "stage_1", ignore_errors=True)
    return models


def factors(**settings) -> list[float]:
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), 2.0)
    schedule = make_schedule(optimizer, Solver(max_train_steps=10, **settings))
    found = []
    for _ in range(10):
        found.append(schedule.get_last_lr()[0] / 2)
        optimizer.step()
        schedule.step()
    return found


def test_the_learning_rate_falls_at_the_end() -> None:
    assert factors() == [1] * 10
    assert factors(lr_decay_steps=4) == near([1] * 7 + [0.75, 0.5, 0.25])
    warm = factors(lr_scheduler="constant_with_warmup", lr_warmup_steps=4, lr_decay_steps=4)
    assert warm == near([0, 0.25, 0.5, 0.75, 1, 1, 1, 0.75, 0.5, 0.25])


@pytest.mark.parametrize("schedule", ["cosine", "linear", "polynomial", "cosine_with_restarts"])
def test_a_decay_of_a_schedule_that_decays_is_refused(workplace: Path, schedule: str) -> None:
    with pytest.raises(UserError, match=f"lr_decay_steps is 2, but solver.lr_scheduler is {schedule}"):
        config_of(workplace, 1, f"solver.lr_scheduler={schedule}", "solver.lr_decay_steps=2")


def test_a_plateau_is_prolonged_and_harvested_from_a_named_state(workplace: Path, tmp_path: Path) -> None:
    """The harvest is the training that had known its length from the start."""
    long = (*EVERY_STEP, "solver.ema_decay=0.5")
    train(workplace, 1, *long, "solver.max_train_steps=2")
    train(workplace, 1, *long, "solver.max_train_steps=4", resume="latest")
    decay = ("solver.max_train_steps=5", "solver.lr_decay_steps=2")
    state = str(workplace / "stage_1/states/step-0000003")
    harvest, losses = train(workplace, 1, *long, *decay, f"output_dir={tmp_path}/harvest", resume=state)
    whole, every = train(workplace, 1, *long, *decay, f"output_dir={tmp_path}/whole")
    assert losses == every[3:]  # the same operations on the same numbers
    for found, expected in zip(harvest.ema.shadow_params, whole.ema.shadow_params, strict=True):
        assert torch.equal(found, expected)
    assert harvest.schedule.get_last_lr() == [0]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (("solver.lr_scheduler=cosine",), ("solver.lr_scheduler=cosine", "solver.max_train_steps=6")),
        (("solver.lr_scheduler=linear",), ("solver.lr_scheduler=linear", "solver.max_train_steps=6")),
        (("solver.lr_scheduler=cosine",), ("solver.lr_scheduler=constant",)),
        (("solver.lr_decay_steps=2",), ("solver.lr_decay_steps=2", "solver.max_train_steps=6")),
        ((), ("solver.lr_decay_steps=3",)),
    ],
)
def test_settings_that_make_the_learning_rate_jump_are_refused(workplace: Path, before: tuple, after: tuple) -> None:
    run = ("checkpointing_steps=3", "solver.max_train_steps=4")
    train(workplace, 1, *run, *before)
    state = str(workplace / "stage_1/states/step-0000003")
    with pytest.raises(UserError, match=r"the state of step 3 has .* of the peak learning rate, these settings go on"):
        make_trainer(workplace, 1, *run, *after, resume=state)
    make_trainer(workplace, 1, *run, *before, resume=state)


def test_overrides_of_a_resumed_training_count_and_are_said(workplace: Path, capsys) -> None:
    train(workplace, 1, *EVERY_STEP, "solver.ema_decay=0.5")
    changed = ("solver.learning_rate=5e-6", "solver.adam_weight_decay=0.5", "solver.adam_beta2=0.7")
    capsys.readouterr()
    more = (*EVERY_STEP, "solver.ema_decay=0.25", "solver.max_train_steps=3", *changed)
    training = make_trainer(workplace, 1, *more, resume="latest")
    assert capsys.readouterr().out.splitlines() == [
        "solver.learning_rate: 5e-06 from here on, the state has 0.001",
        "solver.adam_beta1 and adam_beta2: (0.9, 0.7) from here on, the state has (0.9, 0.999)",
        "solver.adam_weight_decay: 0.5 from here on, the state has 0.01",
    ]
    (group,) = training.optimizer.param_groups
    assert (group["lr"], group["betas"], group["weight_decay"]) == (5e-6, (0.9, 0.7), 0.5)
    assert training.ema.decay == 0.25
    training.run()
    (group,) = training.optimizer.param_groups
    assert group["lr"] == training.schedule.get_last_lr()[0] == 5e-6


def test_stage_1_starts_from_half_precision_models(workplace: Path, tmp_path: Path) -> None:
    save_models(random_animator(motion=False, seed=3), tmp_path / "small", "fp16", None)
    training = make_trainer(workplace, 1, f"start_from={tmp_path}/small", "from_scratch=false")
    for name in ("denoising_unet", "reference_unet", "pose_guider"):
        network, written = getattr(training.model, name), read_checkpoint(tmp_path / "small" / f"{name}.pth")
        found = network.state_dict()
        assert all(tensor.dtype == torch.float16 for tensor in written.values())
        assert all(torch.equal(found[key], tensor.float()) for key, tensor in written.items())
        assert all(parameter.dtype == torch.float32 for parameter in network.parameters())


def test_a_start_that_is_not_there_is_refused(workplace: Path, tmp_path: Path) -> None:
    from musepose.cli.train import check

    with pytest.raises(UserError, match=r"reference_unet.pth is missing: correct start_from"):
        check("stage_1", config_of(workplace, 1, f"start_from={tmp_path}"))
    with pytest.raises(UserError, match="both give the pose guider"):
        config_of(workplace, 1, f"start_from={tmp_path}", "controlnet_openpose_path=a.bin")


def test_the_figure_is_what_is_near_the_drawn_pose() -> None:
    poses = torch.zeros(1, 2, 3, 192, 192)
    poses[0, 1, 2, 80:84, 100:104] = 1.0  # in the latents' pixel (10, 12)
    poses[0, 0] += 0.1  # what compression leaves of black
    weights = figure_weights(poses, (24, 24), 5.0)
    assert weights.shape == (1, 2, 24, 24) and (weights[0, 0] == 1).all()
    expected = torch.ones(24, 24)
    expected[9:12, 11:14] = 5
    assert torch.equal(weights[0, 1], expected)
    assert figure_weights(poses, (24, 24), 1.0) is None


def test_weights_of_pixels_change_the_loss_and_1_is_the_published_one(workplace: Path) -> None:
    loss = make_trainer(workplace, 1).loss
    generator = torch.Generator().manual_seed(0)
    prediction, latents = (torch.randn(2, 1, 4, 8, 8, generator=generator) for _ in range(2))
    sample = loss.sample([1, 2], (1, 4, 8, 8))
    plain = loss.per_frame(prediction, latents, sample)
    assert torch.equal(loss.per_frame(prediction, latents, sample, None), plain)
    even = loss.per_frame(prediction, latents, sample, torch.full((2, 1, 8, 8), 3.0))
    torch.testing.assert_close(even, plain, rtol=rounding(256), atol=0)  # sums of 4 x 8 x 8 squares
    weights = torch.ones(2, 1, 8, 8)
    weights[:, :, :4] = 0
    rest = loss.per_frame(prediction, latents, sample, weights)
    weights[:, :, :4] = 1
    half = loss.per_frame(prediction, latents, sample, 1 - weights + (weights.cumsum(2) <= 4))
    torch.testing.assert_close((rest + half) / 2, plain, rtol=rounding(256), atol=0)


def test_a_training_weighs_the_figure(workplace: Path) -> None:
    _, plain = train(workplace, 1, "checkpointing_steps=9", "solver.max_train_steps=1")
    shutil.rmtree(workplace / "stage_1")
    _, one = train(workplace, 1, "checkpointing_steps=9", "solver.max_train_steps=1", "figure_weight=1")
    shutil.rmtree(workplace / "stage_1")
    _, other = train(workplace, 1, "checkpointing_steps=9", "solver.max_train_steps=1", "figure_weight=9")
    assert one == plain and other != plain
