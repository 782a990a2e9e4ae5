"""Section 4: videos, the slider between reference and frame, downloads, and a gallery of the visit's results."""

from dataclasses import dataclass
from typing import Any

import gradio as gr

from musepose.app.desk import GENERATE, Desk
from musepose.app.jobs import DONE, Job
from musepose.app.style import HANDLER, title


@dataclass(frozen=True)
class Result:
    section: gr.Column
    video: gr.Video
    comparison: gr.Video
    slider: gr.ImageSlider
    files: gr.File
    again: gr.Button
    gallery: gr.Gallery

    @property
    def shown(self) -> list[Any]:
        return [self.section, self.video, self.comparison, self.slider, self.files, self.again, self.gallery]


def build() -> Result:
    with gr.Column(visible=False) as section:
        return _components(section)


def _components(section: gr.Column) -> Result:
    gr.HTML(title(4, "Result", "Everything stays on the computer that serves this page"))
    with gr.Row(equal_height=False):
        video = gr.Video(label="Result", interactive=False, height=400, min_width=260, elem_id="result", loop=True)
        slider = gr.ImageSlider(
            label="Reference and frame", interactive=False, height=400, min_width=260, elem_id="slider", type="filepath"
        )
    comparison = gr.Video(label="Reference, pose and result", interactive=False, height=300, elem_id="comparison")
    with gr.Row(equal_height=False):
        files = gr.File(
            label="Downloads: the zip repeats this result with test_stage_2.py",
            interactive=False,
            file_count="multiple",
            min_width=260,
            elem_id="files",
        )
        again = gr.Button("Again with another seed", interactive=False, elem_id="again", min_width=200)
    gallery = gr.Gallery(
        label="Results of this visit",
        columns=4,
        height="auto",
        allow_preview=False,
        interactive=False,
        visible=False,
        elem_id="gallery",
        object_fit="contain",
    )
    return Result(section, video, comparison, slider, files, again, gallery)


def shown(result: Result, job: Job, pictures: list[tuple[str, str]]) -> dict:
    """A finished job."""
    made = job.result
    return {
        result.section: gr.Column(visible=True),
        result.video: str(made.result),
        result.comparison: str(made.comparison),
        result.slider: (str(made.reference), str(made.still)),
        result.files: [str(path) for path in (made.result, made.comparison, made.bundle)],
        result.again: gr.Button(interactive=True),
        result.gallery: gr.Gallery(pictures, visible=len(pictures) > 1),
    }


def gallery(desk: Desk, visit: str) -> list[tuple[str, str]]:
    """Stills with captions, the oldest first."""
    return [(str(job.result.still), job.result.caption) for job in _done(desk, visit)]


def connect(desk: Desk, visit: gr.State, result: Result) -> None:
    def select(visit: str, chosen: gr.SelectData) -> dict:
        jobs = _done(desk, visit)
        return shown(result, jobs[chosen.index], gallery(desk, visit)) if chosen.index < len(jobs) else {}

    result.gallery.select(select, [visit], result.shown, **HANDLER)


def _done(desk: Desk, visit: str) -> list[Job]:
    return [job for job in desk.queue.of_visit(visit, GENERATE) if job.state == DONE]
