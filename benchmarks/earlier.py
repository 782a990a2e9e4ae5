"""The UNet step of this project's own earlier code, before any of it was made for speed, against the present one."""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import ROOT, Table, against_first, medians
from musepose.utils.errors import UserError

EARLIER = "100e88a"
FRAMES, SIDE = 8, 256


def earlier() -> Table:
    """A guided step, full size, 8 frames of 256 x 256: the code of commit 100e88a against the tree's, in turns."""
    import torch

    rows = []
    with checked_out(EARLIER) as tree, tempfile.TemporaryDirectory() as folder:
        for dtype in ("float32", "bfloat16"):
            results = [Path(folder) / name for name in ("earlier.pt", "now.pt")]
            with worker(tree, dtype, results[0]) as before, worker(ROOT, dtype, results[1]) as now:
                times = medians({f"{dtype}, {EARLIER}": before, f"{dtype}, now": now})
            first, second = map(torch.load, results)
            difference = float((first - second).abs().max() / first.abs().max())
            rows += [(*row, difference) for row in against_first(times)]
    title = f"A guided UNet step on a CPU, full size, {FRAMES} frames of {SIDE} x {SIDE}, against earlier code"
    columns = ("code", "seconds", "earlier / this", "largest difference / largest value")
    return Table(title, columns, rows, [f"{torch.get_num_threads()} threads."])


@contextlib.contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """A temporary folder with the files of a commit of this repository. Raises UserError where it has no such one."""
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(["git", "-C", str(ROOT), "archive", commit, "musepose"], capture_output=True)
        if archive.returncode:
            raise UserError(f"there is no commit {commit} here: clone the repository with its history")
        subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
        yield Path(folder)


@contextlib.contextmanager
def worker(tree: Path, dtype: str, result: Path) -> Iterator:
    """A process with the `musepose` of a tree, and a function that lets it take the step once."""
    command = [sys.executable, "-c", "from benchmarks.earlier import work; work()", dtype, str(result)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (tree, ROOT)))}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    with subprocess.Popen(command, cwd=tree, env=environment, **pipes) as process:

        def step() -> None:
            process.stdin.write("step\n")
            if not process.stdout.readline():
                raise RuntimeError(f"the process with {tree} ended")

        if process.stdout.readline().strip() != str(tree / "musepose"):
            raise RuntimeError(f"the process did not take {tree / 'musepose'}")
        yield step  # leaving closes the process's input, which ends it


def work() -> None:
    """One line when all is ready, one for every step; the prediction goes to a file."""
    import torch

    import musepose
    from benchmarks.models import full_size, step_inputs

    dtype, result = sys.argv[1:]
    unet = full_size("denoising_unet", getattr(torch, dtype))
    torch.manual_seed(0)
    sample, context, pose, *_ = step_inputs(unet, SIDE, FRAMES)
    print(Path(musepose.__file__).parent, flush=True)
    with torch.no_grad():
        for _ in sys.stdin:
            torch.save(unet(sample.repeat(2, 1, 1, 1), 500.0, context, pose, FRAMES), result)
            print("done", flush=True)
