"""Run benchmark cases and print their Markdown tables, as they stand in RESULTS.md.

python -m benchmarks.run --list
python -m benchmarks.run unet_256 start_up
"""

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from datetime import date

from benchmarks.measure import Table, machine, revision
from musepose.cli.entry import run_script
from musepose.utils.errors import UserError

# case → (module in this folder, function)
CASES = {
    "start_up": ("start_up", "start_up"),
    "loading": ("loading", "loading"),
    "memory_plans": ("memory", "plans"),
    "stage_2_memory": ("memory", "stage_2_memory"),
    "unet_256": ("unet", "unet_256"),
    "unet_512": ("unet", "unet_512"),
    "compiled": ("compiled", "compiled"),
    "sampling": ("sampling", "sampling"),
    "length": ("sampling", "length"),
    "tail": ("sampling", "tail"),
    "drift": ("drift", "drift"),
    "processes": ("sampling", "processes"),
    "scaling": ("scaling", "scaling"),
    "pose_frames": ("frames", "pose_frames"),
    "pose_windows": ("frames", "pose_windows"),
    "training_samples": ("training_data", "training_samples"),
    "decoding": ("decoding", "decoding"),
    "pose_stage": ("pose", "pose_stage"),
    "det_every": ("pose", "det_every"),
    "pose_memory": ("pose", "pose_memory"),
    "blazepose": ("blazepose", "blazepose"),
}


def load_case(name: str) -> Callable[[], Table]:
    module, function = CASES[name]
    return getattr(importlib.import_module(f"benchmarks.{module}"), function)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", metavar="CASE", help="which cases; default: all")
    parser.add_argument("--list", action="store_true", help="list the cases and exit")
    args = parser.parse_args(arguments)
    unknown = [name for name in args.cases if name not in CASES]
    if unknown:
        raise UserError(f"there is no case {unknown[0]}: choose from {', '.join(CASES)}")
    names = args.cases or list(CASES)
    if args.list:
        for name in names:
            print(f"{name:20} {(load_case(name).__doc__ or '').splitlines()[0]}")
        return 0
    print(f"## {date.today()}, commit {revision()}\n\n`python -m benchmarks.run {' '.join(names)}`\n\n{machine()}")
    for name in names:
        print(f"\n{load_case(name)()}", flush=True)
    return 0


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]))
