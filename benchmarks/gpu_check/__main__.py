"""Checks and measures everything on a GPU that a processor cannot tell, in under six minutes.

    python -m benchmarks.gpu_check                   all of it
    python -m benchmarks.gpu_check --quick           fewer steps and sizes: two minutes
    python -m benchmarks.gpu_check --only 1,3        some parts
    python -m benchmarks.gpu_check --tiny            tries the check itself, on a processor

Parts: 1 accuracy, 2 whole videos, 3 where the time goes, 4 training, tests, pose stage. Each line is printed as soon as
it is known, and all of them stand in a JSON file at any time. What fails is a line, and the next thing goes on.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gpu_check import DEVICE_LOST, SECTIONS
from benchmarks.gpu_check.report import Report
from benchmarks.measure import ROOT
from musepose.cli.entry import Parser, run_script
from musepose.utils.errors import UserError

PARTS = sorted({section.part for section in SECTIONS.values()})
MINUTES = {"full": 6.0, "quick": 2.0, "tiny": 10.0}


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="-m benchmarks.gpu_check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    size = parser.add_mutually_exclusive_group()
    for scale, told in (("quick", "less of everything"), ("tiny", "tiny models and sizes; default device: cpu")):
        size.add_argument(f"--{scale}", dest="scale", action="store_const", const=scale, default="full", help=told)
    parser.add_argument("--only", metavar="PARTS", help=f"parts or sections, such as 1,3 or {next(iter(SECTIONS))}")
    parser.add_argument("--device", help="default: cuda")
    parser.add_argument("--minutes", type=float, help="after which nothing new is begun; default: 6, or 2 with --quick")
    parser.add_argument("--json", type=Path, default=Path("output/gpu_check.json"), help="default: %(default)s")
    return parser.parse_args(arguments)


def choose(only: str | None) -> list[str]:
    """The sections of the parts, or by the names, in `only`. Raises UserError: there is no such part or section."""
    wanted = [str(part) for part in PARTS] if only is None else [word.strip() for word in only.split(",")]
    for word in wanted:
        if word not in SECTIONS and word not in map(str, PARTS):
            raise UserError(f"--only {word}: choose from {', '.join(map(str, PARTS))}, {', '.join(SECTIONS)}")
    return [name for name, section in SECTIONS.items() if name in wanted or str(section.part) in wanted]


def supervise(names: list[str], report: Report, command: Sequence[str], **settings: object) -> Report:
    """Have worker processes do the sections; where one dies, its successor begins behind the section that killed it."""
    report.save()
    while names:
        told = json.dumps({"names": names, "path": str(report.path.resolve()), **settings})
        process = subprocess.Popen([*command, told], cwd=ROOT)
        try:
            status = process.wait()
        finally:
            process.terminate()
            process.wait()
        report = Report.read(report.path)
        if report.running is None and status not in (0, DEVICE_LOST):  # before it began with anything
            break
        if report.running is not None:
            name, report.running = report.running, None
            report.finished.append(name)
            report.say(SECTIONS[name].part, name, False, error=f"the process died with exit status {status}")
        names = [name for name in names if name not in report.finished]
    return report


def main(arguments: Sequence[str] | None = None) -> int:
    asked = parse(arguments)
    names = choose(asked.only)
    minutes = MINUTES[asked.scale] if asked.minutes is None else asked.minutes
    deadline = time.time() + 60 * minutes
    device = asked.device or ("cpu" if asked.scale == "tiny" else "cuda")
    if device == "cpu" and asked.scale != "tiny":
        raise UserError("a processor would take days: give --tiny, which tries the check itself")
    command = [sys.executable, "-m", "benchmarks.gpu_check.worker"]
    report = supervise(names, Report(asked.json), command, scale=asked.scale, device=device, deadline=deadline)
    if not report.lines:  # the worker has said why
        report.path.unlink()
        return 2
    print(f"{report.failures} of {len(report.lines)} lines are out of bounds or tell of an error: {report.path}")
    return 1 if report.failures else 0


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]))
