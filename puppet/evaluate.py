"""Evaluate puppet weights on held-out puppets: one job for each character and each pair of characters."""

import math
import multiprocessing
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import torch
from PIL import Image

from musepose.evaluation.report import save_json
from musepose.utils.files import complete_file
from musepose.utils.progress import progress_bar
from puppet.cross_identity_score import score_pair
from puppet.image_score import score_character
from puppet.options import Options, Outputs
from puppet.pose_score import score_detector
from puppet.score_options import check, has_detector, load_detector
from puppet.score_tables import filmstrip, summarise, tables
from puppet.world import HELD_OUT


def run_and_report(options: Options, outputs: Outputs) -> int:
    """Evaluate, print tables, write the files of `outputs`. → exit status. Raises UserError as `check` does."""
    measured = run(options)
    summary = summarise(measured)
    print(f"\n{tables(summary, measured['options'], measured['seconds'])}")
    if outputs.filmstrip:
        with complete_file(outputs.filmstrip) as partial:
            Image.fromarray(filmstrip(measured["characters"])).save(partial, format="PNG", optimize=True)
        print(f"\nwrote {outputs.filmstrip}")
    if outputs.json:
        for record in measured["characters"]:
            record.pop("filmstrip", None)
        save_json(outputs.json, {**summary, **measured})
        print(f"\nwrote {outputs.json}")
    return 0


def run(options: Options) -> dict[str, Any]:
    """Records of each character and each pair of characters, in order, for puppet.score_tables.

    Raises UserError as `check` does.
    """
    start = time.monotonic()
    check(options)
    jobs = [(score_character, options, k) for k in range(options.characters)]
    others = [(score_pair, options, k) for k in range(options.across)] + [(score_poses, options, 0)][: options.set_ups]
    # Long jobs first, so that the workers finish at about the same time.
    ordered = jobs[: options.motion] + (others if has_detector(options) else []) + jobs[options.motion :]
    records = list(progress_bar(_results(options, ordered), total=len(ordered)))
    records.sort(key=lambda record: record["number"])
    return {
        "options": {k: str(v) if isinstance(v, Path) else v for k, v in asdict(options).items()},
        "characters": [record for record in records if record["kind"] == "character"],
        "pairs": [record for record in records if record["kind"] == "pair"],
        "detector": next((record["figures"] for record in records if record["kind"] == "detector"), None),
        "seconds": time.monotonic() - start,
    }


def _results(options: Options, jobs: Sequence[tuple]) -> Iterator[dict[str, Any]]:
    """Run the jobs in this process, or in `workers` processes of one thread each; results come in any order."""
    if options.workers == 1:
        yield from map(_run_job, jobs)
        return
    with multiprocessing.get_context("spawn").Pool(options.workers, _one_thread) as pool:
        yield from pool.imap_unordered(_run_job, jobs)


def score_poses(options: Options, k: int) -> dict[str, Any]:
    """The detector alone, on held-out set-ups (see puppet.pose_score)."""
    figures = score_detector(load_detector(options), range(HELD_OUT, HELD_OUT + options.set_ups))
    known = {name: value if math.isfinite(value) else None for name, value in figures.items()}  # JSON has no NaN
    return {"kind": "detector", "number": k, "figures": known}


def _one_thread() -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def _run_job(job: tuple) -> dict[str, Any]:
    score, options, k = job
    return score(options, k)
