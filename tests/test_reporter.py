"""What a run reports of its stages, and how a reporter stops it."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch
from pose_align_folder import FRAMES, pose_align_folder  # noqa: F401
from tolerance import rounding

from musepose.inference import runner as rendering
from musepose.inference.cases import Job as Case
from musepose.inference.options import merge_settings
from musepose.media.video_reader import probe
from musepose.pipelines.schedulers import SCHEDULERS, make_scheduler, predicted_original
from musepose.pose.job import prepare
from musepose.pose.options import Settings
from musepose.pose.runner import run_job
from musepose.utils.errors import Stopped
from musepose.utils.reporter import Reporter, Stages, watch


class Recorder(Reporter):
    """Keeps everything; stops when `stop_at` is reached, (stage, items done)."""

    def __init__(self, stop_at=None):
        self.lines, self.stages, self.stop_at = [], [], stop_at

    def say(self, line):
        self.lines.append(line)

    @contextmanager
    def stage(self, name, total, unit="it"):
        self.stages.append([name, total, 0])

        def update(done):
            self.stages[-1][2] = done
            if (name, done) == self.stop_at:
                raise Stopped

        yield update


def test_watched_items_are_counted_when_the_next_is_asked_for():
    recorder = Recorder()
    items = watch("abc", recorder, "drawing", 3)
    assert next(items) == "a" and recorder.stages == [["drawing", 3, 0]]
    assert list(items) == ["b", "c"] and recorder.stages == [["drawing", 3, 3]]


def test_stages_follow_one_another():
    recorder = Recorder()
    with Stages({"denoising": 2, "decoding": 3}, recorder) as stages:
        assert recorder.stages == [["denoising", 2, 0]]  # from the start on
        for stage, done, total in [("denoising", 1, 2), ("denoising", 2, 2), ("decoding", 1, 3)]:
            stages.update(stage, done, total)
    assert recorder.stages == [["denoising", 2, 2], ["decoding", 3, 1]]


def settings_of(folder, **changes):
    names = {"imgfn_refer": folder.image, "vidfn": folder.video, "keypoints": folder.save()}
    return Settings(**names, **changes)


def test_an_alignment_reports_to_its_reporter_only(folder, capsys):
    recorder = Recorder()
    result = run_job(prepare(settings_of(folder, align_frame="auto")), reporter=recorder)
    assert recorder.stages == [["drawing", FRAMES - result.fitted.start, FRAMES - result.fitted.start]]
    assert any(line.startswith(f"the align frame is {result.fitted.align_frame}: ") for line in recorder.lines)
    assert set(result.warnings) <= set(recorder.lines)
    assert capsys.readouterr() == ("", "")


def test_a_stopped_alignment_leaves_no_file(folder):
    with pytest.raises(Stopped):
        run_job(prepare(settings_of(folder)), reporter=Recorder(("drawing", 2)))
    assert not folder.outputs()


class Pipeline:
    """Gives the frames of a video, and reports as the real one does."""

    def stream(self, image, poses, options, num_frames, progress, callback_on_step_end=None):
        for step in range(options.num_inference_steps):
            progress("denoising", step + 1, options.num_inference_steps)
            if callback_on_step_end:
                callback_on_step_end(self, step, 0, {})
        for index, pose in enumerate(poses):
            yield np.asarray(pose)
            progress("decoding", index + 1, num_frames)


def render(folder, reporter, **arguments):
    settings = merge_settings({"width": 64, "height": 48, "steps": 3, "skip": 0}, {}, folder.path / "none.yaml")
    case = Case(folder.image, probe(folder.video), FRAMES, 10, None, folder.path / "result.mp4", (64, 64))
    rendering.render(case, settings, Pipeline(), reporter=reporter, **arguments)
    return case


@pytest.mark.parametrize("stop_at", [("denoising", 2), ("decoding", 3)])
def test_a_stopped_rendering_leaves_no_file(folder, stop_at):
    recorder = Recorder(stop_at)
    with pytest.raises(Stopped):
        render(folder, recorder)
    assert recorder.stages[-1][::2] == list(stop_at)
    assert not list(folder.path.glob("*result*")) and not list(folder.path.glob(".musepose-*"))


def test_a_rendering_passes_arguments_to_the_pipeline(folder):
    steps = []
    case = render(folder, Recorder(), callback_on_step_end=lambda _, step, *__: steps.append(step))
    assert steps == [0, 1, 2] and probe(case.result).frames == FRAMES


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("prediction_type", ["v_prediction", "epsilon"])
def test_the_predicted_latents_are_those_that_were_noised(name, prediction_type):
    """With the true prediction, whatever the scheduler's own scale of the noise."""
    zero_snr = prediction_type == "v_prediction"
    config = {"beta_schedule": "scaled_linear", "prediction_type": prediction_type, "timestep_spacing": "trailing"}
    scheduler = make_scheduler(config | {"rescale_betas_zero_snr": zero_snr}, name)
    scheduler.set_timesteps(4)
    original, noise = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)).unbind()
    for timestep in scheduler.timesteps[:2]:
        signal = scheduler.alphas_cumprod[int(timestep)].double() ** 0.5
        hidden = (1 - signal**2) ** 0.5
        sample = (signal * original + hidden * noise).float()
        prediction = noise if prediction_type == "epsilon" else (signal * noise - hidden * original).float()
        found = predicted_original(scheduler, prediction, sample, timestep)
        # Sums of two terms of size up to 4, a few roundings in a row, divided by the signal for epsilon.
        bound = rounding(6, 4) / (1 if zero_snr else float(signal))
        torch.testing.assert_close(found, original, rtol=0, atol=bound)
