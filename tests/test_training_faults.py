"""Faults during a training: numbers that are not finite, workers that fail, files that go, a folder in use."""

import errno
import os
import shutil
import signal
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_training import make_trainer, train, write_workplace
from together import started
from torch import nn
from torch.utils.data import Dataset, SequentialSampler, get_worker_info

from musepose.cli.train import main
from musepose.media.video_reader import VideoInfo, probe, read_frames
from musepose.training.checkpoints import list_checkpoints
from musepose.training.data.loading import load_batches
from musepose.training.finite import OVERFLOWS, FiniteCheck
from musepose.training.trainer import quiet_log_writers
from musepose.utils.errors import UserError
from musepose.utils.folder_lock import locked_folder

EVERY_STEP = ("checkpointing_steps=1", "save_model_step_interval=1", "solver.max_train_steps=4", "total_limit=1")
NAN, INF = float("nan"), float("inf")


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    return write_workplace(tmp_path)


def files_of(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", ["loss", "gradients", "weights"])
def test_numbers_that_are_not_finite_stop_the_training_and_save_nothing(workplace: Path, kind: str) -> None:
    training = make_trainer(workplace, 1, *EVERY_STEP)
    before: dict[Path, bytes] = {}
    per_frame, step = training.loss.per_frame, training.optimizer.step

    def now() -> bool:
        if training.done == 2:
            before.update(files_of(workplace))
        return training.done == 2

    def losses(*arguments):
        found = per_frame(*arguments)
        if not now() or kind == "weights":
            return found
        return found * INF if kind == "loss" else found + Break.apply(found)

    def update() -> None:
        step()
        if now() and kind == "weights":
            training.trained[0].data[0] = NAN

    training.loss.per_frame, training.optimizer.step = losses, update
    where = {"loss": "the loss of step 3", "gradients": "the gradients of step 3", "weights": "the weights .* step 3"}
    with pytest.raises(UserError, match=rf"{where[kind]}.*\blower the learning rate"):
        training.run()
    assert before and files_of(workplace) == before
    assert [path.name for path in list_checkpoints(workplace / "stage_1" / "states")] == ["step-0000002"]


class Break(torch.autograd.Function):
    """0, with a gradient that is not a number."""

    @staticmethod
    def forward(context, values):
        return values * 0

    @staticmethod
    def backward(context, gradient):
        return gradient * NAN


def test_a_training_that_diverges_stops_at_the_first_loss_that_is_no_number(workplace: Path) -> None:
    with pytest.raises(UserError, match="of step 2 (is|are) not finite"):
        train(workplace, 1, *EVERY_STEP, "solver.learning_rate=1e30")
    assert [path.name for path in list_checkpoints(workplace / "stage_1" / "states")] == ["step-0000001"]


def fake_accelerator(precision: str = "no") -> SimpleNamespace:
    return SimpleNamespace(num_processes=1, mixed_precision=precision)


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_each_number_that_is_not_finite_is_one(value: float) -> None:
    check = FiniteCheck(fake_accelerator())
    layer = nn.Linear(2, 2)
    check.check_loss(torch.zeros(2, 2), 1)
    check.check_gradients(torch.tensor(1e38), 1)
    check.check_gradients(None, 1)
    check.check_weights(layer.parameters(), 1)
    layer.bias.data[1] = value
    for raising in (
        lambda: check.check_loss(torch.tensor([[1.0, value]]), 5),
        lambda: check.check_gradients(value, 5),
        lambda: check.check_weights(layer.parameters(), 5),
    ):
        with pytest.raises(UserError, match="step 5"):
            raising()


def test_float16_may_skip_steps_but_not_for_ever() -> None:
    check = FiniteCheck(fake_accelerator("fp16"))
    for step in range(OVERFLOWS - 1):
        check.check_gradients(INF, step)
    check.check_gradients(1.0, OVERFLOWS)
    for step in range(OVERFLOWS - 1):
        check.check_gradients(INF, step)
    with pytest.raises(UserError, match=f"overflowed float16 for {OVERFLOWS} steps, up to step 99"):
        check.check_gradients(INF, 99)


def test_all_processes_stop_together_and_read_the_same_state(tmp_path: Path) -> None:
    script = Path(__file__).with_name("training_worker.py")
    with started(2, "tiny_states", script, str(tmp_path)) as running:
        message, _ = running.communicate(timeout=600)
    assert running.returncode == 0, message
    said = [(tmp_path / f"said-{rank}").read_text() for rank in (0, 1)]
    assert said[0] == said[1] and said[0].startswith("1 the loss of step 7 is not finite")
    assert (tmp_path / "spoilt-step-0000002").is_dir()


class Samples(Dataset):
    """Numbers; `fault` happens at sample 5."""

    def __init__(self, fault: str = ""):
        self.fault = fault

    def __len__(self) -> int:
        return 8

    def __getitem__(self, number: int) -> dict:
        if number == 5 and self.fault == "wrong":
            raise UserError("clip 5 is broken: repair it")
        if number == 5 and self.fault == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if number == 5 and self.fault == "bug":
            raise RuntimeError("a bug")
        worker = get_worker_info()
        pictures = torch.full((2, 3), float(number)), np.full((2,), number, np.uint8)
        return {"pictures": {"a": pictures[0], "b": pictures[1]}, "seed": number, "worker": -1 if worker is None else 0}


def batches(workers: int, fault: str = "") -> list[dict]:
    return list(load_batches(Samples(fault), 2, SequentialSampler(range(8)), workers))


def test_batches_are_the_same_with_workers_and_take_no_shared_memory() -> None:
    own, others = batches(0), batches(2)
    assert len(own) == len(others) == 4
    for one, two in zip(own, others, strict=True):
        assert one.pop("worker").tolist() == [-1, -1] and two.pop("worker").tolist() == [0, 0]
        for found, other in ((one["seed"], two["seed"]), *((one["pictures"][k], two["pictures"][k]) for k in "ab")):
            assert torch.equal(found, other) and found.dtype == other.dtype and not other.is_shared()
    assert own[2]["pictures"]["a"].tolist() == [[[4.0] * 3] * 2, [[5.0] * 3] * 2]
    assert own[2]["seed"].tolist() == [4, 5] and own[2]["pictures"]["b"].dtype == torch.uint8


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_the_data_is_one_line_from_a_worker_too(workers: int) -> None:
    with pytest.raises(UserError) as error:
        batches(workers, "wrong")
    assert str(error.value) == "clip 5 is broken: repair it"
    with pytest.raises(RuntimeError, match="a bug"):
        batches(workers, "bug")


def test_a_worker_that_dies_is_one_line() -> None:
    with pytest.raises(UserError, match=r"workers do not work here \(DataLoader worker .*: lower data.num_workers"):
        batches(1, "killed")


def test_where_workers_cannot_start_the_training_loads_by_itself(monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    def refuse(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")  # in /dev/shm

    expected = batches(0)
    monkeypatch.setattr("multiprocessing.context.BaseContext.Lock", refuse)
    found = batches(2)
    (record,) = caplog.records
    assert "No space left on device): the training's own process loads" in record.getMessage()
    for one, two in zip(found, expected, strict=True):
        assert torch.equal(one["pictures"]["a"], two["pictures"]["a"])


def with_cases(folder: Path) -> tuple[str, ...]:
    picture = folder / "ref.png"
    Image.fromarray(next(read_frames(folder / "video-1.mp4"))).save(picture)
    for name in ("a", "b"):
        shutil.copy(folder / "pose-0.mp4", folder / f"{name}.mp4")
    cases = f"val.test_cases={{{picture}: [{folder}/a.mp4, {folder}/b.mp4]}}"
    return cases, "val.validation_steps=1", "val.num_inference_steps=1", "val.frames=2"


@pytest.mark.parametrize("fault", ["removed", "truncated", "full disk", "memory"])
def test_a_validation_that_fails_is_said_and_the_training_goes_on(workplace: Path, fault, monkeypatch, caplog) -> None:
    training = make_trainer(workplace, 1, *with_cases(workplace), "solver.max_train_steps=2")
    if fault == "removed":
        (workplace / "a.mp4").unlink()
    elif fault == "truncated":
        (workplace / "a.mp4").write_bytes((workplace / "a.mp4").read_bytes()[:300])
    else:
        error = {"full disk": OSError(errno.ENOSPC, "No space left"), "memory": RuntimeError("CUDA out of memory")}

        def probe_or_fail(path: Path) -> VideoInfo:
            if path.name == "a.mp4":
                raise error[fault]
            return probe(path)

        monkeypatch.setattr("musepose.training.validation.probe", probe_or_fail)
    training.run()
    messages = [record.getMessage() for record in caplog.records if "is not sampled" in record.getMessage()]
    assert len(messages) == 2 and all("ref_a.mp4 is not sampled (" in text for text in messages)
    assert training.done == 2 and training.model.training
    samples = workplace / "stage_1" / "samples"
    assert sorted(str(p.relative_to(samples)) for p in samples.rglob("*.mp4")) == [
        f"step-000000{step}/ref_b.mp4" for step in (1, 2)
    ]


def test_a_log_that_cannot_be_written_ends_and_the_training_goes_on(workplace: Path, monkeypatch, caplog) -> None:
    training = make_trainer(workplace, 1, "report_to=tensorboard", "log_steps=1", "solver.max_train_steps=3")

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(training.accelerator, "log", full)
    training.run()
    (message,) = [r.getMessage() for r in caplog.records if "log of losses" in r.getMessage()]
    assert "ends at step 1 ([Errno 28] No space left on device)" in message and training.done == 3


def test_the_thread_that_writes_the_log_fails_without_a_traceback(monkeypatch) -> None:
    seen = []
    monkeypatch.setattr(threading, "excepthook", seen.append)
    quiet_log_writers()
    writer = type("Writer", (), {"__module__": "tensorboard.summary.writer.event_file_writer"})()
    for thread, error in ((writer, OSError()), (writer, ValueError()), (threading.current_thread(), OSError())):
        threading.excepthook(SimpleNamespace(thread=thread, exc_value=error))
    assert [type(failure.exc_value) for failure in seen] == [ValueError, OSError]


def test_one_process_at_a_time_locks_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "out"
    with locked_folder(folder, "training"):
        with (
            pytest.raises(UserError, match=r"out is in use by another training: wait .* choose another folder"),
            locked_folder(folder, "training"),
        ):
            pass
        (folder / "a").write_text("kept")
    with locked_folder(folder, "training"):
        assert (folder / "a").read_text() == "kept"
    with locked_folder(tmp_path / "empty", "training"):
        pass
    assert not (tmp_path / "empty").exists()


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are not listed here")
def test_a_child_holds_no_lock(tmp_path: Path) -> None:
    """Or the lock would outlive a killed training by its data loader's workers."""

    def is_open() -> bool:
        return any(os.path.realpath(path) == str(tmp_path) for path in Path("/proc/self/fd").iterdir())

    with locked_folder(tmp_path, "training"):
        assert is_open()
        child = os.fork()
        if not child:
            os._exit(int(is_open()))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        with pytest.raises(UserError), locked_folder(tmp_path, "training"):
            pass


@pytest.mark.parametrize("key", ["output_dir", "save_dir"])
def test_a_second_training_in_a_folder_is_one_line(workplace: Path, key: str) -> None:
    words = ["--config", str(workplace / "train_stage_1.yaml"), f"{key}={workplace}/busy"]
    with locked_folder(workplace / "busy", "training"), pytest.raises(UserError, match="busy is in use by another"):
        main("stage_1", words)
    assert not list((workplace / "stage_1").rglob("*"))
