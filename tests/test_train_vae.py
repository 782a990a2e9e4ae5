"""Training of the puppets' autoencoder: data by step, learning, resuming, latents of mean 0 and deviation 1."""

import contextlib
import io
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from diffusers import AutoencoderKL
from omegaconf import DictConfig, OmegaConf
from tolerance import network_rounding, rounding, unit

import puppet.train_vae as program
from musepose.training.checkpoints import list_checkpoints
from musepose.utils.errors import UserError
from puppet.train_vae import Pool, Training, build_vae, normalise_latents
from puppet.vae_losses import PatchDiscriminator, hinge_loss, reconstruction_loss, weighted_mean

SIZE, POOL = 32, 6


def fake_picture(number: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """An image by number: red is the column, green the row, and a square is the figure."""
    image = np.zeros((size, size, 3), np.uint8)
    image[..., 0] = np.arange(size) * (255 // size)
    image[..., 1] = np.arange(size)[:, None] * (255 // size)
    image[..., 2] = number % 251
    mask = np.zeros((size, size), np.uint8)
    mask[20:28, 4:12] = 255
    return image, mask


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    make_small(monkeypatch)


def make_small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("POOL", POOL), ("MEASURED", 4), ("EVALUATED", 2), ("picture", fake_picture)):
        monkeypatch.setattr(program, name, value)


def tiny_config(folder: Path) -> DictConfig:
    return OmegaConf.create(
        {
            "output_dir": str(folder / "states"),
            "save_dir": str(folder / "vae"),
            "seed": 1,
            "size": SIZE,
            "model": {
                "block_out_channels": [4, 4, 4, 8],
                "layers_per_block": 1,
                "latent_channels": 4,
                "norm_num_groups": 2,
            },
            "start_from": None,
            "phases": [{"steps": 4, "crop": 16, "batch": 4}, {"steps": 4, "crop": 32, "batch": 2}],
            "decay": {
                "steps": 4,
                "crop": 32,
                "batch": 2,
                "adversarial_weight": 0.01,
                "critic_channels": 4,
                "critic_learning_rate": 1e-3,
            },
            "solver": {
                "optimizer": "adamw",
                "adam_beta2": 0.99,
                "learning_rate": 5e-3,
                "warmup_steps": 1,
                "weight_decay": 1e-4,
                "max_grad_norm": 1.0,
                "ema_decay": 0.5,
                "kl_weight": 1e-5,
                "figure_weight": 3.0,
                "mixed_precision": "no",
            },
            "checkpointing_steps": 5,
            "total_limit": 2,
            "log_steps": 4,
        }
    )


def test_a_resumed_pool_holds_the_same_pictures() -> None:
    pool = Pool(0, rank=1, ranks=2, size=SIZE)
    for step in range(4):
        pool.crops(step, 1, 16, 2)
    again = Pool(4, rank=1, ranks=2, size=SIZE)
    numbers = [int(image[0, 0, 2]) for image, _ in again.pictures]
    assert numbers == [int(image[0, 0, 2]) for image, _ in pool.pictures] == [2 * i + 1 for i in range(4, 4 + POOL)]
    for ours, theirs in zip(pool.crops(4, 1, 16, 2), again.crops(4, 1, 16, 2), strict=True):
        assert torch.equal(ours, theirs)


def test_crops_are_cut_alike_from_pictures_and_masks_and_show_the_figure() -> None:
    pool, seen = Pool(0, 0, 1, SIZE), 0
    for step in range(30):
        images, masks = pool.crops(step, 0, 16, 4)
        assert images.shape == (4, 3, 16, 16) and masks.shape == (4, 1, 16, 16)
        columns, rows = (((images[:, c] + 1) * 127.5 / (255 // SIZE)).round() for c in (0, 1))
        figure = (columns >= 4) & (columns < 12) & (rows >= 20) & (rows < 28)
        assert torch.equal(masks[:, 0], figure.float())
        seen += int(masks.flatten(1).any(1).sum())
    assert seen / 120 > 0.8  # by chance alone it would be less than two thirds
    whole, _ = pool.crops(30, 0, SIZE, 2)
    assert whole.shape[-1] == SIZE


def test_the_figure_counts_for_more() -> None:
    images, masks = torch.zeros(1, 3, 1, 4), torch.tensor([[[[1.0, 0, 0, 0]]]])
    on, off = images.clone(), images.clone()
    on[..., 0] = 0.5
    off[..., 1] = 0.5
    losses = [reconstruction_loss(x, images, masks, 3.0).item() for x in (on, off)]
    assert losses == pytest.approx([3 * 0.75 / 6, 0.75 / 6], rel=rounding(20))


def test_normalised_latents_do_not_change_reconstructions(tmp_path: Path) -> None:
    torch.manual_seed(0)
    vae = build_vae(tiny_config(tmp_path)).eval()
    for parameter in vae.quant_conv.parameters():
        torch.nn.init.normal_(parameter)
    pictures = torch.rand(8, 3, SIZE, SIZE) * 2 - 1
    with torch.no_grad():
        before = vae.encode(pictures).latent_dist
        decoded = vae.decode(before.mean).sample
        mean, deviation = before.mean.mean((0, 2, 3)), before.mean.std((0, 2, 3))
        assert (mean.abs() > 0.05).any() and ((deviation - 1).abs() > 0.05).any()
        normalise_latents(vae, mean, deviation)
        after = vae.encode(pictures).latent_dist
    # The mean is subtracted in a bias: latents are as exact as the encoder makes them, also where they are larger.
    bound = network_rounding(lambda: vae.encode(pictures).latent_dist.parameters, vae)
    bound += rounding(2, (mean.abs() / deviation).max().item())
    torch.testing.assert_close(after.mean.mean((0, 2, 3)), torch.zeros(4), rtol=0, atol=bound)
    torch.testing.assert_close(after.mean.std((0, 2, 3)), torch.ones(4), rtol=0, atol=bound)
    # Half the logarithm's error is the relative one.
    torch.testing.assert_close(after.std * deviation[:, None, None], before.std, rtol=bound / 2 + rounding(4), atol=0)
    with torch.no_grad():
        bound = network_rounding(lambda: vae.decode(vae.encode(pictures).latent_dist.mean).sample, vae)
        torch.testing.assert_close(vae.decode(after.mean).sample, decoded, rtol=0, atol=bound)


def run(config: DictConfig, resume: str | None = None, harvest: bool = False) -> AutoencoderKL:
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    Training(config, resume, harvest).run()
    return AutoencoderKL.from_pretrained(config.save_dir)


def assert_same(one: AutoencoderKL, other: AutoencoderKL) -> None:
    """The same operations on the same numbers; saved in half precision, where the last bit may be decided otherwise."""
    for name, tensor in one.state_dict().items():
        bounds = dict(rtol=2 * unit(torch.float16), atol=2 * 2**-24)
        torch.testing.assert_close(other.state_dict()[name], tensor, **bounds, msg=name)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[DictConfig, AutoencoderKL, str]:
    """A complete run: its config, the saved model, and its output."""
    config, printed = tiny_config(tmp_path_factory.mktemp("vae")), io.StringIO()
    with pytest.MonkeyPatch.context() as monkeypatch, contextlib.redirect_stdout(printed):
        make_small(monkeypatch)
        return config, run(config), printed.getvalue()


def copied(config: DictConfig, folder: Path, *states: str) -> DictConfig:
    """A copy of the training in another folder, with only some of its states."""
    changed = OmegaConf.merge(config, {"output_dir": str(folder / "states"), "save_dir": str(folder / "vae")})
    for state in states:
        shutil.copytree(Path(config.output_dir) / state, Path(changed.output_dir) / state)
    return changed


def test_steps_lower_the_loss_and_the_last_line_reports_quality(trained: tuple[DictConfig, AutoencoderKL, str]) -> None:
    _, vae, printed = trained
    losses = [float(line.split()[-1]) for line in printed.splitlines() if line.startswith("step ")]
    assert len(losses) == 3 and losses[1] < losses[0] and losses[2] < losses[0]
    assert re.search(
        r"2 held-out images, PSNR \d+\.\d+ dB, on the figure .* dB, gradient energy on the figure 0\.\d+", printed
    )
    pictures = torch.stack([torch.from_numpy(fake_picture(program.HELD_OUT - i, SIZE)[0]) for i in (1, 2, 3, 4)])
    latents = vae.encode(pictures.permute(0, 3, 1, 2) / 127.5 - 1).latent_dist.mean.detach()
    assert vae.config.scaling_factor == 1 and abs(latents.std((0, 2, 3)) - 1).max() < 0.02  # saved in fp16


@pytest.mark.parametrize("newest", ["step-0000005", "decay-0000008/step-0000010"])
def test_a_resumed_run_ends_in_the_same_model(newest: str, trained, tmp_path: Path, capsys) -> None:
    config = copied(trained[0], tmp_path, newest)
    assert_same(trained[1], run(config, "latest"))
    assert re.findall(r"step (\d+)/12", capsys.readouterr().out)[0] == ("8" if "decay" not in newest else "12")


def test_a_harvest_decays_from_the_newest_state_and_leaves_it(trained, tmp_path: Path) -> None:
    config = copied(trained[0], tmp_path, "step-0000008")
    config.phases[1].steps = 1000
    assert_same(trained[1], run(config, harvest=True))
    assert [path.name for path in list_checkpoints(Path(config.output_dir))] == ["step-0000008"]


def test_without_a_state_there_is_nothing_to_harvest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no state to harvest"):
        run(tiny_config(tmp_path), harvest=True)


@pytest.mark.parametrize(
    ("state", "changes", "message"),
    [
        (
            "decay-0000008/step-0000010",
            {"decay": {"steps": 40}},
            "step 10 had a learning rate of 0.0025, .* at 0.00475",
        ),
        ("step-0000005", {"solver": {"learning_rate": 1e-3}}, "step 5 had a learning rate of 0.005, .* at 0.001"),
        ("step-0000008", {"phases": [{"steps": 6, "crop": 16, "batch": 4}]}, "of step 8, the phases end at 6"),
    ],
)
def test_settings_that_make_the_learning_rate_jump_are_refused(state, changes, message, trained, tmp_path) -> None:
    config = OmegaConf.merge(copied(trained[0], tmp_path, state), changes)
    with pytest.raises(UserError, match=message):
        run(config, "latest")
    assert not Path(config.save_dir).exists()


def test_a_training_can_start_from_weights(trained, tmp_path: Path) -> None:
    config = OmegaConf.merge(tiny_config(tmp_path), {"start_from": trained[0].save_dir})
    AcceleratorState._reset_state(reset_partial_state=True)
    assert_same(trained[1], Training(config, None, False).vae)


def test_a_discriminator_learns_and_its_logits_are_weighted() -> None:
    torch.manual_seed(0)
    critic, masks = PatchDiscriminator(4), torch.zeros(4, 1, 32, 32)
    optimizer = torch.optim.AdamW(critic.parameters(), 1e-2)
    for _ in range(40):
        true, made = torch.randn(4, 3, 32, 32), torch.full((4, 3, 32, 32), 0.1)
        loss = hinge_loss(critic(true), critic(made), masks, 5.0)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss < 0.5  # 2 is chance
    answers, half = torch.tensor([[[[1.0, -1.0]]]]), torch.zeros(1, 1, 4, 8)
    half[..., :4] = 1
    assert weighted_mean(answers, half, 3.0) == pytest.approx((3 - 1) / 4, rel=rounding(20))


def test_a_loss_that_is_not_finite_stops_the_training_and_saves_nothing(tmp_path: Path, monkeypatch) -> None:
    loss = program.reconstruction_loss
    steps = []

    def losses(*arguments):
        steps.append(1)
        return loss(*arguments) * (float("nan") if len(steps) == 7 else 1)

    monkeypatch.setattr(program, "reconstruction_loss", losses)
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    with pytest.raises(UserError, match="the loss of step 7 is not finite"):
        Training(tiny_config(tmp_path), None, False).run()
    assert [path.name for path in list_checkpoints(tmp_path / "states")] == ["step-0000005"]
    assert not (tmp_path / "vae").exists()
