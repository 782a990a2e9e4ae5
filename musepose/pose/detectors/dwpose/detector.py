"""DWPose: YOLOX finds the persons in a picture, RTMPose 133 points of each. The one door to mmdet and mmpose.

Method: Z. Yang et al., "Effective Whole-body Pose Estimation with Two-stages Distillation" (2023); YOLOX, Z. Ge et al.
(2021); RTMPose, T. Jiang et al. (2023). What it takes to run mmdet and mmpose without anything compiled stands in
mm_compat.py. Here the models are built and their weights read; yolox.py and rtmpose.py call them, and import nothing of
mm*. Each model is built under its own default scope, because both packages register classes under equal names and
either one's scope would otherwise stay behind for the other. mm* is imported when a PoseDetector is made, not before.
"""

import codecs
import pickle
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from musepose.models.state_dicts import read_checkpoint, require_all, take_matching, warn_of_surplus
from musepose.pose.box_tracking import find_people
from musepose.pose.detectors.dwpose import mm_compat
from musepose.pose.detectors.dwpose.conv_bn_fusion import fuse_for_inference
from musepose.pose.detectors.dwpose.preprocess import batch_size, memory_format, resize_for_detection
from musepose.pose.detectors.dwpose.rtmpose import Rtmpose
from musepose.pose.detectors.dwpose.yolox import Yolox
from musepose.pose.draw import GRID
from musepose.pose.types import KEYPOINTS, People
from musepose.utils.device import choose_device
from musepose.utils.errors import UserError
from musepose.utils.files import require_file

HELD_PIXELS = 2**23  # of prepared frames that wait for the networks


@dataclass(frozen=True, eq=False)
class Prepared:
    """A picture as the networks begin with it, which is all that has to be kept of it."""

    rgb: np.ndarray  # (h, w, 3) uint8, at the detector's resolution
    size: tuple[int, int]  # width and height of the picture given


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
        yolox, dwpose = _Network("mmdet", Path(yolox_config)), _Network("mmpose", Path(dwpose_config))
        with yolox.described():
            self._yolox = Yolox(yolox.model, yolox.config)
        with dwpose.described():
            meta = dwpose.dataset_meta()
            self._dwpose = Rtmpose(dwpose.model, dwpose.config, meta["flip_indices"])
        if meta["num_keypoints"] != KEYPOINTS:
            raise UserError(f"{dwpose_config} is no whole-body model: its data set must have {KEYPOINTS} keypoints")
        self.frames_at_once = self._frames_at_once(device)
        yolox_tensors = yolox.read(Path(yolox_ckpt))  # both are checked before either is loaded
        dwpose.load(dwpose.read(Path(dwpose_ckpt)), device)
        yolox.load(yolox_tensors, device)

    def _frames_at_once(self, device: torch.device) -> int:
        """How many frames of a video are best given to `detect` together; few where they are large."""
        return max(1, min(batch_size(self._yolox.side**2, device), HELD_PIXELS // self.detect_resolution**2))

    def __call__(
        self,
        rgb: np.ndarray,  # (h, w, 3) uint8
    ) -> People:
        """Everybody in one picture. Where nobody is found, the whole picture is taken for a person's box."""
        return self.detect([rgb])[0]

    def find(self, frames: Iterable[np.ndarray], every: int = 1) -> Iterator[People]:
        """Everybody in each frame of a video, RGB uint8 (h, w, 3); see `find_people`."""
        return find_people(self, frames, every)

    def prepare(
        self,
        rgb: np.ndarray,  # (h, w, 3) uint8
    ) -> Prepared:
        """The part of the work that needs no network. It may be done in another thread."""
        return Prepared(resize_for_detection(rgb, self.detect_resolution), rgb.shape[1::-1])

    def detect(
        self,
        pictures: Sequence[np.ndarray | Prepared],  # RGB, each (h, w, 3) uint8; or prepared
    ) -> list[People]:
        """Everybody in each of some pictures, which go through the networks together."""
        seen = self._seen(pictures)
        with mm_compat.quiet():
            found = self._yolox([one.rgb for one in seen])
            return self._people(seen, found)

    def detect_inside(
        self,
        pictures: Sequence[np.ndarray | Prepared],  # as for `detect`
        boxes: Sequence[np.ndarray],  # each (n, 4) x0 y0 x1 y1 in pixels of its picture, n > 0
        box_scores: Sequence[np.ndarray],  # each (n,), are handed on
    ) -> list[People]:
        """The persons in boxes that are known already: only the keypoint network runs."""
        seen = self._seen(pictures)
        boxes = [some * _scale(one) for one, some in zip(seen, boxes, strict=True)]
        with mm_compat.quiet():
            return self._people(seen, list(zip(boxes, box_scores, strict=True)))

    def _seen(self, pictures: Sequence[np.ndarray | Prepared]) -> list[Prepared]:
        return [one if isinstance(one, Prepared) else self.prepare(one) for one in pictures]

    def _people(self, seen: list[Prepared], found: list[tuple[np.ndarray, np.ndarray]]) -> list[People]:
        """The keypoints of those found, boxes (n, 4) in the pixels of what was seen and scores (n,), as People."""
        boxes = [some if len(some) else _whole(one.rgb) for one, (some, _) in zip(seen, found, strict=True)]
        if not boxes:
            return []
        points, scores = self._dwpose([(one.rgb, box) for one, some in zip(seen, boxes, strict=True) for box in some])
        ends = np.cumsum([len(some) for some in boxes])[:-1]
        return [
            People(
                boxes=some.astype(np.float64) / _scale(one),
                box_scores=box_scores if len(box_scores) else np.zeros(1, np.float32),
                keypoints=mine / one.rgb.shape[1::-1],
                scores=sure,
                fallback=not len(box_scores),
                size=one.size,
            )
            for one, some, (_, box_scores), mine, sure in zip(
                seen, boxes, found, np.split(points, ends), np.split(scores, ends), strict=True
            )
        ]


def _scale(one: Prepared) -> np.ndarray:
    """(4,) factors of a box from the picture given to what the networks see."""
    return np.tile(np.divide(one.rgb.shape[1::-1], one.size), 2)


class _Network:
    """One mm model, built under the model's own default scope."""

    def __init__(self, scope: str, config_path: Path):
        self.scope = scope
        self.config_path = config_path
        self.config = _read_config(config_path)
        with self.described():
            self.model = self._build().eval()

    @contextmanager
    def described(self):
        """What a config that describes something else raises inside comes out as a UserError."""
        try:
            with self._scope():
                yield
        except (AttributeError, KeyError, TypeError, ValueError, AssertionError, ImportError) as error:
            raise UserError(
                f"{self.config_path} does not describe a model of {self.scope} ({type(error).__name__}: {error}): "
                "use the config from configs/dwpose"
            ) from error

    def read(self, checkpoint: Path) -> dict[str, Tensor]:
        """The model's tensors from a checkpoint. Raises UserError where it does not hold all of them."""
        return matching_tensors(self.model.state_dict(), checkpoint)

    def load(self, tensors: dict[str, Tensor], device: torch.device) -> None:
        self.model.load_state_dict(tensors)
        fuse_for_inference(self.model).to(device=device, memory_format=memory_format(device))

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
