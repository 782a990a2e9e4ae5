"""DWPose: YOLOX detects people, RTMPose 133 keypoints of each. The only module that builds mmdet and mmpose models.

Method: Z. Yang et al., "Effective Whole-body Pose Estimation with Two-stages Distillation" (2023); YOLOX, Z. Ge et al.
(2021); RTMPose, T. Jiang et al. (2023). mm_compat.py makes mmdet and mmpose run without compiled operators. This module
builds the models and loads their weights; yolox.py and rtmpose.py call them and import nothing of mm*. Each model is
built under its own default scope, because both packages register classes under the same names, and a scope set by one
would leak into the other. mm* is imported when a PoseDetector is constructed, not before.
"""

import pickle
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from musepose.models.state_dicts import numpy_globals, read_checkpoint, require_all, take_matching, warn_of_surplus
from musepose.pose.box_tracking import find_people
from musepose.pose.detectors.dwpose import mm_compat
from musepose.pose.detectors.dwpose.conv_bn_fusion import fuse_for_inference
from musepose.pose.detectors.dwpose.preprocess import batch_size, memory_format, resize_for_detection
from musepose.pose.detectors.dwpose.rtmpose import Rtmpose
from musepose.pose.detectors.dwpose.yolox import Yolox
from musepose.pose.draw import GRID
from musepose.pose.types import BODY, KEYPOINTS, People
from musepose.utils.device import choose_device
from musepose.utils.errors import UserError
from musepose.utils.files import DISK_FULL, require_file

REASON = 300  # characters of a reason in an error line
PREFETCH_PIXELS = 2**23  # limit of prepared frames in memory
# Mean score of the 17 body points from which a body looked for in the whole picture is believed. A score is the
# network's response, trained towards 1 where a point is certain. The puppets' config has a value that was measured; for
# the published weights this one lies between their visibility threshold of 0.3 and what they give to clear bodies.
WHOLE_PICTURE_SCORE = 0.4
FLAT = 6  # levels of standard deviation; in flatter pictures, such as black ones, a network's response means nothing


@dataclass(frozen=True, eq=False)
class Prepared:
    """A picture resized for the networks. The original is not kept."""

    rgb: np.ndarray  # (h, w, 3) uint8, at the detector's resolution
    size: tuple[int, int]  # width and height of the original picture


class PoseDetector:
    """Detects all people in a picture, with 133 whole-body keypoints each.

    The four files are mm configs and checkpoints of YOLOX and of RTMPose. Raises UserError: a file is missing or
    unreadable, a checkpoint does not match its config, the device is unavailable, mm packages are not installed.
    """

    def __init__(
        self,
        yolox_config: str | Path,
        yolox_ckpt: str | Path,
        dwpose_config: str | Path,
        dwpose_ckpt: str | Path,
        device: str | None = "cpu",  # None: the best available
        detect_resolution: int = 512,  # pixels, short side of the networks' input
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
        yolox, dwpose = _Network("mmdet", Path(yolox_config)), _Network("mmpose", Path(dwpose_config))
        with yolox.config_errors():
            self._yolox = Yolox(yolox.model, yolox.config)
        with dwpose.config_errors():
            meta = dwpose.dataset_meta()
            self._dwpose = Rtmpose(dwpose.model, dwpose.config, meta["flip_indices"])
            self._believed = float(dwpose.config.get("whole_picture_score", WHOLE_PICTURE_SCORE))
        if meta["num_keypoints"] != KEYPOINTS:
            raise UserError(f"{dwpose_config} is not a whole-body model: its data set must have {KEYPOINTS} keypoints")
        self.frames_at_once = self._frames_at_once(device)
        yolox_tensors = yolox.read(Path(yolox_ckpt))  # check both before loading either
        dwpose.load(dwpose.read(Path(dwpose_ckpt)), device)
        yolox.load(yolox_tensors, device)

    def _frames_at_once(self, device: torch.device) -> int:
        """Batch size for `detect`, in frames; smaller for large frames, to bound memory."""
        return max(1, min(batch_size(self._yolox.side**2, device), PREFETCH_PIXELS // self.detect_resolution**2))

    def __call__(
        self,
        rgb: np.ndarray,  # (h, w, 3) uint8
    ) -> People:
        """All people in one picture. If none is detected, the whole picture serves as one person's box.

        Then the scores are 0 unless the body's mean reaches the config's `whole_picture_score`: the network finds
        joints in empty pictures too.
        """
        return self.detect([rgb])[0]

    def find(self, frames: Iterable[np.ndarray], every: int = 1) -> Iterator[People]:
        """Everybody in each frame of a video, RGB uint8 (h, w, 3); see `find_people`."""
        return find_people(self, frames, every)

    def prepare(
        self,
        rgb: np.ndarray,  # (h, w, 3) uint8
    ) -> Prepared:
        """Preprocessing that needs no network. May run in another thread."""
        return Prepared(resize_for_detection(rgb, self.detect_resolution), rgb.shape[1::-1])

    def detect(
        self,
        pictures: Sequence[np.ndarray | Prepared],  # RGB, each (h, w, 3) uint8; or prepared
    ) -> list[People]:
        """All people in each picture of a batch."""
        prepared = self._prepared(pictures)
        with mm_compat.quiet():
            found = self._yolox([one.rgb for one in prepared])
            return self._people(prepared, found)

    def detect_inside(
        self,
        pictures: Sequence[np.ndarray | Prepared],  # as for `detect`
        boxes: Sequence[np.ndarray],  # each (n, 4) x0 y0 x1 y1 in pixels of its picture, n > 0
        box_scores: Sequence[np.ndarray],  # each (n,), passed through
    ) -> list[People]:
        """Keypoints of the people in given boxes: only RTMPose runs."""
        prepared = self._prepared(pictures)
        boxes = [some * _scale(one) for one, some in zip(prepared, boxes, strict=True)]
        with mm_compat.quiet():
            return self._people(prepared, list(zip(boxes, box_scores, strict=True)))

    def _prepared(self, pictures: Sequence[np.ndarray | Prepared]) -> list[Prepared]:
        return [one if isinstance(one, Prepared) else self.prepare(one) for one in pictures]

    def _people(self, prepared: list[Prepared], found: list[tuple[np.ndarray, np.ndarray]]) -> list[People]:
        """Add keypoints to detections, boxes (n, 4) in pixels of the resized picture and scores (n,) → People."""
        boxes = [some if len(some) else _whole(one.rgb) for one, (some, _) in zip(prepared, found, strict=True)]
        if not boxes:
            return []
        points, scores = self._dwpose([(one.rgb, box) for one, own in zip(prepared, boxes, strict=True) for box in own])
        ends = np.cumsum([len(some) for some in boxes])[:-1]
        for row, one, (own, _) in zip([0, *ends], prepared, found, strict=True):
            if not len(own) and (scores[row, BODY].mean() < self._believed or one.rgb.std() < FLAT):
                scores[row] = 0
        return [
            People(
                boxes=some.astype(np.float64) / _scale(one),
                box_scores=box_scores if len(box_scores) else np.zeros(1, np.float32),
                keypoints=own_points / one.rgb.shape[1::-1],
                scores=own_scores,
                fallback=not len(box_scores),
                size=one.size,
            )
            for one, some, (_, box_scores), own_points, own_scores in zip(
                prepared, boxes, found, np.split(points, ends), np.split(scores, ends), strict=True
            )
        ]


def _scale(one: Prepared) -> np.ndarray:
    """(4,) factors of a box from the original picture to the resized one."""
    return np.tile(np.divide(one.rgb.shape[1::-1], one.size), 2)


class _Network:
    """One mm model, built under the model's own default scope."""

    def __init__(self, scope: str, config_path: Path):
        self.scope = scope
        self.config_path = config_path
        self.config = _read_config(config_path)
        with self.config_errors():
            self.model = self._build().eval()

    @contextmanager
    def config_errors(self):
        """Errors that an unsuitable config raises inside the block become a UserError."""
        try:
            with self._scope():
                yield
        except UserError:
            raise
        except Exception as error:  # a config may hold anything, and mm packages check nothing
            raise UserError(
                f"{self.config_path} does not describe a model of {self.scope} ({_reason(error)}): "
                "use the config from configs/dwpose"
            ) from error

    def read(self, checkpoint: Path) -> dict[str, Tensor]:
        """The model's tensors from a checkpoint. Raises UserError if any is missing."""
        return matching_tensors(self.model.state_dict(), checkpoint)

    def load(self, tensors: dict[str, Tensor], device: torch.device) -> None:
        self.model.load_state_dict(tensors)
        fuse_for_inference(self.model).to(device=device, memory_format=memory_format(device))

    def dataset_meta(self) -> dict:
        """mmpose's metadata of the config's data set: number of keypoints, flip indices, …"""
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
        description.backbone.init_cfg = None  # otherwise it downloads weights that are overwritten anyway
        description.train_cfg = None
        # The registry looks names up in the current default scope.
        return revert_sync_batchnorm(MODELS.build(description))


def matching_tensors(
    wanted: dict[str, Tensor],  # the model's state dict
    checkpoint: Path,
) -> dict[str, Tensor]:
    """Read every tensor of `wanted` from a checkpoint, in the same shape. Surplus tensors give one warning.

    Only `num_batches_tracked` may be missing, which inference does not read. Raises UserError.
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
    """Replaces mmengine's HistoryBuffer (loss curves) when a checkpoint is unpickled, and discards its content."""

    def __setstate__(self, state) -> None:
        pass


def _history_method(owner: type, name: str) -> str:
    """Replaces `getattr` when a checkpoint is unpickled: only the four statistics of a HistoryBuffer are allowed."""
    if owner is not _LogHistory or name not in ("min", "max", "mean", "current"):
        raise pickle.UnpicklingError("Unsupported global: GLOBAL builtins.getattr of anything but a HistoryBuffer")
    return name


def mm_globals() -> list[tuple[object, str]]:
    """The allow-list of globals in mmengine's checkpoints, for `read_checkpoint`.

    Loss curves and data set descriptions hold NumPy's objects, and mmengine's HistoryBuffer, which pickles its methods
    through `getattr`.
    """
    return [
        *numpy_globals(),
        (_LogHistory, "mmengine.logging.history_buffer.HistoryBuffer"),
        (_history_method, "builtins.getattr"),
        (_history_method, "__builtin__.getattr"),
    ]


def _read_config(path: Path):
    """An mm config. It is Python code, which runs with the user's rights, so that no other format may seem harmless.

    mmengine would also read YAML and JSON, and run what `!!python/object` and `custom_imports` in them ask for.
    """
    from mmengine.config import Config

    if path.suffix != ".py":
        raise UserError(f"{path} is no .py file: mm configs are Python code, give one that you trust")
    try:
        return Config.fromfile(str(path))
    except Exception as error:  # of the code, which may raise anything
        if isinstance(error, OSError) and error.errno in DISK_FULL:  # mmengine works on a copy
            reason = f"cannot write to the temporary folder {tempfile.gettempdir()} ({error.strerror})"
            raise UserError(f"{reason}: free some space, or set TMPDIR") from error
        raise UserError(f"{path} cannot be read as an mm config ({_reason(error)}): fix it") from error


def _reason(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:REASON]


def _whole(picture: np.ndarray) -> np.ndarray:
    height, width = picture.shape[:2]
    return np.array([[0, 0, width, height]], dtype=np.float32)
