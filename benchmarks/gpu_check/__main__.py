"""Checks and measures on a GPU what a CPU cannot show, in under six minutes.

    python -m benchmarks.gpu_check                   all of it
    python -m benchmarks.gpu_check --quick           fewer steps and sizes: two minutes
    python -m benchmarks.gpu_check --only 1,3        some parts
    python -m benchmarks.gpu_check --tiny            tests the check itself, on a CPU

Parts: 1 accuracy, 2 whole videos, 3 profile of a step, 4 training, tests, pose stage. Each line is printed at once and
added to a JSON file. A failed section is reported as a line, and the next section runs.
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
    for scale, text in (("quick", "fewer steps and sizes"), ("tiny", "tiny models and sizes; default device: cpu")):
        size.add_argument(f"--{scale}", dest="scale", action="store_const", const=scale, default="full", help=text)
    parser.add_argument("--only", metavar="PARTS", help=f"parts or sections, such as 1,3 or {next(iter(SECTIONS))}")
    parser.add_argument("--device", help="default: cuda")
    parser.add_argument("--minutes", type=float, help="start no section after these; default: 6, 2 with --quick")
    parser.add_argument("--json", type=Path, default=Path("output/gpu_check.json"), help="default: %(default)s")
    return parser.parse_args(arguments)


def choose(only: str | None) -> list[str]:
    """Names of the sections that `only` selects by part or name. Raises UserError: no such part or section."""
    wanted = [str(part) for part in PARTS] if only is None else [word.strip() for word in only.split(",")]
    for word in wanted:
        if word not in SECTIONS and word not in map(str, PARTS):
            raise UserError(f"--only {word}: choose from {', '.join(map(str, PARTS))}, {', '.join(SECTIONS)}")
    return [name for name, section in SECTIONS.items() if name in wanted or str(section.part) in wanted]


def supervise(names: list[str], report: Report, command: Sequence[str], **settings: object) -> Report:
    """Run the sections in worker processes. If a worker dies, a new one starts with the section after the failed one.

    `settings` are the other arguments of worker.work. → the report that the workers wrote.
    """
    report.save()
    while names:
        arguments = json.dumps({"names": names, "path": str(report.path.resolve()), **settings})
        process = subprocess.Popen([*command, arguments], cwd=ROOT)
        try:
            status = process.wait()
        finally:
            process.terminate()
            process.wait()
        report = Report.read(report.path)
        if report.running is None and status not in (0, DEVICE_LOST):  # it failed before the first section
            break
        if report.running is not None:
            name, report.running = report.running, None
            report.finished.append(name)
            report.add(SECTIONS[name].part, name, False, error=f"the process died with exit status {status}")
        names = [name for name in names if name not in report.finished]
    return report


def main(arguments: Sequence[str] | None = None) -> int:
    asked = parse(arguments)
    names = choose(asked.only)
    minutes = MINUTES[asked.scale] if asked.minutes is None else asked.minutes
    deadline = time.time() + 60 * minutes
    device = asked.device or ("cpu" if asked.scale == "tiny" else "cuda")
    if device == "cpu" and asked.scale != "tiny":
        raise UserError("the full sizes take days on a CPU: give --tiny, which tests the check itself")
    command = [sys.executable, "-m", "benchmarks.gpu_check.worker"]
    report = supervise(names, Report(asked.json), command, scale=asked.scale, device=device, deadline=deadline)
    if not report.lines:  # the worker has printed the reason
        report.path.unlink()
        return 2
    print(f"{report.failures} of {len(report.lines)} lines are out of bounds or errors: {report.path}")
    return 1 if report.failures else 0


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]))
