"""Section 1: picture and dance."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from musepose.app.desk import Desk
from musepose.app.inputs import Checked, check_dance, check_picture
from musepose.app.jobs import Job
from musepose.app.style import HANDLER, note, title
from musepose.media.video_reader import VIDEO_SUFFIXES


@dataclass(frozen=True)
class Inputs:
    """Components that other sections read."""

    picture: gr.Image
    dance: gr.Video
    start: gr.Number
    end: gr.Number
    example: gr.Button

    @property
    def restored(self) -> list[Any]:
        return [self.picture, self.dance]


def path_of(file: dict | None) -> Path | None:
    """The uploaded file of a component that is not preprocessed; Gradio has checked that it was uploaded."""
    return Path(file["path"]) if file and file.get("path") else None


def build(desk: Desk) -> Inputs:
    gr.HTML(title(1, "Picture and dance", "A person seen from the front, and a video of one dancer"))
    example = gr.Button("No files at hand? Take the example: two drawn puppets", elem_id="example", size="sm")
    with gr.Row(equal_height=False):
        with gr.Column(min_width=300):
            picture = gr.Image(
                type="filepath",
                label="Picture of the person",
                sources=["upload", "clipboard", "webcam"],
                height=360,
                elem_id="picture",
            )
            picture_note = gr.HTML(elem_id="picture-note")
        with gr.Column(min_width=300):
            dance = gr.Video(label="Dance video", sources=["upload"], height=360, elem_id="dance")
            dance_note = gr.HTML(elem_id="dance-note")
            with gr.Row():
                start = gr.Number(0, label="From second", minimum=0, step=0.1, min_width=110, elem_id="from")
                end = gr.Number(None, label="To second", minimum=0, step=0.1, min_width=110, elem_id="to")

    def picture_changed(file: dict | None) -> str:
        path = path_of(file)
        return note(None if path is None else check_picture(path, desk.settings))

    def dance_changed(file: dict | None) -> tuple[str, Any, Any]:
        path = path_of(file)
        checked = Checked("", True) if path is None else check_dance(path, desk.settings)
        if not checked.seconds:
            return note(checked if path else None), gr.skip(), gr.skip()
        end_at = round(min(checked.seconds, checked.limit), 2)
        return note(checked), gr.update(value=0), gr.update(value=end_at, maximum=round(checked.seconds + 0.01, 2))

    picture.change(picture_changed, [picture], [picture_note], preprocess=False, **HANDLER)
    dance.change(dance_changed, [dance], [dance_note, start, end], preprocess=False, **HANDLER)
    return Inputs(picture, dance, start, end, example)


def connect_example(desk: Desk, inputs: Inputs, align: Any, generate: Any) -> None:
    """The example's button fills in the files, the puppets' detector and the puppets' model."""

    def fill() -> tuple[str, str, str, str]:
        files = desk.example()
        return str(files["picture"]), str(files["dance"]), "puppets", "puppets"

    outputs = [inputs.picture, inputs.dance, align.detector, generate.model]
    inputs.example.click(fill, None, outputs, **HANDLER)


def restored(inputs: Inputs, job: Job) -> dict:
    """The files of an earlier job of the visit."""
    found = {path.suffix.lower() in VIDEO_SUFFIXES: str(path) for path in job.inputs if path.is_file()}
    pairs = ((inputs.picture, found.get(False)), (inputs.dance, found.get(True)))
    return {component: path for component, path in pairs if path}
