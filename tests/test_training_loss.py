"""What is learnt: draws, targets and weights; and all gradients against a plain loop over the samples."""

from pathlib import Path

import pytest
import torch
from tiny_training import NOISE, random_animator, random_inputs
from tolerance import rounding
from torch import Tensor

from musepose.training.config import TimestepBias, TrainConfig
from musepose.training.loss import Draws, Objective
from musepose.utils.errors import UserError

SHAPE = (1, 4, 8, 8)
MANY = list(range(3000))


def objective(frames_share: bool = False, **changes) -> Objective:
    return Objective(TrainConfig(noise_scheduler_kwargs=NOISE, **changes), frames_share)


def alpha_bars() -> Tensor:
    """Scaled-linear betas, then Lin et al. 2023, algorithm 1: the last alpha bar becomes 0. float64."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    roots = torch.cumprod(1 - betas, 0).sqrt()
    return ((roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])) ** 2


@pytest.mark.parametrize(("frames", "motion"), [(2, False), (3, True)])
def test_gradients_equal_those_of_a_loop_over_the_samples(frames: int, motion: bool) -> None:
    animator = random_animator(motion).double()
    inputs = random_inputs(4, frames, torch.float64)
    latents = inputs.pop("latents")
    aim = objective(frames_share=motion, uncond_ratio=0.5)
    draws = aim.draw([3, 1, 4, 0], latents.shape[1:])
    draws = Draws(draws.noise.double(), draws.timesteps, torch.tensor([False, True, False, True]))
    prediction = animator(aim.noisy(latents, draws), draws.timesteps, **inputs, dropped=draws.dropped)
    aim.losses(prediction, latents, draws).mean().backward()
    ours = {name: p.grad.clone() for name, p in animator.named_parameters() if p.grad is not None}
    animator.zero_grad()

    bars, total = alpha_bars(), 0.0
    for i in range(len(latents)):
        token = inputs["token"][i : i + 1]
        if draws.dropped[i]:
            context = animator.denoising_unet.prepare(torch.zeros_like(token))
        else:
            reference = inputs["reference"][i : i + 1]
            features = animator.reference_unet(reference, 0, animator.reference_unet.prepare(token))
            context = animator.denoising_unet.prepare(token, features)
        bar = bars[draws.timesteps[i]][:, None, None, None]
        noise, clean = draws.noise[i], latents[i]
        noisy = bar.sqrt() * clean + (1 - bar).sqrt() * noise
        poses = animator.pose_guider(inputs["poses"][i])
        out = animator.denoising_unet(noisy, draws.timesteps[i], context, poses, frames=frames)
        target = bar.sqrt() * noise - (1 - bar).sqrt() * clean  # Salimans & Ho 2022
        snr = bar / (1 - bar)
        weight = snr.clamp(max=5.0) / (snr + 1)  # Hang et al. 2023, for v
        total = total + (weight * (out - target) ** 2).mean() / len(latents)
    total.backward()
    naive = {name: p.grad for name, p in animator.named_parameters() if p.grad is not None}

    assert ours.keys() == naive.keys()
    for name, gradient in naive.items():
        # The schedule and the loss are float32, all else is float64.
        torch.testing.assert_close(ours[name], gradient, rtol=2e-5, atol=2e-5 * gradient.abs().max().item(), msg=name)


def test_a_sample_draws_the_same_wherever_it_stands() -> None:
    aim = objective()
    alone, together = aim.draw([8], SHAPE), aim.draw([7, 8, 9], SHAPE)
    assert torch.equal(alone.noise[0], together.noise[1]) and alone.timesteps[0] == together.timesteps[1]
    assert not torch.equal(together.noise[0], together.noise[1])


def test_unconditional_samples_are_chosen_one_by_one() -> None:
    dropped = objective(uncond_ratio=0.1).draw(MANY, (1, 1, 1, 1)).dropped
    assert abs(dropped.float().mean() - 0.1) < 0.025  # over four standard deviations
    pairs = dropped.view(-1, 2).sum(1)
    assert (pairs == 1).sum() > 10 * (pairs == 2).sum()  # not whole batches


@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_none_or_all_samples_are_unconditional(ratio: float) -> None:
    assert (objective(uncond_ratio=ratio).draw(list(range(50)), (1, 1, 1, 1)).dropped == bool(ratio)).all()


def test_the_noise_offset_is_one_number_a_clip_and_channel() -> None:
    plain, offset = (objective(noise_offset=value).draw(MANY[:400], (2, 3, 4, 4)).noise for value in (0.0, 0.5))
    added = offset - plain
    torch.testing.assert_close(
        added, added[:, :1, :, :1, :1].expand_as(added), rtol=0, atol=rounding(2, 5)
    )  # draws are below 5
    numbers = added[:, 0, :, 0, 0]
    assert abs(numbers.std() - 0.5) < 0.05 and abs(numbers.mean()) < 0.06
    assert (numbers[:, 0] != numbers[:, 1]).all()


def test_frames_share_the_portion_of_the_noise_that_is_wanted() -> None:
    for portion in (0.25, 1.0):
        noise = objective(shared_noise=portion).draw(MANY[:300], (2, 2, 4, 4)).noise
        first, second = noise[:, 0], noise[:, 1]
        assert abs((first * second).mean() - portion) < 0.05
        assert abs(noise.std() - 1) < 0.03
    assert torch.equal(first, second)
    assert not torch.equal(noise[0], noise[1])  # of one clip, not of all


def test_timesteps_cover_the_schedule_and_the_bias_shifts_its_portion() -> None:
    even = objective().draw(MANY, SHAPE).timesteps
    assert even.min() < 5 and even.max() > 994 and abs((even >= 600).float().mean() - 0.4) < 0.04
    biased = objective(timestep_bias=TimestepBias(portion=0.5, first=600)).draw(MANY, SHAPE).timesteps
    assert biased.min() < 10 and biased.max() > 994 and abs((biased >= 600).float().mean() - 0.7) < 0.04
    late = objective(timestep_bias=TimestepBias(portion=1.0, first=600)).draw(MANY, SHAPE).timesteps
    assert late.min() >= 600 and late.max() <= 999 and late.min() < 605


def test_the_frames_of_a_clip_share_a_timestep_and_targets_do_not() -> None:
    clip, targets = (objective(frames_share=share).draw([0, 1, 2], (6, 4, 8, 8)).timesteps for share in (True, False))
    assert (clip == clip[:, :1]).all() and len(clip[:, 0].unique()) > 1
    assert (targets != targets[:, :1]).any()


def test_weights_of_both_predictions() -> None:
    timesteps = torch.tensor([[0, 300, 700, 999]])
    bars = alpha_bars()[timesteps]
    tolerance = dict(rtol=rounding(2, 1 / 0.00085), atol=0)  # the SNR divides by 1 - bar, which begins as beta does
    snr = bars / (1 - bars)
    torch.testing.assert_close(objective().weights(timesteps).double(), snr.clamp(max=5) / (snr + 1), **tolerance)
    noise = Objective(TrainConfig(noise_scheduler_kwargs=NOISE | {"prediction_type": "epsilon"}), False)
    expected = (5 / snr).clamp(max=1)  # at the last timestep, whose SNR is 0, min(SNR, 5) / SNR tends to 1
    torch.testing.assert_close(noise.weights(timesteps).double(), expected, **tolerance)
    assert (objective(snr_gamma=None).weights(timesteps) == 1).all()


def test_noise_prediction_aims_at_the_noise() -> None:
    aim = Objective(TrainConfig(noise_scheduler_kwargs=NOISE | {"prediction_type": "epsilon"}, snr_gamma=None), False)
    draws = aim.draw([1, 2], (2, 4, 8, 8))
    assert not aim.losses(draws.noise, torch.randn(2, 2, 4, 8, 8), draws).any()


@pytest.mark.parametrize("wrong", [{"betastart": 1}, {"beta_schedule": "steep"}])
def test_a_noise_schedule_that_there_is_not(wrong: dict) -> None:
    with pytest.raises(UserError, match="noise_scheduler_kwargs"):
        Objective(TrainConfig(noise_scheduler_kwargs=NOISE | wrong), False)


def test_the_shipped_configs_hold_the_published_schedule() -> None:
    from musepose.training.config import read_config

    for path in sorted(Path(__file__).parents[1].glob("configs/**/train_stage_*.yaml")):
        assert read_config(path).noise_scheduler_kwargs == NOISE, path
