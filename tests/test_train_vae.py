"""The puppets' autoencoder: pictures and crops by step, steps that learn, latents of mean 0 and deviation 1."""

from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from diffusers import AutoencoderKL
from omegaconf import DictConfig, OmegaConf

import puppet.train_vae as program
from puppet.train_vae import Pool, build_vae, learning_rate, normalise_latents, reconstruction_loss, train

SIZE, POOL = 32, 6


def fake_picture(number: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """A gradient by number, its red the column and its green the row, with a square for a figure."""
    image = np.zeros((size, size, 3), np.uint8)
    image[..., 0] = np.arange(size) * (255 // size)
    image[..., 1] = np.arange(size)[:, None] * (255 // size)
    image[..., 2] = number % 251
    mask = np.zeros((size, size), np.uint8)
    mask[20:28, 4:12] = 255
    return image, mask


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("POOL", POOL), ("MEASURED", 4), ("JUDGED", 2), ("picture", fake_picture)):
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
            "phases": [{"steps": 8, "crop": 16, "batch": 4}, {"steps": 4, "crop": 32, "batch": 2}],
            "solver": {
                "learning_rate": 5e-3,
                "warmup_steps": 1,
                "weight_decay": 1e-4,
                "max_grad_norm": 1.0,
                "ema_decay": 0.5,
                "kl_weight": 1e-5,
                "figure_weight": 3.0,
                "mixed_precision": "no",
            },
            "checkpointing_steps": 8,
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
    assert losses == pytest.approx([3 * 0.75 / 6, 0.75 / 6])


def test_normalised_latents_leave_the_pictures_the_same(tmp_path: Path) -> None:
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
    torch.testing.assert_close(after.mean.mean((0, 2, 3)), torch.zeros(4), rtol=0, atol=1e-5)
    torch.testing.assert_close(after.mean.std((0, 2, 3)), torch.ones(4), rtol=0, atol=1e-5)
    torch.testing.assert_close(after.std * deviation[:, None, None], before.std, rtol=1e-4, atol=1e-6)
    with torch.no_grad():
        torch.testing.assert_close(vae.decode(after.mean).sample, decoded, rtol=0, atol=1e-5)


def test_a_few_steps_learn_and_a_resumed_run_ends_in_the_same_model(tmp_path: Path, capsys) -> None:
    config = tiny_config(tmp_path)

    def run(resume: str | None) -> tuple[AutoencoderKL, str]:
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
        train(config, resume)
        return AutoencoderKL.from_pretrained(config.save_dir), capsys.readouterr().out

    whole, told = run(None)
    losses = [float(line.split()[-1]) for line in told.splitlines() if line.startswith("step ")]
    assert len(losses) == 3 and losses[1] < losses[0] and losses[2] < losses[0]
    assert "2 held-out pictures, PSNR" in told
    pictures = torch.stack([torch.from_numpy(fake_picture(program.HELD_OUT - i, SIZE)[0]) for i in (1, 2, 3, 4)])
    latents = whole.encode(pictures.permute(0, 3, 1, 2) / 127.5 - 1).latent_dist.mean.detach()
    assert whole.config.scaling_factor == 1 and abs(latents.std((0, 2, 3)) - 1).max() < 0.02  # saved in fp16
    for path in Path(config.output_dir).glob("step-0000012"):
        path.rename(tmp_path / path.name)
    again, told = run("latest")
    assert told.startswith("step 12/12")
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], tensor, rtol=0, atol=1e-6, msg=name)


def test_the_learning_rate_falls_to_nothing_in_each_cycle() -> None:
    config = OmegaConf.create(
        {
            "solver": {"warmup_steps": 4},
            "phases": [{"steps": 10}, {"steps": 10}, {"steps": 6, "restart": True}, {"steps": 4}],
        }
    )
    factors = [learning_rate(step, config) for step in range(31)]
    assert factors[0] == pytest.approx(0.25) and factors[2] == pytest.approx(0.75 * (0.5 + 0.5 * np.cos(np.pi * 0.1)))
    assert factors[10] == pytest.approx(0.5) and factors[20] == 1 and factors[25] == pytest.approx(0.5)
    assert all(a > b for a, b in zip(factors[4:20], factors[5:20], strict=False)) and factors[19] < 0.01
    assert all(a > b for a, b in zip(factors[20:], factors[21:], strict=False)) and factors[30] == pytest.approx(0)
