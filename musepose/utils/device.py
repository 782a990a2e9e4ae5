"""Which device to compute on, and in which floating-point type."""

import sys
from textwrap import shorten

import torch

from musepose.utils import launch
from musepose.utils.errors import UserError


def choose_device(name: str | None) -> torch.device:
    """The named device, else cuda, else mps, else cpu, whichever is there. Raises UserError: it is not there."""
    if name is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type == "meta":
            raise RuntimeError("it computes nothing")
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        reason = shorten(str(error).strip().split("\n")[0].split(". ")[0], 80, placeholder=" ...")
        raise UserError(f"--device {name} is not there ({reason}): try --device {choose_device(None)}") from None
    return device


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """The named type where the device is fit for it; else float32, said in a line on stderr."""
    dtype = getattr(torch, name)
    if dtype == torch.float32 or _is_fit(device, dtype):
        return dtype
    if launch.rank() == 0:
        print(f"{name} is not fit for the device {device}: using float32", file=sys.stderr)
    return torch.float32


def check_compiler(device: torch.device) -> None:
    """Raises UserError: torch.compile does not work on this device."""
    try:
        torch.compile(lambda x: x + 1)(torch.zeros(2, device=device))
    except Exception as error:  # many kinds: no C++ compiler, no Triton, a Python that is too new
        reason = shorten(str(error).strip().split("\n")[0], 100, placeholder=" ...")
        told = f"--compile does not work on {device} ({reason}): leave it out, or install a compiler"
        raise UserError(told) from None


def _is_fit(device: torch.device, dtype: torch.dtype) -> bool:
    if device.type == "cpu" and dtype == torch.float16:
        return False  # it runs, many times slower than float32, and overflows
    try:
        picture = torch.ones(1, 4, 8, 8, device=device, dtype=dtype)
        return bool(torch.conv2d(picture, picture.repeat(4, 1, 1, 1)[..., :3, :3]).isfinite().all())
    except (RuntimeError, NotImplementedError):
        return False
