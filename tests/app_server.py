"""A server of the page for tests, in a process of its own, and a browser for it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
REQUIRED = os.environ.get("MUSEPOSE_BROWSER") == "required"  # by `make test-app`: then a missing part is a failure
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
PICTURE, DANCE = ROOT / "assets/images/ref.png", ROOT / "assets/videos/dance.mp4"
LIMIT = 50  # MB, --max_upload
PATIENCE = 90  # seconds that a job on a busy machine may take


def lacking(*packages: str, browser: bool = False) -> str:
    """What a test module lacks; empty if it can run, or if `make test-app` runs it, where it must."""
    if REQUIRED:
        return ""
    absent = [name for name in packages if find_spec(name) is None]
    absent += ["chromium"] if browser and CHROMIUM is None else []
    return f"the page's tests need {', '.join(absent)}: make test-app" if absent else ""


class Server:
    def __init__(self, url: str, folder: Path, process: subprocess.Popen) -> None:
        self.url, self.folder, self.process = url, folder, process


@contextmanager
def serving(folder: Path, *flags: str) -> Iterator[Server]:
    """Run app.py in an empty working folder; it prints its address when it listens."""
    command = [sys.executable, str(ROOT / "app.py"), "--port", "0", "--folder", str(folder / "served"), *flags]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "CUDA_VISIBLE_DEVICES": ""}
    log = open(folder / "log.txt", "w", encoding="utf-8")  # noqa: SIM115
    with (
        log,
        subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=log, text=True) as run,
    ):
        try:
            line = run.stdout.readline()
            assert line.startswith("the page: http"), (folder / "log.txt").read_text()
            yield Server(line.split()[-1].rstrip("/"), folder / "served", run)
        finally:
            run.terminate()
            assert run.wait(30) == 143, (folder / "log.txt").read_text()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("page"), "--max_upload", str(LIMIT), "--max_seconds", "30") as running:
        yield running


def write_blank(path: Path) -> Path:
    """A picture of nobody."""
    Image.new("RGB", (320, 320), (130, 130, 130)).save(path)
    return path
