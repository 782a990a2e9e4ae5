"""The pipeline as a whole: streaming, padding, sizes, seeds, saving."""

import subprocess
import sys
import tempfile
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from PIL import Image
from tolerance import network_rounding
from torch import nn

from musepose.pipelines.options import SamplingOptions
from musepose.pipelines.pose2video import Pose2VideoPipeline
from musepose.pipelines.pose_frames import PoseFrames
from musepose.utils.errors import UserError
from random_models.tiny_weights import ROOT, tiny_models, write_published_layout

SHORT = dict(width=32, height=40, num_inference_steps=2, context_frames=4, context_overlap=1)


@cache
def pipeline() -> Pose2VideoPipeline:
    scheduler = DDIMScheduler(
        prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing", clip_sample=False
    )
    return Pose2VideoPipeline(**tiny_models(), scheduler=scheduler)


def reference() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 44, 3), np.uint8))


def poses(count: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 255, (count, 50, 30, 3), np.uint8)


@cache
def levels() -> float:
    """Largest difference of uint8 images from 255 times those decoded in larger batches: 0.5 plus rounding."""
    latents = torch.randn(2, 4, 5, 4, generator=torch.Generator().manual_seed(0))
    return 0.5 + 255 * network_rounding(lambda: pipeline().decode(latents), pipeline().vae)


@cache
def latents_rounding(frames: int) -> float:
    """Bound for the latents of a SHORT sampling."""
    made = pipeline()
    return sampling_rounding(made, frames, "latent", made.reference_unet, made.denoising_unet)


def pictures_rounding(frames: int) -> float:
    """Bound for its decoded pictures, from 0 to 1: also the autoencoder errs, in the reference and in each picture."""
    made = pipeline()
    return sampling_rounding(made, frames, "pt", made.reference_unet, made.denoising_unet, made.vae)


def sampling_rounding(made: Pose2VideoPipeline, frames: int, output_type: str, *networks: nn.Module) -> float:
    arguments = {"output_type": output_type, **SHORT}
    return network_rounding(lambda: made(reference(), poses(frames), **arguments).frames, *networks)


def test_stream_is_the_call_on_padded_poses_cut_to_length():
    """Five frames, windows of 4 with an overlap of 1: two more frames are sampled, with the last pose, and dropped."""
    frames = np.stack(list(pipeline().stream(reference(), poses(5), num_frames=5, **SHORT)))
    assert frames.shape == (5, 40, 32, 3)
    assert frames.dtype == np.uint8
    padded = np.concatenate([poses(5), np.repeat(poses(5)[-1:], 2, axis=0)])
    whole = pipeline()(reference(), padded, output_type="np", **SHORT).frames[0]
    assert np.abs(frames - 255 * whole[:5]).max() <= levels()


def test_progress_is_reported():
    calls = []
    list(pipeline().stream(reference(), poses(3), num_frames=3, progress=lambda *step: calls.append(step), **SHORT))
    assert calls == [("denoising", 1, 2), ("denoising", 2, 2), *(("decoding", i, 3) for i in (1, 2, 3))]


@pytest.mark.parametrize(("width", "height"), [(24, 24), (24, 56), (72, 40)])
def test_any_multiple_of_eight(width, height):
    video = pipeline()(reference(), poses(2), output_type="pt", **{**SHORT, "width": width, "height": height}).frames
    assert video.shape == (1, 2, 3, height, width)
    assert video.isfinite().all()


def test_the_seed_decides_and_nothing_else_does():
    first, other, again = (
        pipeline()(reference(), poses(3), seed=s, output_type="latent", **SHORT).frames for s in (1, 2, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_shared_noise_is_the_same_in_all_frames_and_as_strong():
    pipe = pipeline()
    options = SamplingOptions(width=64, height=64, seed=1, context_frames=40)
    alone, half, whole = (pipe.initial_noise(40, replace(options, shared_noise=shared)) for shared in (0.0, 0.5, 1.0))
    assert torch.equal(alone, pipe.initial_noise(40, options))
    assert torch.equal(whole[0], whole[39])
    for noise, portion in ((alone, 0.0), (half, 0.5), (whole, 1.0)):
        assert abs((noise[:-1] * noise[1:]).mean() - portion) < 0.12  # the shared part is only 256 numbers
        assert abs(noise.std() - 1) < 0.12


def test_shared_noise_and_one_pose_give_one_picture():
    pose = poses(1)[0]
    settings = SHORT | {"shared_noise": 1.0, "guidance_scale": 1.0, "num_inference_steps": 1}
    frames = pipeline()(reference(), [pose, pose, pose], output_type="latent", **settings).frames
    apart = pipeline()(reference(), [pose] * 3, output_type="latent", **settings | {"shared_noise": 0.0}).frames
    changes, before = (clip.diff(dim=2).abs().mean() for clip in (frames, apart))
    assert changes < 0.3 * before  # not none: the motion modules tell frames apart by their positions


def test_smoothed_latents_change_less_from_frame_to_frame():
    changes = {"num_inference_steps": 10, "output_type": "latent", "context_frames": 5}
    plain, smooth = (
        pipeline()(reference(), poses(5), smooth_latents=weight, **{**SHORT, **changes}).frames.diff(dim=2).abs().mean()
        for weight in (0.0, 0.25)
    )
    assert smooth < 0.5 * plain


def test_guidance_of_one_is_no_guidance():
    """Guidance just above 1 computes both CFG branches; its limit is the conditional branch alone."""
    alone = pipeline()(reference(), poses(3), guidance_scale=1.0, output_type="latent", **SHORT).frames
    both = pipeline()(reference(), poses(3), guidance_scale=1 + 1e-6, output_type="latent", **SHORT).frames
    # Besides rounding, 1e-6 of the branches' difference, which is below 10, in each of the two steps.
    assert (alone - both).abs().max() < latents_rounding(3) + 2 * 1e-5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 30}, "30 x 40"),
        ({"height": 0}, "32 x 0"),
        ({"num_inference_steps": 0}, "0 steps"),
        ({"context_overlap": 4}, "overlap"),
        ({"context_frames": 129}, "128 positions"),
    ],
)
def test_arguments_that_do_not_fit(change, message):
    with pytest.raises(ValueError, match=message):
        pipeline()(reference(), poses(2), **{**SHORT, **change})


def test_no_pose_frame():
    with pytest.raises(ValueError, match="no pose frame"):
        PoseFrames([], 8, 8)


def test_missing_temporary_folder(monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    with pytest.raises(UserError, match="temporary folder /nowhere .*free some space, or set TMPDIR"):
        PoseFrames(poses(1), 8, 8)


@pytest.mark.skipif(sys.platform == "win32", reason="needs the resource module")
def test_full_temporary_folder_is_named():
    """Its files may hold 3000 bytes here; one frame has 768."""
    code = """
import resource, signal, tempfile, numpy, musepose.pipelines.pose_frames as pose_frames
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
try:
    noise = numpy.random.default_rng(0).integers(0, 255, (5, 16, 16, 3), numpy.uint8)  # not to be compressed
    pose_frames.PoseFrames(noise, 16, 16)
except pose_frames.UserError as error:
    print(tempfile.gettempdir() in str(error) and "free some space" in str(error))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.stdout == "True\n", done.stderr


def test_pose_frames_are_read_back_and_repeat_the_last():
    pictures = np.random.default_rng(2).integers(0, 255, (3, 16, 8, 3), np.uint8)
    read = PoseFrames(pictures, width=8, height=16).read(range(1, 5))
    expected = torch.from_numpy(pictures[[1, 2, 2, 2]]).permute(0, 3, 1, 2)
    assert torch.equal(read, expected)


def test_pose_frames_outside_the_selection():
    """They leave gaps in the file; the last frame is always stored."""
    pictures = np.random.default_rng(3).integers(0, 255, (6, 16, 8, 3), np.uint8)
    frames = PoseFrames(pictures, width=8, height=16, wanted={1, 2})
    assert frames.length == 6
    for window, expected in ((range(1, 3), [1, 2]), (range(5, 8), [5, 5, 5])):
        assert torch.equal(frames.read(window), torch.from_numpy(pictures[expected]).permute(0, 3, 1, 2))
    with pytest.raises(ValueError, match="frame 3 was not wanted"):
        frames.read(range(2, 4))


def test_save_pretrained_and_back(tmp_path):
    pipeline().save_pretrained(tmp_path)
    again = Pose2VideoPipeline.from_pretrained(tmp_path)
    arguments = {"output_type": "latent", **SHORT}
    expected = pipeline()(reference(), poses(3), **arguments).frames
    assert torch.equal(again(reference(), poses(3), **arguments).frames, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_from_the_published_layout(tmp_path, dtype):
    paths = write_published_layout(tmp_path)
    whole = Pose2VideoPipeline.from_published(paths)
    half = Pose2VideoPipeline.from_published(paths, dtype=dtype)
    latents = [p(reference(), poses(3), output_type="latent", **SHORT).frames for p in (whole, half)]
    assert latents[1].dtype == dtype
    noise = [p.initial_noise(3, SamplingOptions(width=32, height=40)) for p in (whole, half)]
    assert noise[1].dtype == dtype  # drawn in half precision: may be other numbers than in float32
    assert latents[1].isfinite().all()


@pytest.mark.requires_cuda
def test_a_gpu_gives_what_the_cpu_gives():
    """In float32 without TF32. cuDNN may take Winograd convolutions, which lose about a digit."""
    from benchmarks.gpu_check.accuracy import exact_float32

    expected = pipeline()(reference(), poses(5), output_type="latent", **SHORT).frames
    gpu = Pose2VideoPipeline(**tiny_models(), scheduler=pipeline().scheduler).to("cuda")
    with exact_float32():
        ours = gpu(reference(), poses(5), output_type="latent", **SHORT).frames.cpu()
    assert (ours - expected).abs().max() < 10 * latents_rounding(5)


def test_flush_denoises_no_padded_frame():
    """Five frames in windows of four: the second window is moved back to end with the video, from the same noise."""
    made = pipeline()
    flush = np.stack(list(made.stream(reference(), poses(5), num_frames=5, tail="flush", **SHORT)))
    seen = []
    hook = made.denoising_unet.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0][:4].clone()))
    try:
        latents = made(reference(), poses(5), tail="flush", output_type="latent", **SHORT).frames[0]
    finally:
        hook.remove()
    noise = made.initial_noise(5, SamplingOptions(**SHORT))  # the padded length's, seven frames
    assert torch.equal(seen[0], noise[:4]) and torch.equal(seen[1], noise[1:5])
    decoded = made.decode(latents.transpose(0, 1)).permute(0, 2, 3, 1).numpy()
    assert np.abs(flush - decoded * 255).max() <= levels()
    padded = np.stack(list(made.stream(reference(), poses(5), num_frames=5, **SHORT)))
    assert not np.array_equal(flush, padded)


def test_flush_of_a_clip_shorter_than_a_window_is_one_window_of_its_length():
    made, seen = pipeline(), []
    hook = made.denoising_unet.register_forward_pre_hook(lambda _, arguments: seen.append(len(arguments[0])))
    try:
        frames = list(made.stream(reference(), poses(3), num_frames=3, tail="flush", **SHORT))
    finally:
        hook.remove()
    assert len(frames) == 3
    assert seen == [6, 6]


def test_flush_changes_nothing_where_nothing_is_padded():
    pad, flush = (
        np.stack(list(pipeline().stream(reference(), poses(7), num_frames=7, tail=tail, **SHORT)))
        for tail in ("pad", "flush")
    )
    np.testing.assert_array_equal(pad, flush)


def test_pose_features_are_kept_or_recomputed():
    """Four windows, two of them overlapping by three frames; kept features are computed once, not in every step."""
    made, calls = pipeline(), []
    hook = made.pose_guider.register_forward_pre_hook(lambda *_: calls.append(1))
    arguments = {**SHORT, "context_overlap": 3, "output_type": "latent"}
    try:
        kept = made(reference(), poses(7), **arguments).frames
        assert len(calls) == 4
        plan = made.offloader.plan
        made.offloader.plan = replace(plan, keep_pose_features=0)
        anew = made(reference(), poses(7), **arguments).frames
        assert len(calls) == 4 + 8
    finally:
        hook.remove()
        made.offloader.plan = plan
    assert torch.equal(kept, anew)
