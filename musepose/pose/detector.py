"""DWPose: YOLOX finds the persons in a picture, RTMPose 133 points of each. The one door to mmdet and mmpose.

Method: Z. Yang et al., "Effective Whole-body Pose Estimation with Two-stages Distillation" (2023); YOLOX, Z. Ge et al.
(2021); RTMPose, T. Jiang et al. (2023). What it takes to run mmdet and mmpose without anything compiled stands in
mm_compat.py. Each model is built and called under its own default scope, because both packages register classes under
equal names and either one's scope would otherwise stay behind for the other. mm* is imported when a PoseDetector is
made, not before.
"""

import codecs
import pickle
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from musepose.checkpoints import read_checkpoint, require_all, take_matching, warn_of_surplus
from musepose.device import choose_device
from musepose.errors import UserError
from musepose.files import require_file
from musepose.pose import mm_compat
from musepose.pose.draw import GRID, grid_size
from musepose.pose.keypoints import KEYPOINTS, People, select_people

_BATCH = 16  # pictures or persons that go through a network together, which bounds the memory of a crowd


class PoseDetector:
    """Finds everybody in a picture, with 133 whole-body keypoints each.

    The four files are mm configs and checkpoints of YOLOX and of RTMPose. Raises UserError: a file is missing or
    cannot be read, a checkpoint does not fit its config, the device is not there, mm packages are not installed.
    """

    def __init__(
        self,
        yolox_config: str | Path,
        yolox_ckpt: str | Path,
        dwpose_config: str | Path,
        dwpose_ckpt: str | Path,
        device: str | None = "cpu",  # None: the best that is there
        detect_resolution: int = 512,  # pixels, short side of what the networks see
    ):
        for option, config in (("--yolox_config", yolox_config), ("--dwpose_config", dwpose_config)):
            require_file(Path(config), f"give the config with {option}")
        for checkpoint in (yolox_ckpt, dwpose_ckpt):
            require_file(Path(checkpoint))
        if detect_resolution < GRID:
            raise UserError(f"detect_resolution is {detect_resolution}: give at least {GRID}, best 512")
        device = choose_device(device)
        mm_compat.prepare()
        self.detect_resolution = detect_resolution
        self._yolox = _Network("mmdet", Path(yolox_config))
        self._dwpose = _Network("mmpose", Path(dwpose_config))
        yolox_tensors = self._yolox.read(Path(yolox_ckpt))  # both are checked before either is loaded
        self._dwpose.load(self._dwpose.read(Path(dwpose_ckpt)), device)
        self._yolox.load(yolox_tensors, device)
        self._pose_meta = self._dwpose.dataset_meta()
        if self._pose_meta["num_keypoints"] != KEYPOINTS:
            raise UserError(f"{dwpose_config} is no whole-body model: its data set must have {KEYPOINTS} keypoints")

    def __call__(
        self,
        rgb: np.ndarray,  # (h, w, 3) uint8
    ) -> People:
        """Everybody in one picture. Where nobody is found, the whole picture is taken for a person's box."""
        return self.detect([rgb])[0]

    def detect(
        self,
        pictures: Sequence[np.ndarray],  # RGB, each (h, w, 3) uint8
    ) -> list[People]:
        """Everybody in each of some pictures, which go through the networks together."""
        small = [resize_for_detection(rgb, self.detect_resolution)[..., ::-1] for rgb in pictures]
        small = [np.ascontiguousarray(bgr) for bgr in small]
        found = [self._persons(result) for result in self._yolox([dict(img=bgr, img_id=0) for bgr in small])]
        boxes = [f[0] if len(f[0]) else _whole(bgr) for f, bgr in zip(found, small, strict=True)]
        crops = [
            dict(img=bgr, bbox=box[None], bbox_score=np.ones(1, np.float32), **self._pose_meta)
            for bgr, some in zip(small, boxes, strict=True)
            for box in some
        ]
        points = iter(self._dwpose(crops))
        return [
            _people(rgb, bgr, some, scores, [next(points).pred_instances for _ in some])
            for rgb, bgr, some, (_, scores) in zip(pictures, small, boxes, found, strict=True)
        ]

    @staticmethod
    def _persons(result) -> tuple[np.ndarray, np.ndarray]:
        """Boxes (n, 4) and scores (n,) of the persons in one of YOLOX's results."""
        found = result.pred_instances
        boxes, scores, labels = (v.float().cpu().numpy() for v in (found.bboxes, found.scores, found.labels))
        chosen = select_people(boxes, scores, labels)
        return boxes[chosen], scores[chosen]


def resize_for_detection(
    rgb: np.ndarray,  # (h, w, 3) uint8
    resolution: int,  # pixels
) -> np.ndarray:
    """Bring the short side to `resolution` and then both sides to the nearest multiple of 64.

    Area averaging when the picture shrinks, Lanczos when it grows, as the ControlNet annotators do.
    """
    height, width = rgb.shape[:2]
    grows = resolution > min(height, width)
    size = grid_size(width, height, resolution)
    return cv2.resize(rgb, size, interpolation=cv2.INTER_LANCZOS4 if grows else cv2.INTER_AREA)


class _Network:
    """One mm model with its test-time pipeline, each of them used under the model's own default scope."""

    def __init__(self, scope: str, config_path: Path):
        from mmengine.dataset import Compose

        self.scope = scope
        self.config_path = config_path
        self.config = _read_config(config_path)
        with self._scope():
            try:
                self.model = self._build().eval()
                self.pipeline = Compose(self._steps())
            except (AttributeError, KeyError, TypeError, ValueError, AssertionError, ImportError) as error:
                raise UserError(
                    f"{config_path} does not describe a model of {scope} ({type(error).__name__}: {error}): "
                    "use the config from configs/dwpose"
                ) from error

    def read(self, checkpoint: Path) -> dict[str, Tensor]:
        """The model's tensors from a checkpoint. Raises UserError where it does not hold all of them."""
        return matching_tensors(self.model.state_dict(), checkpoint)

    def load(self, tensors: dict[str, Tensor], device: torch.device) -> None:
        self.model.load_state_dict(tensors)
        self.model.to(device)

    def __call__(self, inputs: list[dict]) -> list:
        """One mm data sample with `pred_instances` for each input."""
        from mmengine.dataset import pseudo_collate

        results = []
        with self._scope(), torch.inference_mode():
            for start in range(0, len(inputs), _BATCH):
                batch = [self.pipeline(item) for item in inputs[start : start + _BATCH]]
                results += self.model.test_step(pseudo_collate(batch))
        return results

    def dataset_meta(self) -> dict:
        """What the data set of the config says about its keypoints, flip pairs included."""
        from mmpose.datasets.datasets.utils import parse_pose_metainfo
        from mmpose.registry import DATASETS

        with self._scope():
            return parse_pose_metainfo(DATASETS.get(self.config.test_dataloader.dataset.type).METAINFO)

    @contextmanager
    def _scope(self):
        from mmengine.registry import DefaultScope

        with DefaultScope.overwrite_default_scope(self.scope), mm_compat.quiet():
            yield

    def _build(self) -> nn.Module:
        from mmengine.model.utils import revert_sync_batchnorm
        from mmengine.registry import MODELS

        description = self.config.model.copy()
        description.backbone.init_cfg = None  # or it would fetch weights that are replaced at once
        description.train_cfg = None
        # Registered models are found through the scope that this runs under.
        return revert_sync_batchnorm(MODELS.build(description))

    def _steps(self) -> list[dict]:
        """The config's test-time pipeline, for pictures from memory. Full mm configs load from files: no matter."""
        first, *rest = self.config.test_dataloader.dataset.pipeline
        load = "mmdet.LoadImageFromNDArray" if self.scope == "mmdet" else "mmpose.LoadImage"
        return [dict(type=load), *(step for step in rest if step["type"] != "LoadAnnotations")]


def matching_tensors(
    wanted: dict[str, Tensor],  # the model's state dict
    checkpoint: Path,
) -> dict[str, Tensor]:
    """Read every tensor of `wanted` from a checkpoint, in the same shape. Surplus ones get one warning.

    `num_batches_tracked` alone may lack, which only training reads. Raises UserError.
    """
    given = read_checkpoint(checkpoint, mm_globals())
    counters = {name: tensor for name, tensor in wanted.items() if name.endswith("num_batches_tracked")}
    given = counters | given
    shapes = {name: tensor.shape for name, tensor in wanted.items()}
    found = take_matching(shapes, given, checkpoint)
    require_all(shapes, found, checkpoint)
    warn_of_surplus((name for name in given if name not in wanted), checkpoint)
    return found


class _LogHistory:
    """Takes the place of mmengine's HistoryBuffer (loss curves) in a checkpoint, and forgets what it held."""

    def __setstate__(self, state) -> None:
        pass


def _history_method(owner: type, name: str) -> str:
    """All of `getattr` that a checkpoint may ask for: the four statistics that a HistoryBuffer lists."""
    if owner is not _LogHistory or name not in ("min", "max", "mean", "current"):
        raise pickle.UnpicklingError("Unsupported global: GLOBAL builtins.getattr of anything but a HistoryBuffer")
    return name


def mm_globals() -> list[tuple[object, str]]:
    """What a checkpoint written by mmengine may name beside tensors, for `read_checkpoint`.

    Loss curves and data set descriptions hold numpy arrays, scalars and dtypes (under the names of numpy 1 and 2), and
    mmengine's HistoryBuffer, which pickles its methods through `getattr`.
    """
    builders = [value.__reduce__()[0] for value in (np.empty(0), np.float64(0))]  # of arrays and of scalars
    dtypes = {type(np.dtype(code)) for code in "?bhilqBHILQefdgFDUSO"}
    return [
        *((b, f"numpy.{core}.multiarray.{b.__name__}") for core in ("core", "_core") for b in builders),
        (np.ndarray, "numpy.ndarray"),
        (np.dtype, "numpy.dtype"),
        *((dtype, f"{dtype.__module__}.{dtype.__qualname__}") for dtype in dtypes),
        (codecs.encode, "_codecs.encode"),
        (_LogHistory, "mmengine.logging.history_buffer.HistoryBuffer"),
        (_history_method, "builtins.getattr"),
        (_history_method, "__builtin__.getattr"),
    ]


def _read_config(path: Path):
    from mmengine.config import Config

    try:
        return Config.fromfile(str(path))
    except Exception as error:  # a config is Python code: anything may go wrong in it
        raise UserError(f"{path} cannot be read as an mm config ({type(error).__name__}: {error}): mend it") from error


def _whole(picture: np.ndarray) -> np.ndarray:
    height, width = picture.shape[:2]
    return np.array([[0, 0, width, height]], dtype=np.float32)


def _people(rgb: np.ndarray, bgr: np.ndarray, boxes: np.ndarray, box_scores: np.ndarray, points: list) -> People:
    """Gather one picture's results, found in `bgr`, in the units of the picture given."""
    (height, width), (seen_height, seen_width) = rgb.shape[:2], bgr.shape[:2]
    keypoints = np.concatenate([np.asarray(p.keypoints, dtype=np.float64) for p in points])
    return People(
        boxes=boxes.astype(np.float64) * ([width, height] * 2) / ([seen_width, seen_height] * 2),
        box_scores=box_scores if len(box_scores) else np.zeros(len(boxes), np.float32),
        keypoints=keypoints / (seen_width, seen_height),
        scores=np.concatenate([np.asarray(p.keypoint_scores, dtype=np.float64) for p in points]),
        fallback=not len(box_scores),
        size=(width, height),
    )
