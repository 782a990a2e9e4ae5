"""YOLOX: boxes of the people in pictures, by mmdet's model without mmdet's pipelines.

Method: Z. Ge et al., "YOLOX: Exceeding YOLO Series in 2021". Imports no mmdet; see detector.py.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from musepose.pose.detectors.dwpose.mm_compat import greedy_nms
from musepose.pose.detectors.dwpose.nms import PERSON_LABEL, PERSON_SCORE, select_people
from musepose.pose.detectors.dwpose.preprocess import Normalise, batch_size, letterbox, memory_format


class Yolox:
    """An mmdet YOLOX, with the preprocessing and thresholds of its config.

    Raises KeyError, AttributeError or ValueError if the config describes another kind of detector.
    """

    def __init__(self, model: nn.Module, config: Mapping) -> None:
        steps = {step["type"].split(".")[-1]: step for step in config["test_dataloader"]["dataset"]["pipeline"]}
        width, height = steps["Resize"]["scale"]
        pad, test = steps["Pad"], config["model"]["test_cfg"]
        preprocessor = config["model"]["data_preprocessor"]
        if width != height or not steps["Resize"].get("keep_ratio") or not pad.get("pad_to_square"):
            raise ValueError("pictures must be fitted into a square")
        if width % preprocessor.get("pad_size_divisor", 1):
            raise ValueError(f"a square of {width} pixels is not a multiple of {preprocessor['pad_size_divisor']}")
        if test["nms"].get("type", "nms") != "nms" or test["nms"].get("class_agnostic"):
            raise ValueError("boxes must be suppressed by nms within each class")
        if preprocessor.get("bgr_to_rgb") or preprocessor.get("rgb_to_bgr"):
            raise ValueError("the network must see BGR")
        border = pad.get("pad_val", 0)
        self.model, self.side = model, width
        self._border = np.broadcast_to(np.asarray(border["img"] if isinstance(border, Mapping) else border), 3)
        self._normalise = Normalise(preprocessor.get("mean"), preprocessor.get("std"))
        self._threshold, self._iou = test["score_thr"], test["nms"]["iou_threshold"]
        self._strides = model.bbox_head.prior_generator.strides  # one (x, y) per level

    @torch.inference_mode()
    def __call__(
        self,
        pictures: Sequence[np.ndarray],  # RGB, each (h, w, 3) uint8
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Boxes (n, 4) x0 y0 x1 y1 in pixels and scores (n,) of the people in each picture, float32, best first."""
        device, results = next(self.model.parameters()).device, []
        size = batch_size(self.side**2, device)
        for start in range(0, len(pictures), size):
            results += self._batch(pictures[start : start + size], device)
        return results

    def _batch(self, pictures: Sequence[np.ndarray], device: torch.device) -> list[tuple[np.ndarray, np.ndarray]]:
        squares = np.empty((len(pictures), self.side, self.side, 3), np.uint8)
        squares[:] = self._border
        factors = [letterbox(rgb, square) for rgb, square in zip(pictures, squares, strict=True)]
        features = self.model.extract_feat(self._normalise(squares, device))
        levels = [self._level(level, number) for number, level in enumerate(features)]
        picture, boxes, scores = (torch.cat(parts).cpu() for parts in zip(*levels, strict=True))
        results = []
        for number, factor in enumerate(factors):
            mine = picture == number
            results.append(self._persons(boxes[mine] / boxes.new_tensor(factor * 2), scores[mine]))
        return results

    def _level(self, features: Tensor, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """Candidate cells of one level: picture index (n,), boxes (n, 4) in pixels of the square, scores (n,).

        A cell's score is its objectness times the best class score. So only cells with enough objectness are
        classified: the convolutions of the class branch run on the window around them.
        """
        head = self.model.bbox_head
        regression = head.multi_level_reg_convs[number](features)
        objectness = head.multi_level_conv_obj[number](regression)[:, 0].sigmoid()
        cells = (objectness > PERSON_SCORE).nonzero()
        if not len(cells):
            return cells[:, 0], features.new_zeros(0, 4), features.new_zeros(0)
        picture, row, column = cells.T
        offsets = head.multi_level_conv_reg[number](regression)[picture, :, row, column]
        stride = features.new_tensor(self._strides[number])
        centres = offsets[:, :2] * stride + torch.stack([column, row], 1) * stride
        sides = offsets[:, 2:].exp() * stride
        best, label = self._classes(features, number, cells).sigmoid().max(dim=1)
        scores = torch.where(label == PERSON_LABEL, best * objectness[picture, row, column], 0)
        return picture, torch.cat([centres - sides / 2, centres + sides / 2], 1), scores

    def _classes(self, features: Tensor, number: int, cells: Tensor) -> Tensor:
        """Logits (n, classes) of the cells (n, 3) picture, row, column."""
        head = self.model.bbox_head
        branch, last = head.multi_level_cls_convs[number], head.multi_level_conv_cls[number]
        reach = sum(m.kernel_size[0] // 2 for m in branch.modules() if isinstance(m, nn.Conv2d))
        top, left = (cells[:, 1:].amin(0) - reach).clamp(min=0).tolist()
        bottom, right = (cells[:, 1:].amax(0) + reach + 1).tolist()
        pictures, which = cells[:, 0].unique(return_inverse=True)
        window = features[pictures, :, top:bottom, left:right].contiguous(memory_format=memory_format(features.device))
        return last(branch(window))[which, :, cells[:, 1] - top, cells[:, 2] - left]

    def _persons(self, boxes: Tensor, scores: Tensor) -> tuple[np.ndarray, np.ndarray]:
        # A box below the person threshold cannot suppress a person, so it can be dropped before NMS.
        enough = (scores > PERSON_SCORE) & (scores >= self._threshold) & boxes.isfinite().all(1)
        boxes, scores = boxes[enough], scores[enough]
        kept = greedy_nms(boxes, scores, self._iou)
        boxes, scores = boxes[kept].numpy(), scores[kept].numpy()
        chosen = select_people(boxes, scores, np.full(len(boxes), PERSON_LABEL))
        return boxes[chosen], scores[chosen]
