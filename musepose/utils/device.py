"""Choice of device and floating-point type."""

import platform
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
    """The named type if the device supports it; else float32, with a warning on stderr.

    "auto": float16, on a CPU bfloat16, but float32 where these would not be faster.
    """
    if name == "auto":
        half = torch.bfloat16 if device.type == "cpu" else torch.float16
        fast = has_bfloat16_instructions() if device.type == "cpu" else _supports(device, half)
        return half if fast else torch.float32
    dtype = getattr(torch, name)
    if dtype == torch.float32 or _supports(device, dtype):
        return dtype
    if launch.rank() == 0:
        print(f"{device} does not support {name}: using float32", file=sys.stderr)
    return torch.float32


def has_bfloat16_instructions() -> bool:
    """Whether this processor multiplies bfloat16 numbers: AVX512-BF16 or AMX, on Arm BF16."""
    if platform.machine().lower() in ("arm64", "aarch64"):
        return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    known = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(check() for check in known if check is not None)


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
