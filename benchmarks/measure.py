"""Interleaved timing of variants, peak memory of a process, a description of the machine, Markdown tables."""

import gc
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Table:
    """The result of a case: a title, one row per variant, and remarks below."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    remarks: Sequence[str] = ()

    def __str__(self) -> str:
        lines = [f"### {self.title}", "", _row(self.columns), _row(["---", *["---:"] * (len(self.columns) - 1)])]
        lines += [_row(row) for row in self.rows]
        return "\n".join([*lines, *(f"\n{remark}" for remark in self.remarks)])


def _row(cells: Sequence[Any]) -> str:
    return "| " + " | ".join(_cell(cell) for cell in cells) + " |"


def _cell(value: Any) -> str:
    """Numbers with three significant digits, or all digits before the decimal point."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def median_times(
    variants: Mapping[str, Callable[[], Any]],
    repeats: int = 3,
    warm_up: int = 1,
    synchronize: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Median seconds of each variant over `repeats` rounds. Each round runs all variants, so that load affects all."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(warm_up + repeats):
        for name, variant in variants.items():
            gc.collect()
            synchronize()
            start = time.perf_counter()
            variant()
            synchronize()
            if turn >= warm_up:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(taken) for name, taken in times.items()}


def with_speedups(times: Mapping[str, float]) -> list[tuple[str, float, float]]:
    """Table rows: variant, seconds, speed-up over the first variant."""
    first = next(iter(times.values()))
    return [(variant, seconds, first / seconds) for variant, seconds in times.items()]


def machine() -> str:
    """One line: processor, cores, memory, GPU, operating system, Python and torch versions."""
    import torch

    parts = [f"{_processor()}, {os.cpu_count()} cores"]
    if hasattr(os, "sysconf"):
        parts.append(f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB")
    parts += [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] or ["no GPU"]
    parts += [f"{platform.system()}", f"Python {platform.python_version()}", f"torch {torch.__version__}"]
    return ", ".join(parts)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.machine())


def revision() -> str:
    """The current commit, with a + if the working tree has changes; "unknown" outside a repository."""
    git = ["git", "-C", str(ROOT)]
    try:
        commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit.stdout.strip() + ("+" if changed.stdout.strip() else "")


def peak_memory(arguments: Sequence[str], status: int = 0, **options: Any) -> tuple[float, float]:
    """Run a Python command line in a subprocess. → (peak resident memory in MiB, seconds).

    Raises RuntimeError: the exit status is not `status`.
    """
    code = (
        "import resource, subprocess, sys; done = subprocess.run([sys.executable, *sys.argv[1:]]); "
        "print('PEAK', resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(done.returncode)"
    )
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=ROOT, **options)
    seconds = time.perf_counter() - start
    if done.returncode != status:
        raise RuntimeError(f"{' '.join(arguments)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return int(done.stdout.rsplit("PEAK", 1)[1]) / unit, seconds
