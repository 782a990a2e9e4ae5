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

from musepose.pipelines.context_windows import windows
from musepose.pipelines.denoising import frames_of, parts_of_step
from musepose.pipelines.pose2video import Pose2VideoPipeline
from musepose.pipelines.pose_frames import PoseFrames
from musepose.utils.distributed import Processes
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


def test_stream_is_the_padded_call_cut_to_length():
    """Five frames, windows of 4 with an overlap of 1: two more frames are sampled, with the last pose, and dropped."""
    frames = np.stack(list(pipeline().stream(reference(), poses(5), num_frames=5, **SHORT)))
    assert frames.shape == (5, 40, 32, 3)
    assert frames.dtype == np.uint8
    padded = np.concatenate([poses(5), np.repeat(poses(5)[-1:], 2, axis=0)])
    whole = pipeline()(reference(), padded, **SHORT).videos[0]
    assert np.abs(frames - 255 * whole[:, :5].permute(1, 2, 3, 0).numpy()).max() <= 0.5 + 1e-3


def test_progress_is_told():
    told = []
    list(pipeline().stream(reference(), poses(3), num_frames=3, progress=lambda *step: told.append(step), **SHORT))
    assert told == [("denoising", 1, 2), ("denoising", 2, 2), *(("decoding", i, 3) for i in (1, 2, 3))]


@pytest.mark.parametrize(("width", "height"), [(24, 24), (24, 56), (72, 40)])
def test_any_multiple_of_eight(width, height):
    video = pipeline()(reference(), poses(2), **{**SHORT, "width": width, "height": height}).videos
    assert video.shape == (1, 3, 2, height, width)
    assert video.isfinite().all()


def test_the_seed_decides_and_nothing_else_does():
    first, other, again = (pipeline()(reference(), poses(3), seed=s, **SHORT).videos for s in (1, 2, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_shared_noise_is_the_same_in_all_frames_and_as_strong():
    pipe = pipeline()
    alone, half, whole = (pipe.initial_noise(40, 64, 64, 1, shared) for shared in (0.0, 0.5, 1.0))
    assert torch.equal(alone, pipe.initial_noise(40, 64, 64, 1))
    assert torch.equal(whole[0], whole[39])
    for noise, portion in ((alone, 0.0), (half, 0.5), (whole, 1.0)):
        assert abs((noise[:-1] * noise[1:]).mean() - portion) < 0.12  # the shared part is only 256 numbers
        assert abs(noise.std() - 1) < 0.12


def test_shared_noise_and_one_pose_give_one_picture():
    pose = poses(1)[0]
    settings = SHORT | {"shared_noise": 1.0, "guidance_scale": 1.0, "num_inference_steps": 1}
    frames = pipeline()(reference(), [pose, pose, pose], output_type="latent", **settings).videos
    apart = pipeline()(reference(), [pose] * 3, output_type="latent", **settings | {"shared_noise": 0.0}).videos
    changes, before = (clip.diff(dim=2).abs().mean() for clip in (frames, apart))
    assert changes < 0.3 * before  # not none: the motion modules tell frames apart by their positions


def test_guidance_of_one_is_no_guidance():
    """Guidance just above 1 computes both rows; its limit is the conditional row alone."""
    alone = pipeline()(reference(), poses(3), guidance_scale=1.0, output_type="latent", **SHORT).videos
    both = pipeline()(reference(), poses(3), guidance_scale=1 + 1e-6, output_type="latent", **SHORT).videos
    assert torch.allclose(alone, both, atol=1e-4)


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


def test_temporary_folder_that_is_not_there(monkeypatch):
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
    pose_frames.PoseFrames([numpy.zeros((16, 16, 3), numpy.uint8)] * 5, 16, 16)
except pose_frames.UserError as error:
    print(tempfile.gettempdir() in str(error) and "free some space" in str(error))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout == "True\n", done.stderr


def test_pose_frames_are_read_back_and_repeat_the_last():
    pictures = np.random.default_rng(2).integers(0, 255, (3, 16, 8, 3), np.uint8)
    read = PoseFrames(pictures, width=8, height=16).read(range(1, 5))
    expected = torch.from_numpy(pictures[[1, 2, 2, 2]]).permute(0, 3, 1, 2)
    assert torch.equal(read, expected)


def test_pose_frames_that_are_not_wanted():
    """They leave gaps in the file; the last frame is there whatever is wanted."""
    pictures = np.random.default_rng(3).integers(0, 255, (6, 16, 8, 3), np.uint8)
    frames = PoseFrames(pictures, width=8, height=16, wanted={1, 2})
    assert frames.length == 6
    for window, expected in ((range(1, 3), [1, 2]), (range(5, 8), [5, 5, 5])):
        assert torch.equal(frames.read(window), torch.from_numpy(pictures[expected]).permute(0, 3, 1, 2))
    with pytest.raises(ValueError, match="frame 3 was not wanted"):
        frames.read(range(2, 4))


def test_parts_of_a_step():
    """Alone, a window with both rows. Two processes: two windows' unconditional rows, the same windows' others, …"""
    spans = [range(0, 4), range(3, 7), range(6, 10)]
    assert parts_of_step(spans, 2, Processes()) == [(window, [0, 1]) for window in spans]
    a, b, c = spans
    assert parts_of_step(spans, 2, Processes(1, 2)) == [(a, [0]), (b, [0]), (a, [1]), (b, [1]), (c, [0]), (c, [1])]


def test_frames_that_a_process_looks_at():
    """Only the third window is looked at by both, each for one row of the guidance."""
    spans = list(windows(10, 4, 1))
    assert frames_of(spans, 2, Processes()) == set(range(10))
    assert frames_of(spans, 2, Processes(0, 2)) == {0, 1, 2, 3, 6, 7, 8, 9}
    assert frames_of(spans, 2, Processes(1, 2)) == set(range(3, 10))
    assert frames_of(spans, 1, Processes(1, 2)) == {3, 4, 5, 6}


def test_save_pretrained_and_back(tmp_path):
    pipeline().save_pretrained(tmp_path)
    again = Pose2VideoPipeline.from_pretrained(tmp_path)
    expected = pipeline()(reference(), poses(3), **SHORT).videos
    assert torch.equal(again(reference(), poses(3), **SHORT).videos, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_from_the_published_layout(tmp_path, dtype):
    paths = write_published_layout(tmp_path)
    whole = Pose2VideoPipeline.from_published(paths)
    half = Pose2VideoPipeline.from_published(paths, dtype=dtype)
    latents = [p(reference(), poses(3), output_type="latent", **SHORT).videos for p in (whole, half)]
    assert latents[1].dtype == dtype
    noise = [p.initial_noise(3, 32, 40, 99) for p in (whole, half)]
    assert noise[1].dtype == dtype  # drawn in half precision, which is another draw than single precision's
    assert latents[1].isfinite().all()


@pytest.mark.requires_cuda
def test_a_gpu_gives_what_the_cpu_gives():
    expected = pipeline()(reference(), poses(5), output_type="latent", **SHORT).videos
    gpu = Pose2VideoPipeline(**tiny_models(), scheduler=pipeline().scheduler).to("cuda")
    ours = gpu(reference(), poses(5), output_type="latent", **SHORT).videos.cpu()
    assert (ours - expected).abs().max() < 2e-3


def test_flush_denoises_no_padded_frame():
    """Five frames in windows of four: the second window is moved back to end with the video, from the same noise."""
    made = pipeline()
    flush = np.stack(list(made.stream(reference(), poses(5), num_frames=5, tail="flush", **SHORT)))
    latents = made.sample(reference(), poses(5), video_length=5, noise_length=7, **SHORT)
    assert np.abs(flush - made.decode(latents).permute(0, 2, 3, 1).numpy() * 255).max() <= 0.5 + 1e-3
    other_noise = made.sample(reference(), poses(5), video_length=5, **SHORT)
    assert not torch.allclose(latents, other_noise, atol=0.1)
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


def test_pose_features_may_be_kept_or_computed_anew():
    """Four windows, two of them overlapping by three frames; kept features are computed once, not in every step."""
    made, calls = pipeline(), []
    hook = made.pose_guider.register_forward_pre_hook(lambda *_: calls.append(1))
    arguments = {**SHORT, "context_overlap": 3, "output_type": "latent"}
    try:
        kept = made(reference(), poses(7), **arguments).videos
        assert len(calls) == 4
        plan = made.residency.plan
        made.residency.plan = replace(plan, keep_pose_features=0)
        anew = made(reference(), poses(7), **arguments).videos
        assert len(calls) == 4 + 8
    finally:
        hook.remove()
        made.residency.plan = plan
    assert torch.equal(kept, anew)
