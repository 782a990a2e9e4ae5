"""Sampling for the page: a job of test_stage_2.py in a folder, with previews, timing, and a zip that repeats it."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from musepose.app.alignment import KEYPOINTS, Aligned, by_hand, redraw
from musepose.app.bundle import write_bundle, write_config
from musepose.app.jobs import BUILDING, Job, JobReporter
from musepose.app.previews import StepPreviews, save_still
from musepose.app.timings import Timings, Work, timing_key
from musepose.inference.cases import Plan, check_weight_files, make_plan, read_config
from musepose.inference.load import load_pipeline
from musepose.inference.options import Inputs, Settings, merge_settings
from musepose.inference.runner import render
from musepose.utils.errors import UserError
from musepose.utils.files import project_file
from musepose.utils.options import build

# Name on the page → label, config of test_stage_2.py with weights and defaults.
MODELS: Mapping[str, tuple[str, Path]] = {
    "published": ("MusePose: people", Path("configs/test_stage_2.yaml")),
    "puppets": ("Puppets: the drawn figures of the example", Path("configs/puppet/demo.yaml")),
}
ZIP = "musepose.zip"


@dataclass(frozen=True)
class Generated:
    """The result of a sampling job: files in its folder."""

    result: Path
    comparison: Path
    reference: Path  # a still of the result's size
    still: Path  # the middle frame
    bundle: Path
    caption: str


def missing(model: str) -> str:
    """Why a model cannot be used; empty if it can."""
    try:
        config = read_config(project_file(MODELS[model][1]))
        weights = vars(build(Inputs, config=config)).copy()
        del weights["test_cases"]
        check_weight_files(weights)
    except UserError as error:
        return str(error)
    return ""


@lru_cache
def defaults(model: str) -> Settings:
    """The settings that the model's config names; the others as test_stage_2.py has them."""
    path = project_file(MODELS[model][1])
    return merge_settings({}, read_config(path).values, path)


def plan_of(
    folder: Path, model: str, aligned: Aligned, pose: Path, knobs: Mapping[str, Any], device: str | None
) -> Plan:
    """The plan of test_stage_2.py for one case; writes its config. Raises UserError: a knob, a file or the weights."""
    if model not in MODELS:
        raise UserError(f"model is {model}: choose from {', '.join(MODELS)}")
    values = dict(read_config(project_file(MODELS[model][1])).values)
    values["test_cases"] = {str(aligned.job.settings.imgfn_refer): [str(pose)]}
    folder.mkdir(parents=True, exist_ok=True)
    path = write_config(folder / "run.yaml", values)
    flags = {**knobs, "output": str(folder / "video"), "overwrite": True, "device": device}
    return make_plan(path, flags, datetime.now())


def make_work(
    model: str,
    aligned: Aligned,
    multipliers: Mapping[str, float],  # limb → factor by hand, times the one found
    knobs: Mapping[str, Any],  # flags of test_stage_2.py
    device: str | None,
    timings: Timings,
    folder: Path,  # of the job
) -> Callable[[Job], Generated]:
    """The work of a sampling job. Raises UserError: a setting or the weights."""
    pose = aligned.job.aligned_path
    plan = plan_of(folder, model, aligned, pose, knobs, device)
    redrawn = bool(by_hand(aligned, multipliers))

    def work(job: Job) -> Generated:
        reporter, ready = JobReporter(job), plan
        keypoints = aligned.job.settings.save_keypoints
        if redrawn:
            drawn = redraw(aligned, multipliers, job.folder, reporter)
            keypoints = job.folder / KEYPOINTS
            ready = plan_of(job.folder, model, aligned, drawn, knobs, device)
        case, settings = ready.jobs[0], ready.settings
        started = time.monotonic()
        with BUILDING:
            pipeline = load_pipeline(ready, reporter)
        loading = time.monotonic() - started
        reporter.check()
        previews = StepPreviews(job, settings.steps, case.frames)
        render(case, settings, pipeline, reporter=reporter, callback_on_step_end=previews)
        seconds = [job.stages[name].seconds for name in ("denoising", "decoding")]
        timings.record(timing_key(ready, pipeline.device), Work.of(ready), loading, *seconds)
        bundle = write_bundle(job.folder / ZIP, ready, keypoints)
        reference, still = save_still(case, job.folder)
        caption = f"seed {settings.seed}, {settings.steps} steps, guidance {settings.cfg:g}"
        return Generated(case.result, case.comparison, reference, still, bundle, caption)

    return work
