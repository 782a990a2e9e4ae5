"""YOLOX and RTMPose for training: built from their mm configs, with the losses of those configs.

Besides musepose/pose/detectors/dwpose/, this is the only module that uses mmdet and mmpose.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from musepose.pose.detectors.dwpose import mm_compat
from puppet.pose_samples import DetectionBatch, KeypointBatch

BODY, FACE, HANDS, HAND_WRISTS = slice(0, 17), slice(23, 91), slice(91, 133), [91, 112]
COVERED = [7, 8, 11, 12, 13, 14]  # elbows, hips and knees: under clothes, so they are learned last
BODY_WEIGHT, COVERED_WEIGHT = 6.0, 12.0  # in the loss: the other points, the face's and the hands', are learned sooner
FOUND = 0.5  # box score threshold, as in musepose/pose/person_tracking.py
OVERLAP = 0.5  # IoU above which a box matches a person
NEAR = 0.05  # error of a correct keypoint, as a fraction of the torso length
SEEN = 0.3  # score above which a keypoint counts as visible, as in musepose/pose/person_tracking.py


def build(scope: str, path: str | Path) -> tuple[nn.Module, object]:
    """→ the model of an mm config, randomly initialised for training, and the config."""
    mm_compat.prepare()
    from mmengine.config import Config
    from mmengine.logging import MMLogger
    from mmengine.registry import MODELS, DefaultScope

    config = Config.fromfile(str(path))
    MMLogger.get_current_instance().setLevel("WARNING")  # else it logs the initialisation of every tensor
    with DefaultScope.overwrite_default_scope(scope), mm_compat.quiet():
        model = MODELS.build(config.model)
        model.init_weights()
    return model.to(memory_format=torch.channels_last), config


class Yolox(nn.Module):
    """YOLOX with its losses (Ge et al. 2021): SimOTA assignment; the L1 box loss is used from the start."""

    def __init__(self, path: str | Path):
        super().__init__()
        self.model, config = build("mmdet", path)
        self.model.bbox_head.use_l1 = True
        steps = config.test_dataloader.dataset.pipeline
        self.side: int = next(step.scale[0] for step in steps if step.type == "Resize")

    def forward(self, batch: DetectionBatch) -> Tensor:
        from mmengine.structures import InstanceData

        images = batch.images.contiguous(memory_format=torch.channels_last)
        outputs = self.model.bbox_head(self.model.extract_feat(images))
        truth = [
            InstanceData(bboxes=b, labels=torch.zeros(len(b), dtype=torch.long, device=b.device)) for b in batch.boxes
        ]
        with torch.autocast(images.device.type, enabled=False):
            outputs = [[level.float() for level in output] for output in outputs]
            return sum(self.model.bbox_head.loss_by_feat(*outputs, truth, [{}] * len(truth)).values())

    @torch.inference_mode()
    def evaluate(self, batch: DetectionBatch) -> dict[str, float]:
        """Recall, and boxes without a person per person (surplus), in per cent."""
        from mmdet.structures import DetDataSample

        size = tuple(batch.images.shape[2:])
        samples = [DetDataSample(metainfo=dict(img_shape=size, ori_shape=size)) for _ in batch.boxes]
        hits, people, boxes = 0, 0, 0
        with mm_compat.quiet():
            results = self.model.predict(batch.images, samples, rescale=False)
        for result, truth in zip(results, batch.boxes, strict=True):
            found = result.pred_instances
            found = found.bboxes[found.scores > FOUND]
            hits += int((box_iou(truth, found).amax(1) > OVERLAP).sum()) if len(found) else 0
            people, boxes = people + len(truth), boxes + len(found)
        return dict(found=100 * hits / people, surplus=100 * max(boxes - hits, 0) / people)


class Dwpose(nn.Module):
    """RTMPose with its loss, KLDiscretLoss of SimCC labels (Li et al. 2022); labels of hidden points are flat."""

    def __init__(self, path: str | Path):
        super().__init__()
        self.model, config = build("mmpose", path)
        head = self.model.head
        self.size: tuple[int, int] = tuple(head.input_size)
        self.split: float = head.simcc_split_ratio
        self.sigma = tuple(float(s) for s in head.decoder.sigma)
        from mmpose.datasets.datasets.utils import parse_pose_metainfo
        from mmpose.registry import DATASETS

        data_set = DATASETS.get(f"mmpose.{config.test_dataloader.dataset.type}")
        self.flip_indices: list[int] = parse_pose_metainfo(data_set.METAINFO)["flip_indices"]

    def forward(self, batch: KeypointBatch) -> Tensor:
        predicted = self._predict(batch.images)
        weights = torch.ones(batch.visible.shape, device=batch.visible.device)
        weights[:, BODY] = BODY_WEIGHT
        weights[:, COVERED] = COVERED_WEIGHT
        weights = weights * torch.where(batch.visible, 1.0, 0.25)
        with torch.autocast(batch.images.device.type, enabled=False):
            predicted = tuple(p.float() for p in predicted)
            labels = tuple(
                simcc_labels(batch.keypoints[..., axis], batch.visible, self.size[axis], self.split, self.sigma[axis])
                for axis in (0, 1)
            )
            return self.model.head.loss_module(predicted, labels, weights)

    def _predict(self, images: Tensor) -> tuple[Tensor, Tensor]:
        normalise = self.model.data_preprocessor
        images = (images.flip(1) - normalise.mean) / normalise.std  # BGR → RGB
        images = images.contiguous(memory_format=torch.channels_last)
        return self.model.head.forward(self.model.extract_feat(images))

    @torch.inference_mode()
    def evaluate(self, batch: KeypointBatch) -> dict[str, float]:
        """Per cent of visible points within NEAR of the torso length, by part; and of points with correct visibility.

        `kept` is the per cent of visible points that count as visible.
        """
        along, across = self._predict(batch.images)
        points = torch.stack([along.argmax(-1), across.argmax(-1)], -1) / self.split
        score = torch.minimum(along.amax(-1), across.amax(-1)).float()
        near = (points - batch.keypoints).norm(dim=-1) < NEAR * batch.torso[:, None]
        parts = dict(body=BODY, wrists=HAND_WRISTS, hands=HANDS, face=FACE)
        figures = {name: float(near[:, p][batch.visible[:, p]].float().mean()) for name, p in parts.items()}
        correct = float(((score > SEEN) == batch.visible).float().mean())
        kept = float((score > SEEN)[batch.visible].float().mean())
        return {name: 100 * value for name, value in (figures | dict(visibility=correct, kept=kept)).items()}


def simcc_labels(
    positions: Tensor,  # (b, k) pixels along one axis
    visible: Tensor,  # (b, k) bool
    size: int,  # pixels
    split: float,  # bins per pixel
    sigma: float,  # bins
) -> Tensor:  # (b, k, bins)
    """Gaussians of height 1 around the nearest bin, a batched version of mmpose's SimCCLabel; zeros if hidden."""
    bins = torch.arange(round(size * split), device=positions.device)
    distance = bins - (positions * split).round()[..., None]
    return torch.exp(-distance.square() / (2 * sigma**2)) * visible[..., None]


def box_iou(one: Tensor, other: Tensor) -> Tensor:
    """Boxes (n, 4) and (m, 4), x0 y0 x1 y1 → intersection over union (n, m)."""
    low, high = torch.maximum(one[:, None, :2], other[:, :2]), torch.minimum(one[:, None, 2:], other[:, 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    area, other_area = ((b[:, 2:] - b[:, :2]).prod(-1) for b in (one, other))
    return shared / (area[:, None] + other_area - shared)


def half_tensors(model: nn.Module) -> dict[str, Tensor]:
    """State dict with parameters in float16; batch norm statistics stay float32, as variances may overflow."""
    parameters = {name for name, _ in model.named_parameters()}
    return {k: v.half() if k in parameters else v.clone() for k, v in model.state_dict().items()}


__all__ = ["Dwpose", "Yolox", "box_iou", "half_tensors", "simcc_labels"]
