"""The same steps for programs, by gradio_client: submit, ask, stop, fetch."""

from pathlib import Path
from typing import Any

import gradio as gr
from gradio.data_classes import FileData

from musepose.app.desk import Desk
from musepose.app.jobs import DONE, Job
from musepose.inference.options import Settings
from musepose.pose.options import Settings as AlignSettings
from musepose.utils.errors import UserError
from musepose.utils.options import option_specs

VISIT = "api"  # jobs of programs belong to nobody's page; their ids are the key to them


def declare(desk: Desk) -> None:
    """Add the end points to the page that is being built."""

    def required(job: str) -> Job:
        found = desk.job(job, VISIT)
        if found is None:
            raise gr.Error(
                "no such job: it is older than a day, or the server was started again", print_exception=False
            )
        return found

    def align(
        picture: FileData,
        dance: FileData,
        detector: str = "blazepose",
        options: dict | None = None,
        before: str | None = None,
    ) -> str:
        """Queue an alignment. `options`: flags of pose_align.py, such as {"align": "robust", "to": 2}; `before`: an
        earlier alignment, whose keypoints are used where they are the same. → a job's id."""
        files, flags = (_path(picture), _path(dance)), _flags(options, ALIGN_FLAGS)
        return _id(lambda: desk.align(VISIT, *files, detector, flags, before))

    def generate(aligned: str, model: str = "published", options: dict | None = None, limbs: dict | None = None) -> str:
        """Queue a sampling of an alignment. `options`: flags of test_stage_2.py, such as {"steps": 20}; `limbs`: limb →
        factor, times the one that was found. → a job's id."""
        flags = _flags(options, GENERATE_FLAGS)
        return _id(lambda: desk.generate(VISIT, aligned, model, flags, limbs or {}))

    def status(job: str) -> dict:
        """State, place in the queue, stage with items done and in all, seconds left, lines, error."""
        return desk.status(required(job))

    def stop(job: str) -> dict:
        """Stop a job within one step or frame."""
        desk.queue.stop(required(job))
        return desk.status(required(job))

    def files(job: str) -> list[FileData]:
        """The files of a finished job: of an alignment the pose video, of a sampling video, comparison, zip."""
        found = required(job)
        if found.state != DONE:
            raise gr.Error(f"the job is {found.state}", print_exception=False)
        made = found.result
        paths = [made.result, made.comparison, made.bundle] if hasattr(made, "bundle") else [made.job.aligned_path]
        return [FileData(path=str(path), orig_name=path.name) for path in paths]

    for function in (align, generate, status, stop, files):
        gr.api(function, api_name=function.__name__, queue=False)


# Options that programs may give: none with a path, and none that belongs to the server.
ALIGN_FLAGS = tuple(
    one.name
    for one in option_specs(AlignSettings)
    if one.kind is not Path and one.name not in ("device", "detector", "max_frame", "limb_scale", "strict")
)
GENERATE_FLAGS = tuple(
    one.name
    for one in option_specs(Settings)
    if one.kind is not Path and one.name not in ("device", "overwrite", "split", "compile")
)


def _flags(options: dict | None, allowed: tuple[str, ...]) -> dict[str, Any]:
    """Raises gr.Error: an option is none of these. Paths cannot be given, so that nobody reads or writes elsewhere."""
    named = {"from_" if name == "from" else name: value for name, value in (options or {}).items()}
    unknown = sorted(named.keys() - set(allowed))
    if unknown:
        known = ", ".join(allowed).replace("from_", "from")
        raise gr.Error(f"unknown option {', '.join(unknown)}: choose from {known}", print_exception=False)
    return named


def _path(file: Any) -> Path:
    return Path(file["path"] if isinstance(file, dict) else file.path)


def _id(submit: Any) -> str:
    try:
        return submit().id
    except UserError as error:
        raise gr.Error(str(error), print_exception=False) from None
