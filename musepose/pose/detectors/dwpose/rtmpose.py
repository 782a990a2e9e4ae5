"""RTMPose's keypoints of persons whose boxes are known: mmpose's model, called without its pipelines.

Method: T. Jiang et al., "RTMPose: Real-Time Multi-Person Pose Estimation based on MMPose" (2023); SimCC, Y. Li et al.
(2022). mmpose is not imported here; see detector.py.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from musepose.pose.detectors.dwpose.preprocess import Crop, Normalise, batch_size, memory_format

BOX_MARGIN = 1.25  # mmpose's default


class Rtmpose:
    """An mmpose RTMPose and what its config says about pictures and keypoints.

    `mirrored` says which keypoint each one becomes in a mirror. Raises KeyError, AttributeError or ValueError where the
    config describes another kind of network.
    """

    def __init__(self, model: nn.Module, config: Mapping, mirrored: Sequence[int]) -> None:
        steps = {step["type"].split(".")[-1]: step for step in config["test_dataloader"]["dataset"]["pipeline"]}
        decoder, preprocessor = config["model"]["head"]["decoder"], config["model"]["data_preprocessor"]
        if steps["TopdownAffine"].get("use_udp") or decoder["type"] != "SimCCLabel" or decoder.get("use_dark"):
            raise ValueError("keypoints must be SimCC labels without DARK, crops without UDP")
        if not preprocessor.get("bgr_to_rgb"):
            raise ValueError("the network must see RGB")
        self.model, self.size = model, tuple(steps["TopdownAffine"]["input_size"])  # width, height in pixels
        self._margin = steps["GetBBoxCenterScale"].get("padding", BOX_MARGIN)
        self._split = decoder.get("simcc_split_ratio", 2.0)  # bins a pixel
        self._flip = config["model"].get("test_cfg", {}).get("flip_test", False)
        self._normalise = Normalise(preprocessor.get("mean"), preprocessor.get("std"))
        self._mirrored = list(mirrored)

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
                crop.cut(rgb, picture)
            found, sure = self._decode(*self._predict(self._normalise(pictures, device)))
            points += [crop.uncut(p, self.size) for crop, p in zip(crops, found, strict=True)]
            scores.append(sure)
        return np.stack(points), np.concatenate(scores)

    def _predict(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (n, k, bins) along and across; averaged over the picture and its mirror image, which go together."""
        if not self._flip:
            return self.model.head.forward(self.model.extract_feat(images))
        both = torch.cat([images, images.flip(-1)]).contiguous(memory_format=memory_format(images.device))
        along, across = self.model.head.forward(self.model.extract_feat(both))
        (along, along_mirrored), (across, across_mirrored) = (
            rearrange(p, "(two n) k bins -> two n k bins", two=2) for p in (along, across)
        )
        along = (along + along_mirrored[:, self._mirrored].flip(-1)) * 0.5
        return along, (across + across_mirrored[:, self._mirrored]) * 0.5

    def _decode(self, along: Tensor, across: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Points (n, k, 2) in pixels of the crops, the highest bins, and scores (n, k), the lower of both heights."""
        (sure_x, x), (sure_y, y) = along.max(-1), across.max(-1)
        scores = torch.minimum(sure_x, sure_y).cpu().double().numpy()
        bins = torch.stack([x, y], -1).cpu().double().numpy()
        bins[scores <= 0] = -1  # as SimCC's decoding marks what it did not find
        return bins / self._split, scores
