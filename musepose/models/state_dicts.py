"""Checkpoint files (.pth, .bin, .safetensors) → tensors, without ever running code that a file brings along."""

import logging
import pickle
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from musepose.utils.errors import UserError
from musepose.utils.files import DOWNLOAD_HINT, require_file

logger = logging.getLogger(__name__)


def read_checkpoint(path: Path, extra_globals: Sequence = ()) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint, memory-mapped where the format allows it, on the CPU.

    A file that wraps its tensors in `state_dict` is unwrapped; entries that are no tensors are left out.
    Pickles are read with `weights_only=True`: tensors and plain containers, plus `extra_globals` (classes and
    functions, or (object, "module.name") pairs, as `torch.serialization.safe_globals` takes them).

    Raises UserError: the file is missing, empty, truncated, no checkpoint, or a pickle that wants to run code.
    """
    path = require_file(Path(path))
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path, extra_globals)
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    tensors = {k: v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, dict) else {}
    if not tensors:
        raise UserError(f"{path} holds no tensors: delete it and {DOWNLOAD_HINT}")
    return tensors


def take_matching(wanted: Mapping[str, torch.Size], tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The wanted tensors among those of the file `path`. Raises UserError: one has another shape."""
    taken = {key: tensors[key] for key in wanted if key in tensors}
    for key, tensor in taken.items():
        if tensor.shape != wanted[key]:
            raise UserError(
                f"{path}: tensor {key} is {list(tensor.shape)} where {list(wanted[key])} is expected: "
                f"the file is of another architecture than its config says; {DOWNLOAD_HINT}"
            )
    return taken


def require_all(wanted: Mapping[str, torch.Size], found: Mapping[str, Tensor], path: Path) -> None:
    """Raises UserError: a wanted tensor was not found; `path` is the file that ought to hold it."""
    missing = [key for key in wanted if key not in found]
    if missing:
        raise UserError(
            f"{path}: {len(missing)} of {len(wanted)} tensors are missing, "
            f"the first is {missing[0]} {list(wanted[missing[0]])}: {DOWNLOAD_HINT}"
        )


def warn_of_surplus(names: Iterable[str], path: Path) -> None:
    """One line for tensors of the file `path` that no model wants, if there are any."""
    names = list(names)
    if names:
        logger.warning("%s: %d tensors are of no use here, the first is %s", path, len(names), names[0])


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is truncated or no safetensors file ({error}): {_replace_hint()}") from error


def _read_pickle(path: Path, extra_globals: Sequence) -> object:
    with path.open("rb") as file:
        is_zip = file.read(4) == b"PK\x03\x04"  # torch >= 1.6; the older format cannot be mapped
    try:
        with torch.serialization.safe_globals(list(extra_globals)):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        refused = re.search(r"(?:GLOBAL|global) `?([\w.]+)", str(error))
        if refused and "unsupported" in str(error).lower():
            raise UserError(
                f"{path} is a pickle that brings code along ({refused[1]}), which is never run: "
                "use a file from a source that you trust, saved as plain tensors"
            ) from error
        raise UserError(f"{path} is no checkpoint: {_replace_hint()}") from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError, UnicodeDecodeError) as error:
        is_no_pickle = isinstance(error, KeyError)  # an opcode that there is not
        reason = "not a pickle" if is_no_pickle else re.split(r"[.\n]", str(error))[0] or type(error).__name__
        raise UserError(f"{path} is truncated or no checkpoint ({reason}): {_replace_hint()}") from error


def _replace_hint() -> str:
    return f"delete it and {DOWNLOAD_HINT}"
