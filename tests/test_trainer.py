"""Whole tiny trainings: losses, states, resuming, several processes, saved models, validation."""

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_training import FRAMES, make_trainer, random_animator, train, training_rounding, weights, write_workplace
from together import started
from tolerance import rounding
from torch import Tensor
from torch.utils.data import DataLoader

from musepose.media.image import read_image
from musepose.media.video_reader import probe, read_frames
from musepose.media.video_writer import VideoWriter
from musepose.models.state_dicts import read_checkpoint
from musepose.models.weights import WeightPaths
from musepose.pipelines.pose2video import Pose2VideoPipeline
from musepose.training.checkpoints import list_checkpoints
from musepose.training.model import MOTION, save_models, weight_paths
from musepose.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = "from musepose.cli.train import main; import sys; main('stage_1', sys.argv[1:])"
NEVER = ("checkpointing_steps=1000",)
# Adam divides gradients by their own size: what is only rounding, as of a bias that a norm takes away, moves weights as
# much as a gradient does, unless it is small beside this. Gradients are mostly larger.
STEADY = ("solver.adam_epsilon=1e-6",)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_workplace(tmp_path_factory.mktemp("training"))


@pytest.fixture
def workplace(models: Path, tmp_path: Path) -> Path:
    """A fresh workplace for each test, with random stage-1 models for stage 2."""
    folder = tmp_path / "work"
    shutil.copytree(models, folder)
    for path in folder.glob("*.yaml"):
        path.write_text(path.read_text().replace(str(models), str(folder)))
    meta = folder / "meta.json"
    meta.write_text(meta.read_text().replace(str(models), str(folder)))
    return folder


def with_stage_1(folder: Path) -> Path:
    save_models(random_animator(motion=False), folder / "stage_1" / "weights", "fp32", None)
    return folder


@pytest.fixture(scope="module")
def bounds(models: Path) -> tuple[float, float]:
    """For the weights of the trainings compared here, of at most six steps, and for their losses."""
    return training_rounding(models, *NEVER, *STEADY, "solver.max_train_steps=6")


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 0) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=tolerance, msg=name)


def start(folder: Path, program: str, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", program, "--config", str(folder / "train_stage_1.yaml"), *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize("stage", [1, 2])
def test_steps_lower_the_loss_on_one_batch(workplace: Path, stage: int) -> None:
    training = make_trainer(with_stage_1(workplace), stage, "solver.lr_scheduler=constant", "uncond_ratio=0.5")
    before = weights(training)
    samples = next(iter(DataLoader(training.samples, 2, sampler=range(2))))
    losses = [training.micro_step(samples)[0].sum().item() for _ in range(12)]
    assert losses[-1] < losses[0] * (0.9 if stage == 1 else 0.99), losses
    changed = {name for name, tensor in weights(training).items() if not torch.equal(tensor, before[name])}
    assert changed == {n for n in before if MOTION in n} if stage == 2 else len(changed) > 100


def test_accumulating_equals_a_larger_batch(workplace: Path, bounds) -> None:
    overrides = (*NEVER, *STEADY, "solver.max_train_steps=3")
    one, losses = train(workplace, 1, *overrides, "data.train_bs=2")
    two, halves = train(
        *(workplace, 1, *overrides, "data.train_bs=1", "solver.gradient_accumulation_steps=2"),
        "output_dir=" + str(workplace / "accumulated"),
    )
    assert_same(weights(two), weights(one), bounds[0])
    np.testing.assert_allclose(np.reshape(halves, (-1, 2)).mean(1), losses, rtol=0, atol=bounds[1])
    assert len(set(losses)) == 3


def test_half_precision_in_one_layer_of_a_training_is_out_of_bounds(workplace: Path, bounds) -> None:
    overrides = (*NEVER, *STEADY, "solver.max_train_steps=3")
    plain, _ = train(workplace, 1, *overrides)
    other = make_trainer(workplace, 1, *overrides, f"output_dir={workplace}/other")
    layer = other.model.denoising_unet.mid_block.resnets[0].conv1
    layer.register_forward_hook(lambda *args: args[-1].half().float())
    other.run()
    before = weights(plain)
    assert max((tensor - before[name]).abs().max() for name, tensor in weights(other).items()) > 2 * bounds[0]


def test_two_processes_train_as_one_with_twice_the_batch(workplace: Path, bounds) -> None:
    overrides = (*NEVER, *STEADY, "solver.max_train_steps=2")
    config = ("--config", str(workplace / "train_stage_1.yaml"), *overrides, "data.train_bs=1")
    folders = (f"save_dir={workplace}/two", f"output_dir={workplace}/two")
    script = ROOT / "train_stage_1.py"
    with started(2, "musepose.training.trainer", script, *config, *folders) as running:
        one, _ = train(workplace, 1, *overrides, "data.train_bs=2")
        message, _ = running.communicate(timeout=600)
    assert running.returncode == 0, message
    for model in ("denoising_unet", "reference_unet", "pose_guider"):
        found, expected = (
            read_checkpoint(folder / f"{model}.pth") for folder in (workplace / "two", one.config.model_folder)
        )
        assert_same(found, expected, bounds[0])


def test_a_killed_training_resumes_identically(workplace: Path, bounds) -> None:
    """The same operations; but where an array begins in memory may decide how sums are ordered."""
    overrides = (
        *STEADY,
        *("solver.max_train_steps=6", "checkpointing_steps=2", "total_limit=2", "log_steps=2"),
        *("solver.lr_scheduler=cosine", "solver.ema_decay=0.9", "data.train_bs=1"),
    )
    whole, losses = train(workplace, 1, *overrides, f"output_dir={workplace}/whole")
    killing = f"""
import os, musepose.training.checkpoints as states
sync_files = states._sync_files
states._sync_files = lambda f: os.kill(os.getpid(), {int(signal.SIGKILL)}) if "4" in f.name else sync_files(f)
"""
    process = start(workplace, killing + PROGRAM, *overrides)
    message = process.communicate()[0]
    assert process.returncode == -signal.SIGKILL, message
    states = workplace / "stage_1" / "states"
    assert {p.name for p in states.iterdir()} == {"step-0000002", ".step-0000004.part"}
    assert not (workplace / "stage_1" / "weights").exists()

    resumed, rest = train(workplace, 1, *overrides, resume="latest")
    np.testing.assert_allclose(rest, losses[2:], rtol=0, atol=bounds[1])
    assert_same(weights(resumed), weights(whole), bounds[0])
    for found, expected in zip(resumed.ema.shadow_params, whole.ema.shadow_params, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=bounds[0])
    assert {p.name for p in states.iterdir()} == {"step-0000004", "step-0000006"}


def test_what_is_saved_and_sampled_is_the_average_and_training_goes_on_with_the_last(workplace: Path) -> None:
    training, _ = train(workplace, 1, *NEVER, "solver.max_train_steps=4", "solver.ema_decay=0.99")
    names = [name for name, p in training.model.named_parameters() if p.requires_grad]
    averaged = dict(zip(names, training.ema.shadow_params, strict=True))
    saved = read_checkpoint(training.config.model_folder / "denoising_unet.pth")
    now = weights(training)
    key = "denoising_unet.conv_out.weight"
    assert torch.equal(saved["conv_out.weight"], averaged[key]) and not torch.equal(averaged[key], now[key])
    plain, _ = train(workplace, 1, *NEVER, "solver.max_train_steps=4", f"output_dir={workplace}/plain")
    assert_same(weights(plain), now)


def test_average_of_the_first_steps_by_hand(workplace: Path) -> None:
    training = make_trainer(workplace, 1, *NEVER, "solver.max_train_steps=3", "solver.ema_decay=0.2")
    parameter = training.model.denoising_unet.conv_out.bias
    index = next(i for i, p in enumerate(training.trained) if p is parameter)
    expected, seen = None, []
    step = training.ema.step

    def noted(parameters) -> None:
        step(parameters)
        seen.append(parameter.detach().clone())

    training.ema.step = noted
    training.run()
    expected = seen[0]  # diffusers' warm-up: min(decay, (1 + n) / (10 + n)), 0 the first time
    for number, value in enumerate(seen[1:], 1):
        decay = min(0.2, (1 + number) / (10 + number))
        expected = decay * expected + (1 - decay) * value
    # Two products and a sum a step, of what Adam has moved away from zero.
    bound = rounding(3 * len(seen), expected.abs().max().item())
    torch.testing.assert_close(training.ema.shadow_params[index], expected, rtol=0, atol=bound)


def test_a_finished_training_only_saves_its_models_again(workplace: Path) -> None:
    training, _ = train(workplace, 1, "checkpointing_steps=1")
    saved = training.config.model_folder / "pose_guider.pth"
    saved.unlink()  # as if the run had been killed between its last state and its models
    again, losses = train(workplace, 1, "checkpointing_steps=1", resume="latest")
    assert not losses and saved.is_file()
    assert_same(weights(again), weights(training))


def test_more_steps_can_be_asked_for_later(workplace: Path, bounds) -> None:
    train(workplace, 1, *STEADY, "checkpointing_steps=1", "total_limit=1")
    longer, losses = train(workplace, 1, *STEADY, "checkpointing_steps=1", "solver.max_train_steps=4", resume="latest")
    whole, every = train(workplace, 1, *NEVER, *STEADY, "solver.max_train_steps=4", f"output_dir={workplace}/whole")
    np.testing.assert_allclose(losses, every[2:], rtol=0, atol=bounds[1])
    assert_same(weights(longer), weights(whole), bounds[0])


def test_an_older_state_can_be_named(workplace: Path, bounds) -> None:
    overrides = (*STEADY, "checkpointing_steps=1", "solver.max_train_steps=3")
    _, losses = train(workplace, 1, *overrides)
    named = str(workplace / "stage_1" / "states" / "step-0000001")
    _, rest = train(workplace, 1, *overrides, resume=named)
    np.testing.assert_allclose(rest, losses[1:], rtol=0, atol=bounds[1])
    assert [p.name for p in list_checkpoints(workplace / "stage_1" / "states")] == [
        f"step-000000{i}" for i in (1, 2, 3)
    ]


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.bin"])
def test_a_damaged_state_is_an_error(workplace: Path, file: str) -> None:
    train(workplace, 1, "solver.max_train_steps=1")
    path = workplace / "stage_1" / "states" / "step-0000001" / file
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="step-0000001 cannot be resumed"):
        make_trainer(workplace, 1, resume="latest")


def test_a_state_of_another_training_is_an_error(workplace: Path) -> None:
    train(workplace, 1, "solver.max_train_steps=1")
    with pytest.raises(UserError, match="cannot be resumed"):
        make_trainer(workplace, 1, "solver.ema_decay=0.9", resume="latest")


def test_stage_1_can_be_sampled_and_stage_2_builds_on_it(workplace: Path) -> None:
    first, _ = train(workplace, 1, *NEVER, "save_dtype=fp16")
    second, _ = train(workplace, 2, *NEVER)
    frames = list(read_frames(workplace / "pose-0.mp4"))[:3]
    picture = Image.fromarray(np.zeros((64, 64, 3), np.uint8))
    short = {"context_frames": 3, "context_overlap": 0}
    for training in (first, second):
        paths = weight_paths(training.config, training.config.model_folder)
        assert isinstance(paths, WeightPaths)
        pipeline = Pose2VideoPipeline.from_published(paths)
        video = pipeline(picture, frames, width=64, height=64, num_inference_steps=2, output_type="pt", **short).frames
        assert video.shape == (1, 3, 3, 64, 64) and video.isfinite().all()
    assert second.config.model_folder.joinpath("pose_guider.pth").samefile(
        first.config.model_folder / "pose_guider.pth"
    )


@pytest.mark.parametrize("links", [True, False])
def test_stage_2_saves_beside_read_only_files_of_stage_1(own_folder: Path, monkeypatch, links: bool) -> None:
    first, second, model = own_folder / "stage_1", own_folder / "stage_2", random_animator(motion=True)
    save_models(model, first, "fp32", None)
    for path in first.iterdir():
        path.chmod(0o444)
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in first.iterdir()}
    if not links:
        monkeypatch.setattr(os, "link", refuse_links)
    for _ in range(2):
        save_models(model, second, "fp32", first)
    names = ["denoising_unet.pth", "motion_module.pth", "pose_guider.pth", "reference_unet.pth"]
    assert sorted(path.name for path in second.iterdir()) == names
    assert all(read_checkpoint(second / name) for name in names)
    assert before == {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in first.iterdir()}
    assert all(path.stat().st_mode & 0o777 == 0o444 for path in first.iterdir())


def test_a_disk_that_fills_up_leaves_the_models_of_before(tmp_path: Path, monkeypatch) -> None:
    model, saved = random_animator(motion=False), []
    save_models(model, tmp_path, "fp32", None)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    save = torch.save

    def full(tensors, path) -> None:
        save(tensors, path)
        saved.append(path)
        if len(saved) == 2:
            raise OSError(errno.ENOSPC, "No space left")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match="free some space"):
        save_models(random_animator(motion=False, seed=1), tmp_path, "fp32", None)
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def refuse_links(*_) -> None:
    raise OSError("another file system")


NOISE = [(1, (), 0.0), (2, ("shared_noise=0.5",), 0.5), (1, ("shared_noise=0.5", "val.shared_noise=1"), 1.0)]


@pytest.mark.parametrize(("stage", "noise", "shared"), NOISE)
def test_validation_videos_are_the_pipeline_s(
    workplace: Path, stage: int, noise: tuple[str, ...], shared: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered: list[np.ndarray] = []
    write = VideoWriter.write
    monkeypatch.setattr(VideoWriter, "write", lambda self, frame: (rendered.append(frame.copy()), write(self, frame)))
    picture = workplace / "ref.png"
    Image.fromarray(next(read_frames(workplace / "video-1.mp4"))).save(picture)
    cases = f"val.test_cases={{{picture}: [{workplace}/pose-0.mp4, {workplace}/pose-1.mp4]}}"
    overrides = (cases, "val.validation_steps=1", "val.num_inference_steps=2", "val.frames=6", "solver.ema_decay=0.5")
    training, losses = train(with_stage_1(workplace), stage, *NEVER, *overrides, *noise)
    samples = Path(training.config.output_dir) / "samples"
    names = ["ref_pose-0.mp4", "ref_pose-1.mp4"]
    assert sorted(p.name for p in samples.iterdir()) == ["step-0000001", "step-0000002"]
    for folder in samples.iterdir():
        assert sorted(p.name for p in folder.iterdir()) == names
        assert all((probe(folder / n).frames, probe(folder / n).rate) == (6, 15) for n in names)

    pipeline = Pose2VideoPipeline.from_published(weight_paths(training.config, training.config.model_folder))
    poses = list(read_frames(workplace / "pose-0.mp4"))[:6]
    sampling = {"context_frames": 6 if stage == 1 else 4, "context_overlap": 0, "shared_noise": shared, "seed": 99}
    expected = pipeline.stream(
        *(read_image(picture), poses), width=64, height=64, num_frames=6, num_inference_steps=2, **sampling
    )
    of_the_last_step = rendered[-12:-6]  # its first video, before the encoder, which makes much of a rounding
    for found, frame in zip(of_the_last_step, expected, strict=True):
        assert np.abs(found.astype(int) - frame).max() <= 1


def test_an_interrupted_validation_leaves_nothing_half_written(workplace: Path, monkeypatch) -> None:
    picture = workplace / "ref.png"
    Image.fromarray(next(read_frames(workplace / "video-1.mp4"))).save(picture)
    overrides = (f"val.test_cases={{{picture}: [{workplace}/pose-0.mp4]}}", "val.num_inference_steps=1")
    decode = Pose2VideoPipeline.decode
    decoded = []

    def interrupted(self, latents):
        decoded.append(1)
        if len(decoded) == 2:  # eight frames, four at a time
            raise KeyboardInterrupt
        return decode(self, latents)

    monkeypatch.setattr(Pose2VideoPipeline, "decode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(workplace, 1, *overrides)
    folder = workplace / "stage_1" / "samples" / "step-0000002"
    assert not list(folder.glob("*"))
    _, losses = train(workplace, 1, *overrides, resume="latest")
    assert not losses and probe(folder / "ref_pose-0.mp4").frames == FRAMES


def test_losses_go_to_tensorboard(workplace: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _, losses = train(workplace, 1, *NEVER, "report_to=tensorboard", "log_steps=2")
    (log,) = (workplace / "stage_1").rglob("events.out.*")
    events = EventAccumulator(str(log.parent))
    events.Reload()
    (loss,) = events.Scalars("loss")
    # Sums of two losses, a division, and float32 in the log.
    assert loss.step == 2 and loss.value == pytest.approx(np.mean(losses), rel=rounding(4))
    bands = [tag for tag in events.Tags()["scalars"] if tag.startswith("loss/t")]
    assert bands and set(bands) <= {f"loss/t{i * 200:03d}-{i * 200 + 199:03d}" for i in range(5)}


def test_losses_by_band() -> None:
    from musepose.training.trainer import sum_by_timestep_bin

    bands = sum_by_timestep_bin(torch.tensor([[1.0, 2.0], [4.0, 8.0]]), torch.tensor([[0, 199], [200, 999]]), 1000)
    assert bands.tolist() == [[3, 4, 0, 0, 8], [2, 1, 0, 0, 1]]
