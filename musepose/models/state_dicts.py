"""Checkpoint files (.pth, .bin, .safetensors, shards) → tensors, without ever running code that a file brings along."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from musepose.models.checkpoint_formats import read_content
from musepose.models.weight_files import is_index, shards_of
from musepose.utils.errors import UserError
from musepose.utils.files import require_file
from musepose.utils.published import other_hint, replace_hint

logger = logging.getLogger(__name__)
# Where training frameworks put a model's tensors in what they save: Lightning, OpenMMLab and timm, DeepSpeed, others.
WRAPPERS = (
    *("state_dict", "model_state_dict", "model", "module", "params", "net", "weights"),
    *("state_dict_ema", "params_ema", "ema"),  # where there is nothing else
)
PREFIXES = ("module.", "_orig_mod.", "model.")  # DistributedDataParallel's, torch.compile's, Lightning's


def read_checkpoint(path: Path, extra_globals: Sequence = ()) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint, memory-mapped where the format allows it, on the CPU.

    The format is known by the content, not by the name. An index of shards (….index.json) stands for all its files.
    `state_dict` and other WRAPPERS are unwrapped, PREFIXES of names stripped; entries that are no tensors are left out.
    Pickles are read with `weights_only=True`: tensors, plain containers and NumPy numbers, plus `extra_globals`
    (classes and functions, or (object, "module.name") pairs, as `torch.serialization.safe_globals` takes them).

    Raises UserError: missing, empty, unreadable, damaged, no checkpoint, or a pickle that wants to run code.
    """
    path = require_file(Path(path))
    parts = shards_of(path) if is_index(path) else [path]
    tensors: dict[str, Tensor] = {}
    for part in parts:
        tensors |= _tensors(read_content(part, [*numpy_globals(), *extra_globals]))
    if not tensors:
        raise UserError(f"{path} holds no tensors: {replace_hint(path)}")
    return tensors


def _tensors(content: object) -> dict[str, Tensor]:
    for _ in WRAPPERS:  # they may be nested, but not without end
        inner = next((content[key] for key in WRAPPERS if _holds_more(content, key)), None)
        if inner is None:
            break
        content = inner
    if not isinstance(content, dict):
        return {}
    named = [(k, v.detach()) for k, v in content.items() if isinstance(k, str) and isinstance(v, Tensor)]
    stripped = {_plain_name(key): tensor for key, tensor in named}
    return stripped | {key: tensor for key, tensor in named if key in stripped}  # a plain name wins


def _holds_more(content: object, key: str) -> bool:
    return isinstance(content, dict) and isinstance(content.get(key), dict) and len(content[key]) > 0


def _plain_name(key: str) -> str:
    prefix = next((prefix for prefix in PREFIXES if key.startswith(prefix)), None)
    return key if prefix is None else _plain_name(key.removeprefix(prefix))


class Skipped:
    """Stands for NumPy's objects when a checkpoint is unpickled, and discards their content: only tensors are needed.

    NumPy's own functions read freely what the pickle says, and crash (or worse) on a crafted or damaged one.
    """

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def numpy_globals() -> list[tuple[object, str]]:
    """The globals of NumPy's arrays, scalars and types in pickles, under the names of NumPy 1 and 2, all `Skipped`."""
    dtypes = {type(np.dtype(code)) for code in "?bhilqBHILQefdgFDUSOV"}
    names = [f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("_reconstruct", "scalar")]
    names += [
        "numpy.ndarray",
        "numpy.dtype",
        "_codecs.encode",
    ]  # `encode` makes bytes of a text in pickles of protocol 2
    names += [f"{dtype.__module__}.{dtype.__qualname__}" for dtype in dtypes]
    return [(Skipped, name) for name in names]


def take_matching(wanted: Mapping[str, torch.Size], tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The wanted tensors among those of the file `path`.

    Raises UserError: one has another shape, or numbers that are no weights (quantised, sparse, complex, whole numbers).
    """
    taken = {key: tensors[key] for key in wanted if key in tensors}
    for key, tensor in taken.items():
        if tensor.shape != wanted[key]:
            raise UserError(
                f"{path}: tensor {key} is {list(tensor.shape)} where {list(wanted[key])} is expected: "
                f"the file is of another architecture than its config says; {other_hint(path)}"
            )
        plain = tensor.layout == torch.strided and not tensor.is_quantized and not tensor.is_meta
        if not plain or not (tensor.is_floating_point() or tensor.ndim == 0):  # batch norms count in a whole number
            kind = f"{tensor.dtype}".removeprefix("torch.") + ("" if plain else ", not plainly stored")
            raise UserError(f"{path}: tensor {key} is of the type {kind}: give weights of a floating-point type")
    return taken


def require_all(wanted: Mapping[str, torch.Size], found: Mapping[str, Tensor], path: Path) -> None:
    """Raises UserError: a wanted tensor was not found; `path` is the file that ought to hold it."""
    missing = [key for key in wanted if key not in found]
    if missing:
        raise UserError(
            f"{path}: {len(missing)} of {len(wanted)} tensors are missing, "
            f"the first is {missing[0]} {list(wanted[missing[0]])}: {other_hint(path)}"
        )


def refuse_other_motion_modules(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raises UserError: these are motion modules of AnimateDiff that MusePose's UNet has no places for.

    AnimateDiff's v1 (24 positions) and v3 (32) have none in the middle block, v2 has; SDXL's have three levels.
    """
    keys = [key for key in tensors if ".motion_modules." in key]
    if not keys or any(key.startswith("mid_block.") for key in keys):
        return
    if not any(".temporal_transformer." in key for key in keys):
        kind = "a motion adapter in diffusers' layout"
    elif not any(key.startswith("down_blocks.3.") for key in keys):
        kind = "AnimateDiff's motion module for SDXL"
    else:
        positions = {tensors[key].shape[1] for key in keys if key.endswith(".pe") and tensors[key].ndim == 3}
        kind = f"AnimateDiff's motion module {({24: 'v1', 32: 'v3'}).get(min(positions, default=0), 'v1 or v3')}"
    raise UserError(
        f"{path} is {kind}, without a part for the middle block: give MusePose's motion_module.pth, or, to start a "
        "training from, AnimateDiff's v2 (mm_sd_v15_v2.ckpt)"
    )


def warn_of_surplus(names: Iterable[str], path: Path) -> None:
    """One line for tensors of the file `path` that no model wants, if there are any."""
    names = list(names)
    if names:
        logger.warning("%s: %d tensors are of no use here, the first is %s", path, len(names), names[0])
