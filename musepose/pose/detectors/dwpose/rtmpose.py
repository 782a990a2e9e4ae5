"""RTMPose: keypoints of people in given boxes, by mmpose's model without mmpose's pipelines.

Method: T. Jiang et al., "RTMPose: Real-Time Multi-Person Pose Estimation based on MMPose" (2023); SimCC, Y. Li et al.
(2022). Imports no mmpose; see detector.py.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from musepose.pose.detectors.dwpose.preprocess import Crop, Normalise, batch_size, memory_format

BOX_MARGIN = 1.25  # mmpose's default


class Rtmpose:
    """An mmpose RTMPose, with the preprocessing and decoding of its config.

    `flip_indices`: for each keypoint, the one it becomes in a mirror image. Raises KeyError, AttributeError or
    ValueError if the config describes another kind of network.
    """

    def __init__(self, model: nn.Module, config: Mapping, flip_indices: Sequence[int]) -> None:
        steps = {step["type"].split(".")[-1]: step for step in config["test_dataloader"]["dataset"]["pipeline"]}
        decoder, preprocessor = config["model"]["head"]["decoder"], config["model"]["data_preprocessor"]
        if steps["TopdownAffine"].get("use_udp") or decoder["type"] != "SimCCLabel" or decoder.get("use_dark"):
            raise ValueError("keypoints must be SimCC labels without DARK, crops without UDP")
        if not preprocessor.get("bgr_to_rgb"):
            raise ValueError("the network must see RGB")
        self.model, self.size = model, tuple(steps["TopdownAffine"]["input_size"])  # width, height in pixels
        self._margin = steps["GetBBoxCenterScale"].get("padding", BOX_MARGIN)
        self._split = decoder.get("simcc_split_ratio", 2.0)  # bins per pixel
        self._flip = config["model"].get("test_cfg", {}).get("flip_test", False)
        self._normalise = Normalise(preprocessor.get("mean"), preprocessor.get("std"))
        self._flip_indices = list(flip_indices)

    @torch.inference_mode()
    def __call__(
        self,
        persons: Sequence[tuple[np.ndarray, np.ndarray]],  # picture, RGB (h, w, 3) uint8, and box, x0 y0 x1 y1
    ) -> tuple[np.ndarray, np.ndarray]:
        """Keypoints (n, k, 2) in pixels of each person's picture and scores (n, k), float64."""
        device = next(self.model.parameters()).device
        width, height = self.size
        size = batch_size(width * height * (1 + self._flip), device)
        points, scores = [], []
        for start in range(0, len(persons), size):
            some = persons[start : start + size]
            crops = [Crop.around(box, self._margin, width / height) for _, box in some]
            pictures = np.empty((len(some), height, width, 3), np.uint8)
            for (rgb, _), crop, picture in zip(some, crops, pictures, strict=True):
                crop.extract(rgb, picture)
            found, found_scores = self._decode(*self._predict(self._normalise(pictures, device)))
            points += [crop.to_picture(p, self.size) for crop, p in zip(crops, found, strict=True)]
            scores.append(found_scores)
        return np.stack(points), np.concatenate(scores)

    def _predict(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """SimCC logits (n, k, bins) in x and in y; with flip test, the mean over the picture and its mirror image."""
        if not self._flip:
            return self.model.head.forward(self.model.extract_feat(images))
        both = torch.cat([images, images.flip(-1)]).contiguous(memory_format=memory_format(images.device))
        x_logits, y_logits = self.model.head.forward(self.model.extract_feat(both))
        (x_logits, x_flipped), (y_logits, y_flipped) = (
            rearrange(p, "(two n) k bins -> two n k bins", two=2) for p in (x_logits, y_logits)
        )
        x_logits = (x_logits + x_flipped[:, self._flip_indices].flip(-1)) * 0.5
        return x_logits, (y_logits + y_flipped[:, self._flip_indices]) * 0.5

    def _decode(self, x_logits: Tensor, y_logits: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Points (n, k, 2) in pixels of the crops, at the maxima, and scores (n, k), the lower of the two maxima."""
        (x_max, x), (y_max, y) = x_logits.max(-1), y_logits.max(-1)
        scores = torch.minimum(x_max, y_max).cpu().double().numpy()
        bins = torch.stack([x, y], -1).cpu().double().numpy()
        bins[scores <= 0] = -1  # not found, as in mmpose's SimCC decoding
        return bins / self._split, scores
