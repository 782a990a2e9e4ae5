"""The files of a training state. Reading them never runs code: safetensors, or pickles with `weights_only=True`.

Names and contents are those of accelerate's `save_state`, whose own loading unpickles anything.
"""

import importlib
import json
import math
import zlib
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from safetensors.torch import load_file
from torch import nn

from musepose.utils.saving import open_to_save, save_tensors

CHECKSUMS = "checksums.json"  # file name → size, CRC-32; states of earlier versions have none
BLOCK = 1 << 24  # bytes read at a time
DEEPSPEED_TYPES = (  # what DeepSpeed's own files hold besides tensors and plain values
    ("deepspeed.runtime.zero.config", "ZeroStageEnum"),
    ("deepspeed.utils.tensor_fragment", "fragment_address"),
    ("deepspeed.runtime.fp16.loss_scaler", "LossScaler"),
    ("deepspeed.runtime.fp16.loss_scaler", "DynamicLossScaler"),
)


@dataclass
class StateParts:
    """What a training state consists of, in the order of the files' numbers."""

    models: list[nn.Module] = field(default_factory=list)  # as prepared by the accelerator
    optimizers: list[torch.optim.Optimizer] = field(default_factory=list)  # likewise
    others: list[Any] = field(default_factory=list)  # schedule, EMA: have state_dict and load_state_dict


def write_state(accelerator: Accelerator, folder: Path, parts: StateParts) -> None:
    """Write all files but the checksums. Every process must call this. Raises OSError: a file cannot be written."""
    if _is_deepspeed(accelerator):
        for number, model in enumerate(parts.models):
            model.save_checkpoint(str(folder), _numbered("pytorch_model", number))
    if not accelerator.is_main_process:
        return
    folder.mkdir(parents=True, exist_ok=True)
    if not _is_deepspeed(accelerator):
        for number, model in enumerate(parts.models):
            save_tensors(
                accelerator.unwrap_model(model).state_dict(), folder / f"{_numbered('model', number)}.safetensors"
            )
        for number, optimizer in enumerate(parts.optimizers):
            _save(optimizer.state_dict(), folder / f"{_numbered('optimizer', number)}.bin")
        if accelerator.scaler is not None:
            _save(accelerator.scaler.state_dict(), folder / "scaler.pt")
    for number, part in enumerate(parts.others):
        _save(part.state_dict(), folder / f"custom_checkpoint_{number}.pkl")


def write_checksums(folder: Path) -> None:
    """Write the checksums of all files in `folder`, subfolders included."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / CHECKSUMS)
    sums = {path.relative_to(folder).as_posix(): _checksum(path) for path in files}
    (folder / CHECKSUMS).write_text(json.dumps(sums, indent=1) + "\n", encoding="utf-8")


def read_state(accelerator: Accelerator, folder: Path, parts: StateParts) -> None:
    """Load the files of `folder` into `parts`. Raises any exception: a file is damaged, or does not fit `parts`."""
    _check_files(folder)
    if _is_deepspeed(accelerator):
        for number, model in enumerate(parts.models):
            name = _numbered("pytorch_model", number)
            _refuse_code(folder / name)  # DeepSpeed unpickles anything
            model.load_checkpoint(str(folder), name)
    else:
        for number, model in enumerate(parts.models):
            _load_model(accelerator.unwrap_model(model), folder / f"{_numbered('model', number)}.safetensors")
        for number, optimizer in enumerate(parts.optimizers):
            optimizer.load_state_dict(_load(folder / f"{_numbered('optimizer', number)}.bin"))
            _check_moments(optimizer)
        if accelerator.scaler is not None:
            accelerator.scaler.load_state_dict(_load(folder / "scaler.pt"))
    written = len(list(folder.glob("custom_checkpoint_*.pkl")))
    if written != len(parts.others):
        raise ValueError(f"it was written {'with' if written > len(parts.others) else 'without'} ema_decay")
    for number, part in enumerate(parts.others):
        _load_part(part, _load(folder / f"custom_checkpoint_{number}.pkl"))


def _load_part(part: Any, content: Any) -> None:
    """Load a schedule, or an EMA. Raises ValueError: it is of other weights, which EMAModel would take."""
    before = getattr(part, "shadow_params", None)
    if before is None:
        part.load_state_dict(content)
        return
    found = content["shadow_params"]  # without any it would keep those that it has
    if [getattr(one, "shape", None) for one in found] != [tensor.shape for tensor in before]:
        raise ValueError("its EMA weights are of another model")
    part.load_state_dict(content)


def _is_deepspeed(accelerator: Accelerator) -> bool:
    return accelerator.distributed_type == DistributedType.DEEPSPEED


def _numbered(name: str, number: int) -> str:
    return f"{name}_{number}" if number else name


def _save(content: object, path: Path) -> None:
    with open_to_save(path) as file:
        torch.save(content, file)


def _load(path: Path) -> Any:
    content = torch.load(path, map_location="cpu", weights_only=True)
    if not _is_finite(content):
        raise ValueError(f"{path.name} holds numbers that are not finite")
    return content


def _is_finite(content: object) -> bool:
    """Whether no tensor in nested lists and mappings holds NaN or infinity, and no number is NaN."""
    if isinstance(content, torch.Tensor):
        return not content.is_floating_point() or bool(content.isfinite().all())
    if isinstance(content, dict | list | tuple):
        return all(map(_is_finite, content.values() if isinstance(content, dict) else content))
    return not (isinstance(content, float) and math.isnan(content))


def _load_model(model: nn.Module, path: Path) -> None:
    tensors = {name.removeprefix("module."): tensor for name, tensor in load_file(path).items()}  # of several processes
    model.load_state_dict(tensors)
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise ValueError(f"{path.name} holds numbers that are not finite, in {name}")


def _check_moments(optimizer: torch.optim.Optimizer) -> None:
    """Raises ValueError: the optimizer's state is of other parameters. PyTorch would notice it in the first step."""
    for group in optimizer.param_groups:
        names = {frozenset(optimizer.state[p]) for p in group["params"] if p in optimizer.state}
        if len(names) > 1:
            raise ValueError("the optimizer's moments have several names")
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, torch.Tensor) and value.ndim and value.shape != parameter.shape:
                raise ValueError(f"the optimizer's {name} is {list(value.shape)} for {list(parameter.shape)} weights")


def _check_files(folder: Path) -> None:
    """Raises ValueError: a file is missing or is not as it was written, or one is a pipe, which has no end."""
    for file in folder.rglob("*"):
        if not (file.is_file() or file.is_dir()):
            raise ValueError(f"{file.name} is no file")
    path = folder / CHECKSUMS
    if not path.exists():
        return
    for name, expected in json.loads(path.read_text(encoding="utf-8")).items():
        file = folder / name
        if not file.is_file():
            raise ValueError(f"{name} is missing")
        if _checksum(file) != expected:
            raise ValueError(f"{name} is damaged")


def _checksum(path: Path) -> list[int]:
    size = checksum = 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            size, checksum = size + len(block), zlib.crc32(block, checksum)
    return [size, checksum]


def _refuse_code(folder: Path) -> None:
    """Raises pickle.UnpicklingError: a file below `folder` would run code, or is no file of tensors."""
    types = []
    for module, name in DEEPSPEED_TYPES:
        with suppress(ImportError, AttributeError):
            types.append(getattr(importlib.import_module(module), name))
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with torch.serialization.safe_globals(types):
            torch.load(path, map_location="cpu", weights_only=True, mmap=True)
