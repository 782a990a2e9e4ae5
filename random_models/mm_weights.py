"""Random YOLOX and DWPose weights, full-size or tiny, in the format of the published .pth files."""

from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[1]
YOLOX_CONFIG = ROOT / "configs/dwpose/yolox_l_8xb8-300e_coco.py"
DWPOSE_CONFIG = ROOT / "configs/dwpose/dwpose-l_384x288.py"

# Text replacements that turn the full-size configs into tiny ones.
_TINY = {
    YOLOX_CONFIG: [
        ("deepen_factor=1.0, widen_factor=1.0", "deepen_factor=0.1, widen_factor=0.125"),
        ("in_channels=[256, 512, 1024]", "in_channels=[32, 64, 128]"),
        ("out_channels=256", "out_channels=32"),
        ("num_csp_blocks=3", "num_csp_blocks=1"),
        ("in_channels=256, feat_channels=256", "in_channels=32, feat_channels=32"),
    ],
    DWPOSE_CONFIG: [
        ("deepen_factor=1.0", "deepen_factor=0.1"),
        ("widen_factor=1.0", "widen_factor=0.125"),
        ("in_channels=1024", "in_channels=128"),
        ("hidden_dims=256", "hidden_dims=32"),
        ("   s=128", "   s=16"),
    ],
}


def full_files(folder: Path, people: float = -1000.0) -> dict[str, Path]:
    """PoseDetector's four files for full-size models (352 MB), with the project's configs. See `tiny_files`."""
    return _files(folder, YOLOX_CONFIG, DWPOSE_CONFIG, people)


def tiny_files(folder: Path, people: float = -6.0) -> dict[str, Path]:
    """PoseDetector's four files for models of under 2.5 MB each.

    `people` is the bias of YOLOX's objectness: larger values give more persons, -1000 none. Boxes and keypoints are
    random.
    """
    configs = []
    for config, changes in _TINY.items():
        text = config.read_text()
        for old, new in changes:
            text = text.replace(old, new)
        configs.append(folder / f"tiny_{config.name}")
        configs[-1].write_text(
            f"{text}\nwhole_picture_score = -1e9  # random keypoints are believed, whatever their scores\n"
        )
    return _files(folder, *configs, people)


def published_extras() -> dict:
    """The other content of an mmengine checkpoint, loss curves included."""
    from mmengine.logging import HistoryBuffer

    return dict(
        meta=dict(epoch=300, mmengine_version="0.7.0", dataset_meta=dict(sigmas=np.full(133, 0.025, np.float32))),
        message_hub=dict(
            log_scalars=OrderedDict({"train/loss": HistoryBuffer([0.5, 0.25], [1, 1])}),
            runtime_info=OrderedDict(iter=np.int64(7), loss=np.float32(0.5)),
            resumed_keys=OrderedDict(),
        ),
    )


def _files(folder: Path, yolox_config: Path, dwpose_config: Path, people: float) -> dict[str, Path]:
    from musepose.pose.detectors.dwpose import mm_compat
    from musepose.pose.detectors.dwpose.detector import _Network

    mm_compat.prepare()
    files = dict(
        yolox_config=yolox_config,
        yolox_ckpt=folder / "yolox_l_8x8_300e_coco.pth",
        dwpose_config=dwpose_config,
        dwpose_ckpt=folder / "dw-ll_ucoco_384.pth",
    )
    with torch.random.fork_rng(devices=[]), torch.no_grad(), mm_compat.quiet():
        torch.manual_seed(1)
        yolox = _Network("mmdet", yolox_config).model
        _see_people(yolox, 255 * _picture(640, 640), people)
        dwpose = _Network("mmpose", dwpose_config).model
        _score_keypoints(dwpose, 4 * _picture(384, 288) - 2)
    meta = dict(CLASSES=("person",), epoch=300, config="model = dict()")
    torch.save(dict(state_dict=yolox.state_dict(), meta=meta), files["yolox_ckpt"])
    torch.save(dict(state_dict=dwpose.state_dict(), **published_extras()), files["dwpose_ckpt"])
    return files


def _picture(height: int, width: int) -> torch.Tensor:
    """A random image (1, 3, height, width) of blurred patches with the contrast of a photo, in [0, 1]."""
    layers = [torch.rand(1, 3, cells, cells) for cells in (3, 9, 30, 120)]
    full = [nn.functional.interpolate(layer, (height, width), mode="bilinear") for layer in layers]
    return (sum(full) - 2).mul(0.6).add(0.5).clamp(0, 1)


def _settle(model: nn.Module, picture: torch.Tensor) -> None:
    """Set the batch norms' statistics from one image, so that activations keep their scale, as in a trained model."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.train().momentum = 1.0
    model(picture, None, mode="tensor")
    for norm in norms:
        norm.eval()


def _see_people(yolox: nn.Module, picture: torch.Tensor, readiness: float) -> None:
    """Scale YOLOX's heads so that only the coarsest level detects, and detects large persons."""
    _settle(yolox, picture)
    head = yolox.bbox_head
    scores, boxes, certainties = yolox(picture, None, mode="tensor")
    for level in range(3):
        head.multi_level_conv_cls[level].weight *= 0.1 / scores[level].std()
        head.multi_level_conv_cls[level].bias[0] = 8.0
        head.multi_level_conv_reg[level].weight *= 0.03 / boxes[level].std()  # it varies much more on other images
        head.multi_level_conv_reg[level].bias.copy_(torch.tensor([0.5, 0.5, 1.4, 2.2]))  # in cells; log of the sides
        head.multi_level_conv_obj[level].weight *= 0.2 / certainties[level].std()
        head.multi_level_conv_obj[level].bias.fill_(readiness if level == 2 else -20.0)


def _score_keypoints(dwpose: nn.Module, crop: torch.Tensor) -> None:
    """Scale DWPose's heads so that the largest logits, the scores, are about 0.3, around the threshold."""
    _settle(dwpose, crop)
    for layer, logits in zip((dwpose.head.cls_x, dwpose.head.cls_y), dwpose(crop, None, mode="tensor"), strict=True):
        layer.weight *= 0.15 / logits.std()
