"""Training states: no file of one runs code, older ones load, spoilt ones are noticed, full disks leave nothing."""

import json
import os
import pickle
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.utils import DistributedType
from safetensors.torch import load_file, save_file
from tiny_states import TinyTraining
from tiny_training import random_animator

from musepose.training.checkpoints import list_checkpoints
from musepose.training.model import save_models
from musepose.training.state_files import CHECKSUMS, write_checksums
from musepose.utils.errors import UserError
from musepose.utils.files import complete_file
from musepose.utils.saving import open_to_save
from puppet.vae_model import save_vae

FILES = ("model.safetensors", "optimizer.bin", "custom_checkpoint_0.pkl", "custom_checkpoint_1.pkl", CHECKSUMS)
UNREAD = ("random_states_0.pkl", "scheduler.bin", "sampler.bin", "dl_state_dict.bin", "scaler.pt", "pytorch_model.bin")


class Attack:
    """Creates the file `attacked` when it is unpickled."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder / "attacked"),)


def plant(path: Path, folder: Path, kind: str) -> None:
    if kind == "plain":
        path.write_bytes(pickle.dumps(Attack(folder), protocol=2))
    else:
        torch.save({"step": Attack(folder)}, path, _use_new_zipfile_serialization=kind == "zip")


def assert_equal(found: list, expected: list) -> None:
    assert len(found) == len(expected) and all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("kind", ["zip", "legacy", "plain"])
@pytest.mark.parametrize("with_checksums", [True, False])
@pytest.mark.parametrize("file", FILES)
def test_code_in_a_file_of_a_state_is_never_run(tmp_path: Path, file: str, with_checksums: bool, kind: str) -> None:
    TinyTraining(tmp_path).train(1)
    state = tmp_path / "step-0000001"
    plant(state / file, tmp_path, kind)
    if file != CHECKSUMS:
        (state / CHECKSUMS).unlink()
        if with_checksums:
            write_checksums(state)
    with pytest.raises(UserError, match="cannot be resumed"):
        TinyTraining(tmp_path).states.load("latest")
    assert not (tmp_path / "attacked").exists()


def test_the_attacks_of_this_file_work(tmp_path: Path) -> None:
    plant(tmp_path / "a.pkl", tmp_path, "zip")
    torch.load(tmp_path / "a.pkl", weights_only=False)
    assert (tmp_path / "attacked").exists()


@pytest.mark.parametrize("file", UNREAD)
def test_files_that_a_state_does_not_need_are_not_read(tmp_path: Path, file: str) -> None:
    TinyTraining(tmp_path).train(1)
    plant(tmp_path / "step-0000001" / file, tmp_path, "zip")
    assert TinyTraining(tmp_path).states.load("latest") == 1
    assert not (tmp_path / "attacked").exists()


@pytest.mark.parametrize("prefix", ["", "module."])  # the latter of several processes
def test_states_that_accelerate_wrote_can_be_resumed(tmp_path: Path, prefix: str) -> None:
    training = TinyTraining(tmp_path)
    training.accelerator.register_for_checkpointing(training.ema, training.schedule)
    for _ in range(3):
        training.step()
    state = tmp_path / "step-0000003"
    training.accelerator.save_state(str(state))
    assert (state / "random_states_0.pkl").is_file()
    tensors = load_file(state / "model.safetensors")
    save_file({prefix + name: tensor for name, tensor in tensors.items()}, state / "model.safetensors")
    other = TinyTraining(tmp_path)
    assert other.states.load("latest") == 3
    assert_equal(other.numbers(), training.numbers())
    other.step()
    training.step()
    assert_equal(other.numbers(), training.numbers())


class Engine:
    """Stands for a DeepSpeed engine."""

    def __init__(self) -> None:
        self.loaded = []

    def load_checkpoint(self, folder: str, tag: str) -> None:
        self.loaded.append((folder, tag))


@pytest.mark.parametrize("attacked", [False, True])
def test_deepspeed_loads_only_files_without_code(tmp_path: Path, monkeypatch, attacked: bool) -> None:
    training, engine = TinyTraining(tmp_path), Engine()
    training.train(1)
    state = tmp_path / "step-0000001"
    (state / "pytorch_model").mkdir()
    file = state / "pytorch_model" / "mp_rank_00_model_states.pt"
    torch.save({"module": {"a": torch.ones(2)}, "dp_world_size": 1}, file)
    if attacked:
        plant(file, tmp_path, "zip")
    write_checksums(state)
    monkeypatch.setattr(type(training.accelerator), "distributed_type", DistributedType.DEEPSPEED)
    training.states.parts.models[:] = [engine]
    if attacked:
        with pytest.raises(UserError, match="cannot be resumed"):
            training.states.load("latest")
    else:
        assert training.states.load("latest") == 1
    assert engine.loaded == ([] if attacked else [(str(state), "pytorch_model")])
    assert not (tmp_path / "attacked").exists()


def spoil(state: Path, kind: str) -> None:
    model, optimizer = state / "model.safetensors", state / "optimizer.bin"
    bare = kind.startswith("bare ")  # a state of an earlier version, without checksums
    if bare:
        (state / CHECKSUMS).unlink()
    kind = kind.removeprefix("bare ")
    if kind == "truncated":
        optimizer.write_bytes(optimizer.read_bytes()[:-40])
    elif kind == "bit":
        data = bytearray(model.read_bytes())
        data[-3] ^= 1
        model.write_bytes(data)
    elif kind == "missing":
        (state / "custom_checkpoint_1.pkl").unlink()
    elif kind == "nan":
        tensors = load_file(model)
        tensors["bias"][1] = float("nan")
        save_file(tensors, model)
    elif kind == "swapped":
        other = torch.optim.AdamW(torch.nn.Linear(5, 3).parameters())
        other.param_groups[0]["params"][0].sum().backward()
        other.step()
        content = torch.load(optimizer)
        content["state"] = other.state_dict()["state"]
        torch.save(content, optimizer)
    elif kind == "misnamed":
        content = torch.load(optimizer)
        content["state"][1]["exp_avg_rq"] = content["state"][1].pop("exp_avg_sq")
        torch.save(content, optimizer)
    elif kind == "moments":
        content = torch.load(optimizer)
        content["state"][1]["exp_avg"][0] = float("inf")
        torch.save(content, optimizer)
    elif kind in ("ema", "no ema", "ema shape", "rate"):  # of the EMA, then of the schedule
        path = state / f"custom_checkpoint_{int(kind == 'rate')}.pkl"
        content = torch.load(path)
        if kind == "rate":
            content["base_lrs"] = [float("nan")]
        elif kind == "ema":
            content["shadow_params"][0][0, 0] = float("nan")
        elif kind == "no ema":
            del content["shadow_params"]
        else:
            content["shadow_params"] = [tensor[:2] for tensor in content["shadow_params"]]
        torch.save(content, path)
    elif kind == "pipe":
        model.unlink()
        os.mkfifo(model)
    elif kind == "garbage":
        optimizer.write_bytes(b"\x80\x02(lp0\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.")
    elif kind == "checksums":
        (state / CHECKSUMS).write_text("[1, 2")
    elif kind in ("empty", "file"):
        shutil.rmtree(state)
        state.write_bytes(b"no folder") if kind == "file" else state.mkdir()
    elif kind == "renamed":
        shutil.rmtree(state)
        shutil.copytree(state.with_name("step-0000002"), state)


KINDS = ("truncated", "bit", "missing", "nan", "checksums", "empty", "file", "renamed")
BARE = ("bare truncated", "bare missing", "bare nan", "bare swapped", "bare misnamed", "bare garbage")
BARE += ("bare moments", "bare ema", "bare no ema", "bare ema shape", "bare rate", "bare pipe")


@pytest.mark.parametrize("kind", [*KINDS, *BARE])
def test_a_spoilt_newest_state_is_said_and_the_one_before_goes_on(tmp_path: Path, kind: str, caplog) -> None:
    training = TinyTraining(tmp_path, keep=2)
    expected = training.train(2).numbers()
    training.train(3, first=3)
    spoil(tmp_path / "step-0000003", kind)
    other = TinyTraining(tmp_path, keep=2)
    assert other.states.load("latest") == 2
    assert_equal(other.numbers(), expected)
    (record,) = caplog.records
    assert "step-0000003 cannot be resumed (" in record.getMessage()
    assert record.getMessage().endswith("continuing from step-0000002")
    assert {path.name for path in tmp_path.iterdir()} == {"step-0000002", "spoilt-step-0000003"}
    other.train(4, first=3)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-0000003", "step-0000004"]


def test_states_of_which_none_is_whole_are_an_error_and_stay(tmp_path: Path) -> None:
    TinyTraining(tmp_path).train(2)
    for name in ("step-0000001", "step-0000002"):
        spoil(tmp_path / name, "truncated")
    with pytest.raises(UserError, match=r"step-0000002 .*optimizer.bin is damaged.* 1 older .*: .*from scratch"):
        TinyTraining(tmp_path).states.load("latest")
    assert {path.name for path in tmp_path.iterdir()} == {"step-0000001", "step-0000002"}


def test_a_named_state_that_is_spoilt_is_an_error(tmp_path: Path) -> None:
    TinyTraining(tmp_path).train(2)
    spoil(tmp_path / "step-0000002", "bit")
    with pytest.raises(UserError, match="model.safetensors is damaged.*--resume latest"):
        TinyTraining(tmp_path).states.load(str(tmp_path / "step-0000002"))


def test_a_training_that_goes_on_from_an_older_state_keeps_its_own_states(tmp_path: Path) -> None:
    TinyTraining(tmp_path, keep=9).train(6)
    other = TinyTraining(tmp_path, keep=1)
    assert other.states.load(str(tmp_path / "step-0000001")) == 1
    other.train(2, first=2)
    assert [path.name[-1] for path in list_checkpoints(tmp_path)] == ["2", "3", "4", "5", "6"]


def test_files_and_folders_that_may_not_be_read_are_one_line(own_folder: Path) -> None:
    TinyTraining(own_folder / "states").train(2)
    (own_folder / "states/step-0000002/optimizer.bin").chmod(0)
    with pytest.raises(UserError, match=r"optimizer.bin cannot be read \(Permission denied\): check its permissions"):
        TinyTraining(own_folder / "states").states.load("latest")
    (own_folder / "states").chmod(0o300)
    with pytest.raises(UserError, match=r"states cannot be read \(Permission denied\)"):
        list_checkpoints(own_folder / "states")
    (own_folder / "states").chmod(0o700)


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """Writing more than `size` bytes to a file fails, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("size", [0, 100, 600, 2000])
def test_a_full_disk_keeps_the_last_state_and_leaves_no_part(tmp_path: Path, size: int) -> None:
    training = TinyTraining(tmp_path, keep=1).train(1)
    before = training.numbers()
    training.step()
    with files_up_to(size), pytest.raises(UserError, match="cannot write .*step-0000002.*: free some space"):
        training.states.save(2)
    assert [path.name for path in tmp_path.iterdir()] == ["step-0000001"]
    other = TinyTraining(tmp_path)
    other.states.load("latest")
    assert_equal(other.numbers(), before)


def write_array(folder: Path) -> None:
    with complete_file(folder / "a.npy") as partial, open_to_save(partial) as file:
        np.save(file, np.zeros(10_000))


def write_vae(folder: Path) -> None:
    from diffusers import AutoencoderKL

    save_vae(AutoencoderKL(block_out_channels=(32,)), folder)


def write_models(folder: Path) -> None:
    save_models(random_animator(motion=False), folder, "fp32", None)


@pytest.mark.parametrize("write", [write_array, write_vae, write_models])
def test_a_full_disk_is_one_line_for_each_kind_of_file(tmp_path: Path, write) -> None:
    with files_up_to(4000), pytest.raises(UserError, match=r"cannot write .* \(File too large\): free some space"):
        write(tmp_path)
    assert not list(tmp_path.iterdir())
    write(tmp_path)
    assert list(tmp_path.iterdir())


def test_checksums_cover_every_file(tmp_path: Path) -> None:
    TinyTraining(tmp_path).train(1)
    state = tmp_path / "step-0000001"
    sums = json.loads((state / CHECKSUMS).read_text())
    assert sums.keys() == {path.name for path in state.iterdir()} - {CHECKSUMS} == set(FILES) - {CHECKSUMS}
