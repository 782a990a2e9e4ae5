"""diffusers' conventions: image and output types, schedulers, callbacks, generators, replaced components."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, UniPCMultistepScheduler
from PIL import Image
from test_golden_pipeline import SCHEDULER
from test_pipeline import SHORT, pipeline, poses, reference
from tolerance import rounding

from musepose.pipelines.options import SamplingOptions
from musepose.pipelines.pose2video import Pose2VideoPipeline
from musepose.pipelines.schedulers import SCHEDULERS, make_scheduler, set_timesteps
from musepose.utils.errors import UserError
from random_models.tiny_weights import tiny_models

LATENT = {**SHORT, "output_type": "latent"}


def own_pipeline(scheduler=None) -> Pose2VideoPipeline:
    return Pose2VideoPipeline(**tiny_models(), scheduler=scheduler or make_scheduler(SCHEDULER))


def test_output_types():
    made = {kind: pipeline()(reference(), poses(3), output_type=kind, **SHORT).frames for kind in ("pil", "np", "pt")}
    (pictures,) = made["pil"]
    assert [picture.size for picture in pictures] == [(32, 40)] * 3
    assert made["np"].shape == (1, 3, 40, 32, 3) and made["np"].dtype == np.float32
    assert made["pt"].shape == (1, 3, 3, 40, 32) and made["pt"].dtype == torch.float32
    np.testing.assert_array_equal(made["pt"].permute(0, 1, 3, 4, 2).numpy(), made["np"])
    assert np.abs(np.stack(pictures) - 255 * made["np"][0]).max() <= 0.5 + rounding(3, 255)  # rounding to bytes
    latents = pipeline()(reference(), poses(3), **LATENT).frames
    assert latents.shape == (1, 4, 3, 5, 4)
    (again,) = pipeline()(reference(), poses(3), return_dict=False, **LATENT)
    assert torch.equal(latents, again)
    with pytest.raises(ValueError, match="output_type is 'gif'"):
        pipeline()(reference(), poses(3), output_type="gif", **SHORT)


def test_pictures_may_be_pil_arrays_or_tensors():
    expected = pipeline()(reference(), poses(3), **LATENT).frames
    tensors = torch.from_numpy(poses(3)).permute(0, 3, 1, 2)
    for image, pictures in (
        (np.asarray(reference()), [Image.fromarray(pose) for pose in poses(3)]),
        (torch.from_numpy(np.array(reference())).permute(2, 0, 1), tensors),
        (torch.from_numpy(np.array(reference())).permute(2, 0, 1) / 255, tensors / 255),
        (reference(), [Image.fromarray(pose).convert("RGBA") for pose in poses(3)]),
    ):
        assert torch.equal(pipeline()(image, pictures, **LATENT).frames, expected)


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((50, 30, 4), np.uint8),
        np.zeros((50, 30), np.uint8),
        np.zeros((50, 30, 3), np.float32),
        torch.zeros(4, 50, 30),
        torch.zeros(50, 30, 3),
        torch.full((3, 50, 30), 2.0),
        torch.zeros(3, 50, 30, dtype=torch.int64),
    ],
    ids=["rgba", "grey", "float array", "rgba tensor", "channels last", "out of range", "int64"],
)
def test_pictures_of_another_form_are_refused(bad):
    with pytest.raises(ValueError, match="a picture is a"):
        pipeline()(reference(), [bad], **LATENT)
    with pytest.raises(ValueError, match="a picture is a"):
        pipeline()(bad, poses(1), **LATENT)


def test_transparent_reference_lies_on_white_and_transparent_poses_on_black():
    clear = Image.new("RGBA", (44, 60), (200, 0, 0, 0))
    assert torch.equal(
        pipeline()(clear, [clear], **LATENT).frames,
        pipeline()(Image.new("RGB", (44, 60), "white"), [Image.new("RGB", (44, 60))], **LATENT).frames,
    )


def test_options_may_be_one_object_with_changes():
    expected = pipeline()(reference(), poses(3), seed=3, **LATENT).frames
    options = SamplingOptions(**SHORT)
    assert torch.equal(pipeline()(reference(), poses(3), options, seed=3, output_type="latent").frames, expected)
    numbers = replace(options, width=np.int64(32), seed=np.int32(3), guidance_scale=np.float32(3.5))
    assert torch.equal(pipeline()(reference(), poses(3), numbers, output_type="latent").frames, expected)
    with pytest.raises(TypeError, match="stepps"):
        pipeline()(reference(), poses(3), options, stepps=3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tail": "padd"}, "tail is 'padd'"),
        ({"width": 32.0}, "width is 32.0: an integer"),
        ({"seed": True}, "seed is True"),
        ({"guidance_scale": float("nan")}, "guidance_scale is nan"),
        ({"guidance_scale": "3.5"}, "guidance_scale is '3.5'"),
        ({"shared_noise": 1.5}, "shared_noise is 1.5"),
        ({"num_inference_steps": 2000}, "2000 steps: at most 1000"),
        ({"num_frames": 0}, "num_frames is 0"),
    ],
)
def test_options_that_cannot_be(changes, message):
    for sample in (pipeline(), pipeline().stream):
        with pytest.raises(ValueError, match=message):
            list(sample(reference(), poses(2), **{**SHORT, **changes}))


def test_a_generator_stands_for_the_seed():
    expected = pipeline()(reference(), poses(3), seed=5, **LATENT).frames
    generator = torch.Generator("cpu").manual_seed(5)
    assert torch.equal(pipeline()(reference(), poses(3), generator=generator, **LATENT).frames, expected)
    assert not torch.equal(pipeline()(reference(), poses(3), generator=generator, **LATENT).frames, expected)


def test_callback_sees_and_changes_the_latents():
    seen = []

    def callback(pipe, step, timestep, tensors):
        seen.append((pipe is pipeline(), step, int(timestep), tensors["latents"].shape))
        assert tensors["sample"].shape == tensors["prediction"].shape == tensors["latents"].shape
        return {"latents": torch.zeros_like(tensors["latents"])} if step == 1 else None

    latents = pipeline()(reference(), poses(4), callback_on_step_end=callback, **LATENT).frames
    assert seen == [(True, 0, 999, (4, 4, 5, 4)), (True, 1, 499, (4, 4, 5, 4))]
    assert not latents.any()


def test_call_and_stream_pad_alike():
    """Five frames in windows of four: by default both pad, and cut off what they padded."""
    streamed = np.stack(list(pipeline().stream(reference(), poses(5), **SHORT)))
    (called,) = pipeline()(reference(), poses(5), **SHORT).frames
    assert len(called) == len(streamed) == 5
    assert np.abs(np.stack(called).astype(int) - streamed).max() <= 1  # decoded in other batches


def test_a_replaced_component_is_the_one_used():
    made = own_pipeline()
    before = made(reference(), poses(3), **LATENT).frames
    other = tiny_models("pose_guider")["pose_guider"]
    torch.nn.init.ones_(other.conv_out.bias)
    made.pose_guider = other
    assert made.models()["pose_guider"] is other
    assert not torch.allclose(made(reference(), poses(3), **LATENT).frames, before)
    made.scheduler = UniPCMultistepScheduler.from_config(made.scheduler.config)
    assert made(reference(), poses(3), **LATENT).frames.isfinite().all()


class PerfectUNet(torch.nn.Module):
    """Stands for the denoising UNet: knows that every latent comes from a Gaussian of mean 2 and deviation 1/2.

    Its v-prediction is the exact one: with signal a and noise b, a² + b² = 1, the noise of x is b (x - 2 a) / s²,
    s² = a²/4 + b², and v = (a x - x0) / b with x0 = (x - b noise) / a; written so that a = 0 is no exception.
    """

    def __init__(self, unet, schedule: DDIMScheduler):
        super().__init__()
        self.config, self.dtype, self.prepare = unet.config, unet.dtype, unet.prepare
        self.alphas = schedule.alphas_cumprod

    def forward(self, sample, timestep, *_, **__):
        signal, noise = self.alphas[int(timestep)].sqrt(), (1 - self.alphas[int(timestep)]).sqrt()
        whitened = (sample - 2 * signal) / (signal**2 / 4 + noise**2)
        return signal * noise * whitened - noise * (2 + signal / 4 * whitened)


def mean_error(name: str, steps: int, **changes) -> float:
    """How far a solver ends from where the probability flow (Song et al. 2021) carries noise z: 2 + z / 2."""
    made = own_pipeline(make_scheduler(SCHEDULER, name))
    made.denoising_unet = PerfectUNet(made.denoising_unet, DDIMScheduler(**SCHEDULER))
    arguments = {**LATENT, "num_inference_steps": steps, "guidance_scale": 1.0, **changes}
    latents = made(reference(), poses(3), **arguments).frames[0]
    noise = own_pipeline().initial_noise(3, SamplingOptions(**SHORT))[:3].transpose(0, 1)
    return (latents - (2 + noise / 2)).abs().mean().item()


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_solves_the_same_equation(name):
    """Five times the steps leave a fifth of a first-order solver's error: 0.06 of the 0.5 that z / 2 deviates by."""
    few, many = mean_error(name, 20), mean_error(name, 100)
    assert few < 0.1 and many < 0.4 * few


@pytest.mark.parametrize("name", ["dpm++", "euler"])
def test_denser_timesteps_solve_the_same_equation(name):
    few, many = (mean_error(name, steps, spacing=1.6) for steps in (20, 100))
    assert few < 0.1 and many < 0.4 * few


def test_timesteps_denser_at_both_ends():
    made = own_pipeline(make_scheduler(SCHEDULER, "dpm++"))
    set_timesteps(made.scheduler, 4, 2.0)
    assert made.scheduler.timesteps.tolist() == [999, 732, 385, 109]  # 1000 (1 - (i/4)^1.4)², rounded, less one
    set_timesteps(made.scheduler, 4)
    assert made.scheduler.timesteps.tolist() == [999, 749, 499, 249]


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("ddim", {"spacing": 1.5}, "spacing is 1.5: DDIMScheduler has its own timesteps"),
        ("dpm++", {"spacing": 3.0, "num_inference_steps": 50}, "too much for 50 different timesteps"),
        ("dpm++", {"spacing": 0.5}, "spacing is 0.5: at least 1"),
    ],
)
def test_timesteps_that_cannot_be(name, changes, message):
    with pytest.raises(ValueError, match=message):
        own_pipeline(make_scheduler(SCHEDULER, name))(reference(), poses(2), **{**LATENT, **changes})


def test_solvers_keep_their_history_from_step_to_step():
    """Second order beats first order at equal steps; without a history it would be first order."""
    assert max(mean_error("dpm++", 20), mean_error("unipc", 20)) < 0.8 * mean_error("euler", 20)


def test_mistakes_in_the_noise_schedule():
    for change in ({"beta_schedule": "sqrt_linear"}, {"prediction_type": "v-prediction"}, {"beta_begin": 0.1}):
        with pytest.raises(UserError, match="noise_scheduler_kwargs: .*: compare it with configs/inference_v2.yaml"):
            make_scheduler({**SCHEDULER, **change})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_end_the_sampling(value):
    made = own_pipeline()
    torch.nn.init.constant_(made.denoising_unet.conv_out.bias, value)
    with pytest.raises(UserError, match="not finite after step 1: try --dtype bf16 or fp32, check the weights"):
        made(reference(), poses(3), **LATENT)


def test_pictures_that_are_not_finite_end_the_decoding():
    made = own_pipeline()
    torch.nn.init.constant_(made.vae.decoder.conv_out.bias, float("nan"))
    with pytest.raises(UserError, match="not finite after decoding"):
        list(made.stream(reference(), poses(3), **SHORT))
