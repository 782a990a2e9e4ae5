"""Quality of approximate sampling on held-out puppets; measures what its file does not hold yet, and prints tables.

python -m benchmarks.quality costs                 # FLOPs and processor seconds of the full-size UNet's passes
python -m benchmarks.quality speed                 # every variant of the table, three puppets
python -m benchmarks.quality steady --puppets 5 --only triangle,shift
python -m benchmarks.quality speed --first 6 --only exact,fast
python -m benchmarks.quality speed --table         # only prints
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.measure import ROOT, Table
from benchmarks.quality_variants import SEAMS, SPEED, STEADY, Variant
from benchmarks.step_costs import COLUMNS, COSTS, kinds_of, total
from musepose.evaluation.metrics import psnr, to_float
from musepose.evaluation.report import save_json
from musepose.models.weights import WeightPaths, scheduler_config
from musepose.pipelines.pose2video import Pose2VideoPipeline
from musepose.pipelines.schedulers import make_scheduler
from puppet.image_score import Subject, make_subject, motion_figures, picture_figures, seam_transitions
from puppet.world import HELD_OUT

SIZE = 192
EXACT_STEPS = 20  # of the variant whose cost is 1
CONFIGS = {1: "inference_stage_1.yaml", 2: "inference.yaml"}
FILE = Path("output/quality.json")


@cache
def pipeline(stage: int, dtype: str) -> Pose2VideoPipeline:
    return Pose2VideoPipeline.from_published(paths(stage), dtype=getattr(torch, dtype))


def paths(stage: int) -> WeightPaths:
    return WeightPaths.published(
        ROOT / "pretrained_weights" / "puppet", inference_config=ROOT / "configs" / "puppet" / CONFIGS[stage]
    )


@cache
def subject(puppet: int, frames: int) -> Subject:
    return make_subject(puppet, frames, SIZE)


@cache
def sample(puppet: int, variant: Variant) -> tuple[list[np.ndarray], Subject]:
    """Frames of a held-out puppet, all variants from the same noise."""
    shown = subject(puppet, variant.frames)
    made = pipeline(variant.stage, variant.dtype)
    made.scheduler = make_scheduler(scheduler_config(paths(variant.stage)), variant.scheduler)
    arguments = {"width": SIZE, "height": SIZE, "num_frames": variant.frames, "seed": HELD_OUT + puppet}
    frames = made.stream(shown.reference, shown.poses[: variant.frames], **arguments, **dict(variant.options))
    return list(frames), shown


def figures(puppet: int, variant: Variant) -> dict[str, Any]:
    """One variant on one puppet: see `picture_figures` and `motion_figures`; `exact`: PSNR to the exact result."""
    frames, shown = sample(puppet, variant)
    seams = seam_transitions(variant.frames, *SEAMS) if variant.frames > SEAMS[0] else None
    own, motion = picture_figures(frames, shown), motion_figures(frames, shown, seams)
    found = {
        **own,
        "change": motion["change"] / motion["true_change"],
        **{key: motion[key] for key in ("error", "seam_error", "rest_error") if key in motion},
    }
    if seams is not None:
        return found
    reference, _ = sample(puppet, variant.exact())
    true = picture_figures(reference, shown)
    near = [
        (psnr(to_float(x), to_float(y)), psnr(to_float(x), to_float(y), mask))
        for x, y, mask in zip(frames, reference, shown.masks, strict=False)
    ]
    whole, figure = np.minimum(near, 99).mean(axis=0).tolist()
    return found | {"exact": whole, "exact_figure": figure, "energy": own["gradient_energy"] / true["gradient_energy"]}


def measure(variants: Mapping[str, Variant], puppets: range, file: Path) -> dict[str, dict[str, Any]]:
    """→ figures by "variant/puppet"; those in `file` are not measured again, each new one is written at once."""
    known = json.loads(file.read_text()) if file.is_file() else {}
    for puppet in puppets:
        for name, variant in variants.items():
            key = f"{variant.key}/{puppet}"
            if key not in known:
                known[key] = figures(puppet, variant)
                file.parent.mkdir(parents=True, exist_ok=True)
                save_json(file, known)
                shown = ", ".join(f"{k} {v:.3f}" for k, v in known[key].items() if v is not None)
                print(f"{name} / {puppet}: {shown}", flush=True)
        sample.cache_clear()
        subject.cache_clear()
    return known


def table(title: str, variants: Mapping[str, Variant], puppets: range, known: Mapping[str, Any]) -> Table:
    """Means over the puppets that have been measured with all variants."""
    seams = any(variant.frames > SEAMS[0] for variant in variants.values())
    columns = {"figure": "figure, dB", "change": "change", "error": "error"}
    if seams:
        columns |= {"seam_error": "at seams", "rest_error": "inside", "gradient_energy": "gradient energy"}
    else:
        columns |= {"exact": "to 50 steps, dB", "exact_figure": "on the figure", "energy": "gradient energy"}
    rows, costs = [], {} if seams else COLUMNS
    for name, variant in variants.items():
        found = [known[key] for puppet in puppets if (key := f"{variant.key}/{puppet}") in known]
        if found:
            means = (f"{np.mean([one[column] for one in found]):.2f}" for column in columns)
            rows.append((name, *(speed(variant, cost, known) for cost in costs.values()), *means))
    return Table(title, ("variant", *costs, *columns.values()), rows)


def speed(variant: Variant, cost: str, known: Mapping[str, Any]) -> str:
    """How many times less a sampling costs than 20 exact steps in float32; empty: not measured."""
    exact, own = (known.get(cost.format(dtype)) for dtype in ("float32", variant.dtype))
    if exact is None or own is None:
        return ""
    steps = replace(variant.exact().sampling, num_inference_steps=EXACT_STEPS)
    return f"{total(kinds_of(steps), exact) / total(kinds_of(variant.sampling), own):.2f}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quality", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("case", choices=("costs", "speed", "steady"))
    parser.add_argument("--puppets", type=int, default=3, help="number of held-out puppets; default: 3")
    parser.add_argument("--first", type=int, default=0, help="number of the first of them; default: 0")
    parser.add_argument("--only", default="", help="variants whose names contain one of these, with commas")
    parser.add_argument("--file", type=Path, default=FILE, help=f"figures measured so far; default: {FILE}")
    parser.add_argument("--table", action="store_true", help="measure nothing")
    args = parser.parse_args(arguments)
    if args.case == "costs":
        known = json.loads(args.file.read_text()) if args.file.is_file() else {}
        for name, count in COSTS.items():
            known[name] = count()
            args.file.parent.mkdir(parents=True, exist_ok=True)
            save_json(args.file, known)
            print(name, {kind: round(cost, 2) for kind, cost in known[name].items()}, flush=True)
        return 0
    words, puppets = args.only.split(","), range(args.first, args.first + args.puppets)
    groups = SPEED if args.case == "speed" else STEADY
    for title, group in groups.items():
        variants = {name: one for name, one in group.items() if any(word in f"{title}: {name}" for word in words)}
        if not variants:
            continue
        known = measure(variants, range(0) if args.table else puppets, args.file)
        print(f"\n{table(title, variants, puppets, known)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
