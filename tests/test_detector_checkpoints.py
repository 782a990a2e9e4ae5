"""Checkpoints of YOLOX and RTMPose: read without running code, compared tensor by tensor, faults named in one line."""

import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch
from tiny_detector import picture, tiny_detector, tiny_mm_files  # noqa: F401, two fixtures

from musepose.models.state_dicts import Skipped
from musepose.pose.detectors.dwpose.detector import PoseDetector, mm_globals
from musepose.utils.errors import UserError


def test_training_state_in_a_checkpoint_is_skipped(files):
    """The fixture's DWPose file has real loss curves: pickles of mmengine's HistoryBuffer."""
    content = torch.load(files["dwpose_ckpt"], weights_only=False)
    assert content["message_hub"]["log_scalars"]["train/loss"].mean() == 0.375
    with pytest.raises(pickle.UnpicklingError), torch.serialization.safe_globals([]):
        torch.load(files["dwpose_ckpt"], weights_only=True)
    with torch.serialization.safe_globals(mm_globals()):
        read = torch.load(files["dwpose_ckpt"], weights_only=True)
    skipped = [read["message_hub"]["runtime_info"]["loss"], read["meta"]["dataset_meta"]["sigmas"]]
    assert {type(value) for value in skipped} == {Skipped}
    assert read["state_dict"].keys() == content["state_dict"].keys()


@pytest.mark.parametrize("code, dtype", [("core", "<f4"), ("_core", "<i8")])
def test_arrays_of_numpy_1_and_2_are_skipped(tmp_path, code, dtype):
    """Pickles refer to numpy's internal modules, which numpy 2 renamed."""
    path = tmp_path / "arrays.pth"
    torch.save(
        dict(a=np.arange(3, dtype=dtype), b=np.arange(3, dtype=dtype)[1]), path, _use_new_zipfile_serialization=False
    )
    old = b"numpy._core.multiarray" if b"numpy._core.multiarray" in path.read_bytes() else b"numpy.core.multiarray"
    path.write_bytes(path.read_bytes().replace(old, f"numpy.{code}.multiarray".encode()))
    with torch.serialization.safe_globals(mm_globals()):
        read = torch.load(path, weights_only=True)
    assert [type(value) for value in read.values()] == [Skipped, Skipped]


class Evil:
    """Unpickling it makes a call."""

    def __init__(self, call):
        self.call = call

    def __reduce__(self):
        return self.call


def altered(files, folder, key="dwpose_ckpt", change=None, **extras):
    """`files` with one checkpoint replaced by a changed copy."""
    content = torch.load(files[key], weights_only=False)
    content |= extras
    if change:
        content["state_dict"] = OrderedDict(content["state_dict"])
        change(content["state_dict"])
    path = folder / files[key].name
    torch.save(content, path)
    return {**files, key: path}


@pytest.mark.parametrize("call", [(exec, ("raise SystemExit('ran')",)), (getattr, (np.ndarray, "tofile"))])
def test_code_in_a_checkpoint_never_runs(files, tmp_path, call):
    with pytest.raises(UserError, match="dw-ll_ucoco_384.pth is a pickle that brings code along"):
        PoseDetector(**altered(files, tmp_path, extra=Evil(call)))


def test_truncated_checkpoint(files, tmp_path):
    cut = tmp_path / "yolox_l_8x8_300e_coco.pth"
    cut.write_bytes(files["yolox_ckpt"].read_bytes()[:100_000])
    with pytest.raises(UserError, match="yolox_l_8x8_300e_coco.pth is truncated.*get a whole copy of it"):
        PoseDetector(**{**files, "yolox_ckpt": cut})


@pytest.mark.parametrize("key", ["yolox_ckpt", "dwpose_ckpt"])
def test_missing_weights_are_named(files, tmp_path, key):
    with pytest.raises(UserError, match="gone.pth is missing: check the path"):
        PoseDetector(**{**files, key: tmp_path / "gone.pth"})


def test_missing_tensor_is_named(files, tmp_path):
    changed = altered(files, tmp_path, change=lambda tensors: tensors.pop("head.cls_x.weight"))
    with pytest.raises(UserError, match=r"dw-ll_ucoco_384.pth: 1 of .* first is head.cls_x.weight \[576, 32\]"):
        PoseDetector(**changed)


def test_misshapen_tensor_is_named(files, tmp_path):
    changed = altered(files, tmp_path, change=lambda tensors: tensors.update({"head.cls_x.weight": torch.ones(2, 3)}))
    with pytest.raises(UserError, match=r"head.cls_x.weight is \[2, 3\] where \[576, 32\] is expected"):
        PoseDetector(**changed)


def test_exchanged_checkpoints_do_not_load(files):
    with pytest.raises(UserError, match="dw-ll_ucoco_384.pth.* of another architecture"):
        PoseDetector(**{**files, "yolox_ckpt": files["dwpose_ckpt"], "dwpose_ckpt": files["yolox_ckpt"]})


def test_surplus_tensors_get_one_line(files, tmp_path, caplog):
    extra = {"teacher.a": torch.ones(1), "teacher.b": torch.ones(1)}
    PoseDetector(**altered(files, tmp_path, change=lambda tensors: tensors.update(extra)))
    (line,) = [record.getMessage() for record in caplog.records if record.name.startswith("musepose")]
    assert "2 tensors" in line and "teacher.a" in line


def test_batch_counters_may_be_missing(files, tmp_path, detector):
    def drop(tensors):
        for name in [name for name in tensors if name.endswith("num_batches_tracked")]:
            del tensors[name]

    people = PoseDetector(**altered(files, tmp_path, change=drop))(picture())
    np.testing.assert_array_equal(people.keypoints, detector(picture()).keypoints)
