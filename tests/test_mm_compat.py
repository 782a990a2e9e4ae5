"""Replacements for missing dependencies of the mm packages: correct, minimal, unused if the original is there."""

import subprocess
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import numpy as np
import pytest
import torch

from musepose.pose.detectors.dwpose import mm_compat
from musepose.utils.errors import UserError


def plain_nms(boxes, scores, threshold, offset):
    """Box suppression by its definition, one pair at a time, in the order of torch's own sort."""
    order = torch.from_numpy(scores).sort(descending=True, stable=False).indices.tolist()
    kept = []
    for i in order:
        if all(iou(boxes[i], boxes[k], offset) <= threshold for k in kept):
            kept.append(i)
    return kept


def iou(a, b, offset):
    width = min(a[2], b[2]) - max(a[0], b[0]) + offset
    height = min(a[3], b[3]) - max(a[1], b[1]) + offset
    shared = max(width, 0) * max(height, 0)
    sizes = [(x1 - x0 + offset) * (y1 - y0 + offset) for x0, y0, x1, y1 in (a, b)]
    return shared / (sum(sizes) - shared)


def random_boxes(generator, count, step):
    """Boxes on a grid of `step` pixels, so that equal IoUs and equal scores are common."""
    corner = generator.integers(0, 12, (count, 2))
    sides = generator.integers(1, 9, (count, 2))
    boxes = np.concatenate([corner, corner + sides], axis=1).astype(np.float32) * step
    return boxes, (generator.integers(0, 8, count) / 8).astype(np.float32)


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("threshold", [0.25, 0.5, 0.65])
def test_nms_equals_a_plain_reference_with_ties(threshold, offset):
    generator = np.random.default_rng(3)
    for count in (1, 2, 5, 40, 150):
        boxes, scores = random_boxes(generator, count, step=4)
        kept = mm_compat.greedy_nms(torch.from_numpy(boxes), torch.from_numpy(scores), threshold, offset)
        assert kept.tolist() == plain_nms(boxes, scores, threshold, offset)


def test_nms_keeps_boxes_exactly_at_the_threshold():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5]])  # IoU 0.5
    scores = torch.tensor([0.9, 0.8])
    assert mm_compat.greedy_nms(boxes, scores, 0.5).tolist() == [0, 1]
    assert mm_compat.greedy_nms(boxes, scores, 0.49).tolist() == [0]


def test_nms_of_no_boxes():
    kept = mm_compat.greedy_nms(torch.zeros(0, 4), torch.zeros(0), 0.5)
    assert kept.shape == (0,) and kept.dtype == torch.int64


def test_nms_lets_empty_boxes_suppress_nothing():
    boxes = torch.tensor([[5.0, 5, 5, 5], [5, 5, 5, 5], [0, 0, 10, 10]])
    assert sorted(mm_compat.greedy_nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5).tolist()) == [0, 1, 2]


def test_mmcv_uses_the_replacement():
    mm_compat.prepare()
    from mmcv.ops import batched_nms

    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 0, 10, 10], [0, 0, 10, 10]])
    dets, kept = batched_nms(
        boxes, torch.tensor([0.5, 0.9, 0.8]), torch.tensor([0, 0, 7]), dict(type="nms", iou_threshold=0.5)
    )
    assert kept.tolist() == [1, 2]  # the third is of another class
    assert torch.equal(dets[:, 4], torch.tensor([0.9, 0.8]))


def test_other_operators_name_themselves():
    with pytest.raises(NotImplementedError, match="`roi_align_forward`"):
        mm_compat._operators().roi_align_forward(1, 2)


@pytest.fixture(scope="module")
def prepared():
    """The mm packages, imported with the installed dependencies before a test replaces some."""
    mm_compat.prepare()


def loads(name, importable, monkeypatch):
    """Make `name` importable as a module of ours, or not at all; return the module or None."""
    if not importable:
        monkeypatch.setitem(sys.modules, name, None)
        return None
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, loader=None)
    monkeypatch.setitem(sys.modules, name, module)
    return module


@pytest.mark.parametrize("names", [["mmcv._ext"], [f"xtcocotools.{part}" for part in ("coco", "cocoeval", "mask")]])
def test_the_real_module_is_preferred(names, monkeypatch, prepared):
    real = [loads(name, True, monkeypatch) for name in names]
    mm_compat.prepare()
    assert [sys.modules[name] for name in names] == real


def test_with_torchvision_the_drawing_replacement_is_not_used(monkeypatch, prepared):
    loads("torchvision", True, monkeypatch)
    loads("torchvision.transforms", True, monkeypatch)
    monkeypatch.delitem(sys.modules, "mmpose.visualization.simcc_vis", raising=False)
    mm_compat.prepare()
    assert "mmpose.visualization.simcc_vis" not in sys.modules


def test_without_torchvision_heatmaps_name_the_missing_package(monkeypatch, prepared):
    loads("torchvision.transforms", False, monkeypatch)
    monkeypatch.delitem(sys.modules, "mmpose.visualization.simcc_vis", raising=False)
    mm_compat.prepare()
    with pytest.raises(NotImplementedError, match="torchvision"):
        sys.modules["mmpose.visualization.simcc_vis"].SimCCVisualizer()


def test_broken_compiled_module_is_replaced(monkeypatch, tmp_path):
    """An extension for another torch is found and fails on import."""
    (tmp_path / "broken_ext.py").write_text("raise ImportError('undefined symbol: _ZN3c10')")
    monkeypatch.syspath_prepend(tmp_path)
    assert not mm_compat._importable("broken_ext")


def test_xtcocotools_for_another_numpy_is_replaced(tmp_path):
    """Like its wheel: the package imports, its compiled module does not. In a new process: this one has another one."""
    package = tmp_path / "xtcocotools"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "mask.py").write_text(
        "raise ValueError('numpy.dtype size changed, may indicate binary incompatibility')"
    )
    for name in ("coco.py", "cocoeval.py"):
        (package / name).write_text("from . import mask")
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]);"
        "from musepose.pose.detectors.dwpose import mm_compat; mm_compat.prepare();"
        "import xtcocotools.mask; print(xtcocotools.mask.__name__)"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.strip() == "pycocotools.mask", done.stderr


def test_missing_mm_packages_are_a_plain_error(monkeypatch, prepared):
    loads("mmpose", False, monkeypatch)
    with pytest.raises(UserError, match="mmpose cannot be imported .*requirements"):
        mm_compat.prepare()


def test_nothing_is_imported_or_replaced_before_a_detector_is_created():
    """In a fresh process, because this one has mm packages loaded."""
    program = (
        "import sys, musepose.pose.detectors.dwpose.detector, musepose.pose.person_tracking;"
        "print(sorted(n for n in sys.modules if n.split('.')[0] in ('mmcv','mmdet','mmpose','mmengine','xtcocotools')))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
