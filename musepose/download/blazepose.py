"""BlazePose's networks out of the wheel that holds them, which pip fetches from wherever its user has it fetch from."""

import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from musepose.download.http import FetchError
from musepose.pose.detectors.blazepose.models import MODEL_FILES, WHEEL, WHEEL_RELEASE, is_whole

PIP = (sys.executable, "-m", "pip")
# The files are the same in every platform's wheel, so one is named that fetches the same from any.
DOWNLOAD = ("--no-deps", "--only-binary", ":all:", "--platform", "manylinux_2_28_x86_64", "--python-version", "3.11")
OPTIONS = ("--no-input", "--disable-pip-version-check", "--no-color")
NO_CONNECTION = ("NewConnectionError", "ConnectTimeoutError", "NameResolutionError", "ProxyError", "SSLError")


def read_networks(pip: Sequence[str] | None = None) -> dict[str, bytes]:
    """Fetch the wheel, and return its networks' bytes by their paths below the weights folder.

    Nothing is installed, and nothing of the wheel stays. Raises FetchError: pip is missing or fails, or what it brought
    is not the wheel or does not hold the published files.
    """
    with tempfile.TemporaryDirectory(prefix="musepose-") as folder:
        _download(pip or PIP, folder)
        wheels = list(Path(folder).glob("*.whl"))
        if len(wheels) != 1:
            raise FetchError(f"pip brought no wheel of {WHEEL}=={WHEEL_RELEASE}")
        return _unpack(wheels[0])


def _download(pip: Sequence[str], folder: str) -> None:
    wanted = f"{WHEEL}=={WHEEL_RELEASE}"
    command = [*pip, "download", *DOWNLOAD, *OPTIONS, "--dest", folder, wanted]
    try:
        run = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    except OSError as error:
        raise FetchError(f"pip cannot be run ({error.strerror})") from None
    if run.returncode == 0:
        return
    if "No module named pip" in run.stderr:
        raise FetchError(f"this Python has no pip, which fetches {wanted} (python -m ensurepip adds it)")
    unreachable = any(sign in run.stderr + run.stdout for sign in NO_CONNECTION)
    if unreachable:
        reason = "its index cannot be reached"
    elif "(from versions: none)" in run.stderr:  # said too where pip may not try again, and so not of what failed
        reason = "its index cannot be reached, or does not have it"
    else:
        reason = _last_error(run.stderr)
    raise FetchError(f"pip could not fetch {wanted} ({reason})", unreachable)


def _last_error(spoken: str) -> str:
    """The last of pip's error lines; of anything else that ends it, the last line."""
    lines = [line.strip() for line in spoken.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    return (errors or lines or ["it says nothing"])[-1]


def _unpack(wheel: Path) -> dict[str, bytes]:
    contents = {}
    try:
        with zipfile.ZipFile(wheel) as archive:
            for file in MODEL_FILES:
                if archive.getinfo(file.member).file_size == file.bytes:  # before anything is unpacked
                    contents[file.target] = archive.read(file.member)
    except (zipfile.BadZipFile, KeyError, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        raise FetchError(f"{wheel.name} is no whole wheel of {WHEEL} ({' '.join(str(error).split())})") from None
    wrong = [file.name for file in MODEL_FILES if not is_whole(contents.get(file.target, b""), file)]
    if wrong:
        raise FetchError(f"{wheel.name} holds another {', '.join(wrong)} than the published one")
    return contents
