"""Choice of device and floating-point type."""

import sys
from textwrap import shorten

import torch

from musepose.utils import launch
from musepose.utils.errors import UserError


def choose_device(name: str | None) -> torch.device:
    """The named device; default: cuda, else mps, else cpu. Raises UserError: the device is not available."""
    if name is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type == "meta":
            raise RuntimeError("it holds no data")
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        reason = shorten(str(error).strip().split("\n")[0].split(". ")[0], 80, placeholder=" ...")
        raise UserError(f"--device {name} is not available ({reason}): try --device {choose_device(None)}") from None
    return device


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """The named type if the device supports it; else float32, with a warning on stderr."""
    dtype = getattr(torch, name)
    if dtype == torch.float32 or _supports(device, dtype):
        return dtype
    if launch.rank() == 0:
        print(f"{device} does not support {name}: using float32", file=sys.stderr)
    return torch.float32


def check_compiler(device: torch.device) -> None:
    """Raises UserError: torch.compile does not work on this device."""
    try:
        torch.compile(lambda x: x + 1)(torch.zeros(2, device=device))
    except Exception as error:  # e.g. no C++ compiler, no Triton, an unsupported Python version
        reason = shorten(str(error).strip().split("\n")[0], 100, placeholder=" ...")
        message = f"--compile does not work on {device} ({reason}): leave it out, or install a compiler"
        raise UserError(message) from None


def _supports(device: torch.device, dtype: torch.dtype) -> bool:
    if device.type == "cpu" and dtype == torch.float16:
        return False  # it runs, but much slower than float32, and overflows
    try:
        picture = torch.ones(1, 4, 8, 8, device=device, dtype=dtype)
        return bool(torch.conv2d(picture, picture.repeat(4, 1, 1, 1)[..., :3, :3]).isfinite().all())
    except (RuntimeError, NotImplementedError):
        return False
