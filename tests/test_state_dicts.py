"""Checkpoint files are read without executing code, and broken ones give a specific error."""

import os
import pickle

import pytest
import torch
from safetensors.torch import save_file

from musepose.models.state_dicts import read_checkpoint
from musepose.utils.errors import UserError

TENSORS = {"a": torch.arange(12.0).reshape(3, 4), "b": torch.tensor([1, 2])}


class Attack:
    def __reduce__(self):
        return os.system, ("touch attacked",)


def write(path, content, **options):
    if path.suffix == ".safetensors":
        save_file(content, path)
    else:
        torch.save(content, path, **options)
    return path


@pytest.mark.parametrize(
    ("name", "options"),
    [("m.pth", {}), ("m.bin", {}), ("m.safetensors", {}), ("old.pth", {"_use_new_zipfile_serialization": False})],
)
def test_reads_each_format(tmp_path, name, options):
    tensors = read_checkpoint(write(tmp_path / name, TENSORS, **options))
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[key], TENSORS[key]) for key in TENSORS)


def test_unwraps_a_training_checkpoint(tmp_path):
    path = write(tmp_path / "m.pth", {"state_dict": {**TENSORS, "version": 3}, "meta": {"epoch": 7}})
    assert read_checkpoint(path).keys() == TENSORS.keys()


@pytest.mark.parametrize("name", ["m.pth", "m.safetensors", "old.pth"])
def test_truncated(tmp_path, name):
    path = write(tmp_path / name, TENSORS, **({"_use_new_zipfile_serialization": False} if name == "old.pth" else {}))
    path.write_bytes(path.read_bytes()[:-24])
    with pytest.raises(UserError, match=r"truncated.*get a whole copy"):
        read_checkpoint(path)


@pytest.mark.parametrize("old", [False, True])
def test_code_is_never_run(tmp_path, monkeypatch, old):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "m.pth", {"a": Attack()}, _use_new_zipfile_serialization=not old)
    with pytest.raises(UserError, match="brings code along .*system"):
        read_checkpoint(path)
    assert not (tmp_path / "attacked").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"\n<html>404</html>", "no checkpoint, but a web page"),
        (b"hi\n", "no checkpoint, but the text .hi.: get a whole copy"),
        (pickle.dumps(Attack(), protocol=2), "brings code along|no checkpoint"),
    ],
)
def test_not_a_checkpoint(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.pth").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_checkpoint(tmp_path / "m.pth")
    assert not (tmp_path / "attacked").exists()


def test_missing_and_without_tensors(tmp_path):
    with pytest.raises(UserError, match=r"m.pth is missing: check the path"):
        read_checkpoint(tmp_path / "m.pth")
    published = tmp_path / "MusePose" / "pose_guider.pth"
    with pytest.raises(UserError, match=rf"missing: run `python download_weights.py --dir {tmp_path}`"):
        read_checkpoint(published)
    with pytest.raises(UserError, match="holds no tensors"):
        read_checkpoint(write(tmp_path / "list.pth", [1, 2]))
