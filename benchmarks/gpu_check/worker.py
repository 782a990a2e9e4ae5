"""The worker process: runs sections one after the other and reports errors. __main__.py starts and restarts it."""

import importlib
import json
import platform
import sys
import time
from pathlib import Path

import torch

from benchmarks.gpu_check import DEVICE_LOST, SECTIONS
from benchmarks.gpu_check.report import Report
from benchmarks.gpu_check.scale import SCALES, Check, DeviceLost, explain
from benchmarks.measure import machine, revision
from musepose.cli.entry import run_script
from musepose.memory.plan import GIB
from musepose.utils.device import choose_device


def work(names: list[str], scale: str, device: str, deadline: float, path: str) -> int:
    """Run the sections `names` and append to the report at `path`. → 0, or DEVICE_LOST if a new process must continue.

    Raises UserError: no such device.
    """
    check = Check(Report.read(Path(path)), SCALES[scale], choose_device(device), deadline)
    if not check.report.lines:
        report_environment(check, scale)
    for name in names:
        check.report.running = name
        check.report.save()
        lost = not run(check, name)
        check.report.finished.append(name)
        check.report.running = None
        check.report.save()
        if lost:
            return DEVICE_LOST
    return 0


def run(check: Check, name: str) -> bool:
    """Run a section and report its errors as a line. → whether the device can still be used."""
    section = SECTIONS[name]
    if check.seconds_left <= 0:
        check.report.add(section.part, name, left_out="time limit reached")
        return True
    start = time.perf_counter()
    try:
        with check.guarded(section.part, name):
            getattr(importlib.import_module(f"benchmarks.gpu_check.{section.module}"), name)(check)
    except DeviceLost as error:
        check.report.add(section.part, name, False, error=f"the device is lost: {explain(error)}")
        return False
    check.release()
    check.report.add(section.part, f"({name} took {time.perf_counter() - start:.0f} s)")
    return True


def report_environment(check: Check, scale: str) -> None:
    """Report the scale, commit, machine and library versions."""
    values = {"scale": scale, "commit": revision(), "machine": machine()}
    for package in ("numpy", "diffusers", "transformers", "accelerate", "triton"):
        try:
            values[package] = importlib.import_module(package).__version__
        except ImportError:
            values[package] = None
    if check.device.type == "cuda":
        free, total = torch.cuda.mem_get_info(check.device)
        values |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
        values |= {"memory_GiB": total / GIB, "free_GiB": free / GIB}
    check.report.add(0, f"gpu_check on {platform.node()}", **values)


if __name__ == "__main__":
    run_script(lambda: work(**json.loads(sys.argv[1])))
