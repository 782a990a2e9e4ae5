"""Checkpoints as people have them: wrapped, prefixed, renamed, sharded, variants; damaged; files of other kinds."""

import json
import os
import pickle
import random
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from musepose.evaluation.networks import load_network
from musepose.models.state_dicts import read_checkpoint, refuse_other_motion_modules, require_all, take_matching
from musepose.models.weight_files import find_weights
from musepose.pose.detectors.dwpose.detector import mm_globals
from musepose.utils.errors import UserError

TENSORS = {"a.weight": torch.arange(12.0).reshape(3, 4), "b.bias": torch.tensor([1.0, 2.0])}


def assert_read(path) -> None:
    tensors = read_checkpoint(path)
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[key], TENSORS[key]) for key in TENSORS)


def prefixed(prefix, tensors=TENSORS):
    return {prefix + key: tensor for key, tensor in tensors.items()}


@pytest.mark.parametrize(
    "content",
    [
        prefixed("module."),
        prefixed("_orig_mod.module."),
        {"epoch": np.int64(3), "loss": np.float32(0.5), "state_dict": TENSORS},
        {"module": prefixed("module."), "global_steps": 7, "lr": torch.tensor(1e-5)},
        {"state_dict": prefixed("model."), "pytorch-lightning_version": "2.4"},
        {"params": TENSORS, "params_ema": prefixed("x.")},
        {"epoch": 3, "ema": TENSORS},
        {"model": {"state_dict": TENSORS}, "curve": np.arange(3.0)},
        {"state_dict": {key: torch.nn.Parameter(tensor) for key, tensor in TENSORS.items()}},
    ],
)
def test_wrappers_and_prefixes_are_stripped(tmp_path, content):
    torch.save(content, tmp_path / "m.pth")
    assert_read(tmp_path / "m.pth")
    assert not any(tensor.requires_grad for tensor in read_checkpoint(tmp_path / "m.pth").values())


def test_a_plain_name_wins_over_a_prefixed_one(tmp_path):
    torch.save(TENSORS | {"module.b.bias": torch.zeros(2)}, tmp_path / "m.pth")
    assert_read(tmp_path / "m.pth")


@pytest.mark.parametrize("name", ["m.pth", "m.bin", "m.ckpt", "m.safetensors", "m"])
@pytest.mark.parametrize("kind", ["safetensors", "zip", "pickle"])
def test_the_content_tells_the_format_whatever_the_name(tmp_path, name, kind):
    if kind == "safetensors":
        save_file(TENSORS, tmp_path / name)
    else:
        torch.save(TENSORS, tmp_path / name, _use_new_zipfile_serialization=kind == "zip")
    assert_read(tmp_path / name)


def test_a_zip_that_was_packed_again(tmp_path):
    torch.save(TENSORS, tmp_path / "plain.pth")
    with zipfile.ZipFile(tmp_path / "plain.pth") as plain, zipfile.ZipFile(tmp_path / "m.pth", "w", 8) as packed:
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    assert_read(tmp_path / "m.pth")


def test_a_zip_written_without_checksums(tmp_path):
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(TENSORS, tmp_path / "m.pth")
    finally:
        torch.serialization.set_crc32_options(before)
    assert_read(tmp_path / "m.pth")


def test_one_flipped_bit_in_a_zip_is_noticed(tmp_path):
    path = tmp_path / "m.pth"
    torch.save(TENSORS, path)
    data = bytearray(path.read_bytes())
    data[data.index(TENSORS["a.weight"].numpy().tobytes()) + 5] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"m.pth is truncated, damaged.*Bad CRC-32"):
        read_checkpoint(path)


def test_a_zip_bomb_is_not_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "m.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m/data.pkl", bytes(10_000_000))
    with pytest.raises(UserError, match="would unpack to more than 20 times its size"):
        read_checkpoint(tmp_path / "m.pth")


def shards(folder, stem="model", suffix=".safetensors", index="model.safetensors.index.json"):
    names = [f"{stem}-{n:05}-of-00002{suffix}" for n in (1, 2)]
    for name, (key, tensor) in zip(names, TENSORS.items(), strict=True):
        save = save_file if suffix == ".safetensors" else torch.save
        save({key: tensor}, folder / name)
    if index:
        (folder / index).write_text(json.dumps({"weight_map": dict(zip(TENSORS, names, strict=True))}))


@pytest.mark.parametrize(
    "layout",
    [
        {},
        {"index": ""},
        {"suffix": ".bin", "index": "model.bin.index.json"},
        {"stem": "model.fp16", "index": "model.safetensors.index.fp16.json"},
    ],
)
def test_shards_are_read(tmp_path, layout):
    shards(tmp_path, **layout)
    assert_read(find_weights(tmp_path, "pytorch_model", "model"))


@pytest.mark.parametrize("name", ["model.fp16.safetensors", "model.bf16.bin", "model.non_ema.safetensors"])
def test_variants_are_read(tmp_path, name):
    (save_file if name.endswith("tensors") else torch.save)(TENSORS, tmp_path / name)
    assert_read(find_weights(tmp_path, "model"))


def test_the_order_of_preference(tmp_path):
    names = ["model.non_ema.bin", "model.bf16.bin", "model.fp16.bin", "model.bin", "model.safetensors"]
    for name in names:
        (tmp_path / name).write_bytes(b"x")
        assert find_weights(tmp_path, "model").name == name
    assert find_weights(tmp_path, "other").name == "other.bin"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"weight_map": {"a": "../secret.bin"}}, "names the file '../secret.bin', not one beside it"),
        ({"weight_map": {"a": "/etc/passwd"}}, "not one beside it"),
        ({"weight_map": {"a": "model.bin.index.json"}}, "not one beside it"),
        ({"weight_map": {"a": 1}}, "names the file 1"),
        ({"weight_map": {}}, "names no files"),
        ([1], "names no files"),
        ({"weight_map": {"a": "model-00001-of-00002.bin"}}, "model-00001-of-00002.bin is missing: get all parts of"),
    ],
)
def test_a_wrong_index(tmp_path, content, message):
    path = tmp_path / "model.bin.index.json"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        read_checkpoint(path)


def test_a_missing_shard(tmp_path):
    shards(tmp_path)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(UserError, match="model-00002-of-00002.safetensors is missing: get all parts"):
        read_checkpoint(find_weights(tmp_path, "model"))


@pytest.mark.parametrize("name", ["m.pth", "m.safetensors"])
def test_an_unreadable_file_is_not_called_truncated(own_folder, name):
    save_file(TENSORS, own_folder / name)
    (own_folder / name).chmod(0)
    with pytest.raises(
        UserError, match=rf"{name} cannot be read \(Permission denied\): check the path and its permissions"
    ):
        read_checkpoint(own_folder / name)


def test_a_folder_is_not_called_missing(tmp_path):
    with pytest.raises(UserError, match="is a folder: check the path"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("tensor", "kind"),
    [
        (torch.zeros(3, 4, dtype=torch.int8), "int8"),
        (torch.zeros(3, 4, dtype=torch.complex64), "complex64"),
        (torch.zeros(3, 4).to_sparse(), "float32, not plainly stored"),
        (torch.zeros(3, 4, device="meta"), "float32, not plainly stored"),
    ],
)
def test_numbers_that_are_no_weights(tmp_path, tensor, kind):
    with pytest.raises(
        UserError, match=f"tensor a.weight is of the type {kind}: give weights of a floating-point type"
    ):
        take_matching({"a.weight": torch.Size([3, 4])}, {"a.weight": tensor}, tmp_path)


def motion_modules(positions, levels=4, middle=False, part="temporal_transformer."):
    names = [f"down_blocks.{n}" for n in range(levels)] + (["mid_block"] if middle else [])
    return {f"{n}.motion_modules.0.{part}pos_encoder.pe": torch.zeros(1, positions, 8) for n in names}


@pytest.mark.parametrize(
    ("tensors", "kind"),
    [
        (motion_modules(24), "motion module v1"),
        (motion_modules(32), "motion module v3"),
        (motion_modules(32, levels=3), "motion module for SDXL"),
        (motion_modules(32, part=""), "a motion adapter in diffusers' layout"),
    ],
)
def test_other_motion_modules_are_named(tmp_path, tensors, kind):
    with pytest.raises(UserError, match=f"mm.ckpt is .*{kind}, without a part for the middle block: give MusePose's"):
        refuse_other_motion_modules(tensors, tmp_path / "mm.ckpt")


def test_animatediff_v2_and_files_without_motion_modules_pass(tmp_path):
    refuse_other_motion_modules(motion_modules(32, middle=True), tmp_path)
    refuse_other_motion_modules(TENSORS, tmp_path)


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("harm",)


OTHER_CONTENT = [
    b"error code: 1010",  # what a proxy answers
    b"<!DOCTYPE html><html><body>404</body></html>",
    b"{}",
    b"\x00" * 100,
    b"\xff" * 7,
    b"PK\x03\x04",
    b"PK\x05\x06" + bytes(18),
    b"\x80",
    b"\x80\x02.",
    b"\x80\x02}q\x00.",
    b"\x80\x04K\x01.",
    b"\x80\x02N.\x80\x02N.\x80\x02N.",
    b"\x02\x00\x00\x00\x00\x00\x00\x00{}",
    b"\xff\xff\xff\xff\xff\xff\xff\xff{}",
    *(pickle.dumps(value, 2) for value in ([], {}, 1, "x", {"a": [1]}, Harmful(), [Harmful()], {"a": b"x" * 99})),
]


@pytest.mark.parametrize("content", OTHER_CONTENT)
@pytest.mark.parametrize("extra", [(), "mm"])
def test_other_files_give_one_line(tmp_path, monkeypatch, content, extra):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.pth").write_bytes(content)
    with pytest.raises(UserError) as error:
        read_checkpoint(tmp_path / "m.pth", mm_globals() if extra else ())
    assert str(error.value).isprintable() and len(str(error.value)) < 500
    assert os.listdir(tmp_path) == ["m.pth"]


@pytest.mark.parametrize("content", OTHER_CONTENT)
def test_other_files_are_no_torchscript(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.pt").write_bytes(content)
    with pytest.raises(UserError, match="m.pt is not TorchScript") as error:
        load_network(tmp_path / "m.pt", "--lpips", torch.device("cpu"))
    assert "\n" not in str(error.value) and os.listdir(tmp_path) == ["m.pt"]


def test_a_saved_checkpoint_is_no_torchscript(tmp_path):
    torch.save(TENSORS, tmp_path / "m.pt")
    with pytest.raises(UserError, match="m.pt is not TorchScript"):
        load_network(tmp_path / "m.pt", "--fvd", torch.device("cpu"))


@pytest.mark.parametrize("kind", ["zip", "pickle", "safetensors"])
def test_damaged_files_give_one_line_or_tensors(tmp_path, kind):
    """Cut, overwritten, and shortened in the middle, with fixed seeds."""
    whole, path, chooser = tmp_path / "whole", tmp_path / "m.pth", random.Random(kind)
    extras = {"meta": {"curve": np.arange(5.0), "step": np.int64(3)}, "state_dict": TENSORS}
    if kind == "safetensors":
        save_file(TENSORS, whole)
    else:
        torch.save(extras, whole, _use_new_zipfile_serialization=kind == "zip")
    good = whole.read_bytes()
    refused = 0
    for _ in range(300):
        data = bytearray(good)
        at, length = chooser.randrange(len(data)), chooser.choice((1, 1, 2, 8, 100))
        change = chooser.choice(("cut", "delete", "noise", "repeat"))
        if change == "cut":
            del data[at:]
        elif change == "noise":
            data[at : at + length] = chooser.randbytes(len(data[at : at + length]))
        else:
            data[at : at + length] = b"" if change == "delete" else data[at : at + length] * 2
        path.write_bytes(data)
        try:
            tensors = read_checkpoint(path, mm_globals())
            wanted = {key: tensor.shape for key, tensor in TENSORS.items()}
            require_all(wanted, take_matching(wanted, tensors, path), path)
        except UserError as error:
            refused += 1
            assert len(str(error)) < 900 and "\n" not in str(error)
    assert refused > 100
