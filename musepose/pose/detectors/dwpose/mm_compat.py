"""Makes mmdet and mmpose importable without their compiled operators; only detector.py calls this.

mmcv's compiled operators exist for few combinations of torch, CUDA and Python, and some requirements of mmpose no
longer build. YOLOX and RTMPose need only non-maximum suppression of them. So three narrow stand-ins go into
`sys.modules`, each only if the real module cannot be imported:

- `mmcv._ext`, the compiled operators: `nms` is implemented here, any other raises an error that names it;
- `xtcocotools`, a fork of pycocotools that mmpose imports for its data sets: pycocotools;
- `mmpose.visualization.simcc_vis`, a visualizer that imports torchvision: a class that raises when constructed.

Two more measures are in detector.py: each model is built under its own default scope, because mmpose and mmdet register
different classes under the same name; checkpoints are read with an allow-list. setuptools stays below 81, because mm
code imports pkg_resources.
"""

import importlib
import sys
import warnings
from importlib.machinery import ModuleSpec
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from musepose.utils.errors import UserError

_XTCOCO_PARTS = ("coco", "cocoeval", "mask")
_INSTALL_HINT = "install this project's requirements (see Set-up in the README)"


def prepare() -> None:
    """Install the stand-ins that this machine needs. Idempotent.

    Call it before the first import of mmdet or mmpose. Raises UserError if mmcv, mmdet or mmpose is not installed, or
    rejects another's version.
    """
    with quiet():
        _require("mmcv")
        if not _importable("mmcv._ext"):
            sys.modules["mmcv._ext"] = _operators()
        if not all(_importable(f"xtcocotools.{part}") for part in _XTCOCO_PARTS):
            _alias_pycocotools()
        _require("mmpose")
        if not _importable("torchvision.transforms"):
            sys.modules["mmpose.visualization.simcc_vis"] = _simcc_vis()
        for name in ("mmdet.models", "mmdet.datasets.transforms", "mmpose.models", "mmpose.datasets.transforms"):
            _require(name)


class quiet(warnings.catch_warnings):
    """Hides deprecation warnings that mm packages trigger (pkg_resources, autocast, meshgrid …)."""

    def __enter__(self) -> None:
        super().__enter__()
        for category in (DeprecationWarning, FutureWarning, UserWarning):
            warnings.simplefilter("ignore", category)


def greedy_nms(
    bboxes: Tensor,  # (n, 4) x0 y0 x1 y1
    scores: Tensor,  # (n,)
    iou_threshold: float,
    offset: int = 0,
) -> Tensor:
    """Non-maximum suppression, equal to mmcv's compiled operator.

    Boxes are visited by descending score; a box whose IoU with an earlier kept box is above the threshold is removed.
    `offset` (0 or 1) is added to every side length. As in mmcv the sort is not stable, which decides between equal
    scores. Runs on the CPU in the input's precision. Returns the indices of the kept boxes, highest score first, on
    the scores' device.
    """
    order = scores.detach().cpu().sort(dim=0, descending=True, stable=False).indices.numpy()
    x0, y0, x1, y1 = bboxes.detach().cpu().numpy()[order].T
    alive = np.ones(len(order), dtype=bool)
    with np.errstate(invalid="ignore", divide="ignore"):  # NaN, from empty or infinite boxes, suppresses nothing
        area = (x1 - x0 + offset) * (y1 - y0 + offset)
        for i in range(len(order)):
            if not alive[i]:
                continue
            rest = slice(i + 1, None)
            width = np.maximum(np.minimum(x1[i], x1[rest]) - np.maximum(x0[i], x0[rest]) + offset, 0)
            height = np.maximum(np.minimum(y1[i], y1[rest]) - np.maximum(y0[i], y0[rest]) + offset, 0)
            shared = width * height
            alive[rest] &= ~(shared / (area[i] + area[rest] - shared) > iou_threshold)
    return torch.from_numpy(order[alive].copy()).to(scores.device)


def _operators() -> ModuleType:
    module = _module("mmcv._ext")
    module.nms = greedy_nms

    def missing(name: str):
        if name.startswith("__"):  # looked up by Python itself
            raise AttributeError(name)

        def operator(*_args, **_kwargs):
            raise NotImplementedError(
                f"mmcv's compiled operator `{name}` is needed, but this mmcv has none: install mmcv with its operators"
            )

        return operator

    module.__getattr__ = missing
    return module


def _alias_pycocotools() -> None:
    # Listed explicitly, so that only what mmpose imports gets the alias.
    package = _module("xtcocotools")
    package.__path__ = []
    sys.modules["xtcocotools"] = package
    for part in _XTCOCO_PARTS:
        module = _require(f"pycocotools.{part}")
        sys.modules[f"xtcocotools.{part}"] = module
        setattr(package, part, module)


def _simcc_vis() -> ModuleType:
    class SimCCVisualizer:
        def __init__(self, *_args, **_kwargs):
            raise NotImplementedError("drawing SimCC heatmaps needs torchvision: install it")

    module = _module("mmpose.visualization.simcc_vis")
    module.SimCCVisualizer = SimCCVisualizer
    return module


def _module(name: str) -> ModuleType:
    module = ModuleType(name, f"Stand-in for {name}; see musepose/pose/detectors/dwpose/mm_compat.py.")
    module.__spec__ = ModuleSpec(name, loader=None)
    return module


def _importable(name: str) -> bool:
    """Whether `name` can be imported: a module compiled for another torch or numpy exists, but fails to load."""
    try:
        importlib.import_module(name)
    except (ImportError, OSError, RuntimeError, AttributeError, ValueError):  # ValueError: built against another numpy
        return False
    return True


def _require(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(f"{name} cannot be imported ({error}): {_INSTALL_HINT}") from error
    except AssertionError as error:  # how mm packages reject each other's versions
        raise UserError(f"{name} rejects an installed package ({error}): {_INSTALL_HINT}") from error
