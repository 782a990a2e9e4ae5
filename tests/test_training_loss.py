"""The training loss: random draws, targets, weights; and gradients against a plain loop over the samples."""

from pathlib import Path

import pytest
import torch
from tiny_training import NOISE, random_animator, random_inputs
from tolerance import rounding
from torch import Tensor

from musepose.training.config import TimestepBias, TrainConfig
from musepose.training.loss import DenoisingLoss, NoiseSample
from musepose.utils.errors import UserError

SHAPE = (1, 4, 8, 8)
MANY = list(range(3000))


def make_loss(frames_share: bool = False, **changes) -> DenoisingLoss:
    return DenoisingLoss(TrainConfig(noise_scheduler_kwargs=NOISE, **changes), frames_share)


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
    loss = make_loss(frames_share=motion, uncond_ratio=0.5)
    sample = loss.sample([3, 1, 4, 0], latents.shape[1:])
    sample = NoiseSample(sample.noise.double(), sample.timesteps, torch.tensor([False, True, False, True]))
    prediction = animator(loss.add_noise(latents, sample), sample.timesteps, **inputs, dropped=sample.dropped)
    loss.per_frame(prediction, latents, sample).mean().backward()
    ours = {name: p.grad.clone() for name, p in animator.named_parameters() if p.grad is not None}
    animator.zero_grad()

    bars, total = alpha_bars(), 0.0
    for i in range(len(latents)):
        token = inputs["token"][i : i + 1]
        if sample.dropped[i]:
            context = animator.denoising_unet.prepare(torch.zeros_like(token))
        else:
            reference = inputs["reference"][i : i + 1]
            features = animator.reference_unet(reference, 0, animator.reference_unet.prepare(token))
            context = animator.denoising_unet.prepare(token, features)
        bar = bars[sample.timesteps[i]][:, None, None, None]
        noise, clean = sample.noise[i], latents[i]
        noisy = bar.sqrt() * clean + (1 - bar).sqrt() * noise
        poses = animator.pose_guider(inputs["poses"][i])
        out = animator.denoising_unet(noisy, sample.timesteps[i], context, poses, frames=frames)
        target = bar.sqrt() * noise - (1 - bar).sqrt() * clean  # Salimans & Ho 2022
        snr = bar / (1 - bar)
        weight = snr.clamp(max=5.0) / (snr + 1)  # Hang et al. 2023, for v
        total = total + (weight * (out - target) ** 2).mean() / len(latents)
    total.backward()
    naive = {name: p.grad for name, p in animator.named_parameters() if p.grad is not None}

    assert ours.keys() == naive.keys()
    for name, gradient in naive.items():
        # Float32 is the schedule, a cumulative product of up to 1000 numbers, and the loss: relative errors of targets,
        # weights and gradients of predictions, of which a parameter's gradient is a sum.
        bound = rounding(1000, gradient.abs().max().item())
        torch.testing.assert_close(ours[name], gradient, rtol=0, atol=bound, msg=name)


def test_a_sample_draws_the_same_wherever_it_stands() -> None:
    loss = make_loss()
    alone, together = loss.sample([8], SHAPE), loss.sample([7, 8, 9], SHAPE)
    assert torch.equal(alone.noise[0], together.noise[1]) and alone.timesteps[0] == together.timesteps[1]
    assert not torch.equal(together.noise[0], together.noise[1])


def test_unconditional_samples_are_chosen_one_by_one() -> None:
    dropped = make_loss(uncond_ratio=0.1).sample(MANY, (1, 1, 1, 1)).dropped
    assert abs(dropped.float().mean() - 0.1) < 0.025  # over four standard deviations
    pairs = dropped.view(-1, 2).sum(1)
    assert (pairs == 1).sum() > 10 * (pairs == 2).sum()  # not whole batches


@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_none_or_all_samples_are_unconditional(ratio: float) -> None:
    assert (make_loss(uncond_ratio=ratio).sample(list(range(50)), (1, 1, 1, 1)).dropped == bool(ratio)).all()


def test_the_noise_offset_is_one_number_a_clip_and_channel() -> None:
    plain, offset = (make_loss(noise_offset=value).sample(MANY[:400], (2, 3, 4, 4)).noise for value in (0.0, 0.5))
    added = offset - plain
    torch.testing.assert_close(
        added, added[:, :1, :, :1, :1].expand_as(added), rtol=0, atol=rounding(2, 5)
    )  # samples are below 5
    numbers = added[:, 0, :, 0, 0]
    assert abs(numbers.std() - 0.5) < 0.05 and abs(numbers.mean()) < 0.06
    assert (numbers[:, 0] != numbers[:, 1]).all()


def test_frames_share_the_given_portion_of_the_noise() -> None:
    for portion in (0.25, 1.0):
        noise = make_loss(shared_noise=portion).sample(MANY[:300], (2, 2, 4, 4)).noise
        first, second = noise[:, 0], noise[:, 1]
        assert abs((first * second).mean() - portion) < 0.05
        assert abs(noise.std() - 1) < 0.03
    assert torch.equal(first, second)
    assert not torch.equal(noise[0], noise[1])  # of one clip, not of all


def test_timesteps_cover_the_schedule_and_the_bias_shifts_its_portion() -> None:
    even = make_loss().sample(MANY, SHAPE).timesteps
    assert even.min() < 5 and even.max() > 994 and abs((even >= 600).float().mean() - 0.4) < 0.04
    biased = make_loss(timestep_bias=TimestepBias(portion=0.5, first=600)).sample(MANY, SHAPE).timesteps
    assert biased.min() < 10 and biased.max() > 994 and abs((biased >= 600).float().mean() - 0.7) < 0.04
    late = make_loss(timestep_bias=TimestepBias(portion=1.0, first=600)).sample(MANY, SHAPE).timesteps
    assert late.min() >= 600 and late.max() <= 999 and late.min() < 605


def test_the_frames_of_a_clip_share_a_timestep_and_targets_do_not() -> None:
    clip, targets = (make_loss(frames_share=share).sample([0, 1, 2], (6, 4, 8, 8)).timesteps for share in (True, False))
    assert (clip == clip[:, :1]).all() and len(clip[:, 0].unique()) > 1
    assert (targets != targets[:, :1]).any()


def test_weights_of_both_predictions() -> None:
    timesteps = torch.tensor([[0, 300, 700, 999]])
    bars = alpha_bars()[timesteps]
    tolerance = dict(rtol=rounding(2, 1 / 0.00085), atol=0)  # the SNR divides by 1 - bar, which begins as beta does
    snr = bars / (1 - bars)
    torch.testing.assert_close(
        make_loss().min_snr_weights(timesteps).double(), snr.clamp(max=5) / (snr + 1), **tolerance
    )
    noise = DenoisingLoss(TrainConfig(noise_scheduler_kwargs=NOISE | {"prediction_type": "epsilon"}), False)
    expected = (5 / snr).clamp(max=1)  # at the last timestep, whose SNR is 0, min(SNR, 5) / SNR tends to 1
    torch.testing.assert_close(noise.min_snr_weights(timesteps).double(), expected, **tolerance)
    assert (make_loss(snr_gamma=None).min_snr_weights(timesteps) == 1).all()


def test_noise_prediction_aims_at_the_noise() -> None:
    loss = DenoisingLoss(
        TrainConfig(noise_scheduler_kwargs=NOISE | {"prediction_type": "epsilon"}, snr_gamma=None), False
    )
    sample = loss.sample([1, 2], (2, 4, 8, 8))
    assert not loss.per_frame(sample.noise, torch.randn(2, 2, 4, 8, 8), sample).any()


@pytest.mark.parametrize("wrong", [{"betastart": 1}, {"beta_schedule": "steep"}])
def test_an_unknown_noise_schedule(wrong: dict) -> None:
    with pytest.raises(UserError, match="noise_scheduler_kwargs"):
        DenoisingLoss(TrainConfig(noise_scheduler_kwargs=NOISE | wrong), False)


def test_the_shipped_configs_hold_the_published_schedule() -> None:
    from musepose.training.config import read_config

    for path in sorted(Path(__file__).parents[1].glob("configs/**/train_stage_*.yaml")):
        assert read_config(path).noise_scheduler_kwargs == NOISE, path
