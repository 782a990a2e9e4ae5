"""The aligned skeleton over the picture for the frame under a slider, and the limbs' factors, drawn at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from musepose.app.alignment import LARGEST, SMALLEST, align_again
from musepose.app.desk import Desk
from musepose.app.jobs import Job
from musepose.app.previews import over_picture
from musepose.app.style import HANDLER, limb_table, warnings
from musepose.pose.measure import LIMBS

ALL = (*LIMBS, "hands")  # of both methods


@dataclass(frozen=True)
class Limbs:
    over: gr.Image
    frame: gr.Slider
    said: gr.HTML
    table: gr.HTML
    factors: tuple[gr.Slider, ...]  # of ALL
    reset: gr.Button

    @property
    def shown(self) -> list[Any]:
        return [self.over, self.frame, self.said, self.table, *self.factors]


def build() -> Limbs:
    over = gr.Image(
        label="The dance on the picture",
        buttons=["fullscreen", "download"],
        interactive=False,
        height=460,
        elem_id="over",
    )
    frame = gr.Slider(0, 1, 0, step=1, label="Frame of the dance", interactive=False, elem_id="frame")
    said = gr.HTML(elem_id="warnings")
    with gr.Accordion("Limb lengths by hand", open=False, elem_id="limbs"), gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=240):
            table = gr.HTML(elem_id="limb-table")
            reset = gr.Button("Back to what was found", size="sm")
        with gr.Column(scale=3, min_width=260):
            factors = tuple(
                gr.Slider(
                    SMALLEST,
                    LARGEST,
                    1,
                    step=0.01,
                    label=f"{limb.capitalize()} ×",
                    interactive=True,
                    elem_id=f"limb-{limb.replace(' ', '-')}",
                )
                for limb in ALL
            )
    return Limbs(over, frame, said, table, factors, reset)


def multipliers(scales: dict[str, float], values: Sequence[float]) -> dict[str, float]:
    """Of the limbs that the method knows."""
    return {limb: float(value) for limb, value in zip(ALL, values, strict=True) if limb in scales}


def shown(limbs: Limbs, job: Job) -> dict:
    """A finished alignment: its align frame, and no factor by hand."""
    aligned = job.result
    frames, first = aligned.frames, max(aligned.fitted.align_frame, aligned.frames.start)
    slider = gr.Slider(
        minimum=frames.start, maximum=max(frames.stop - 1, frames.start + 1), value=first, interactive=True
    )
    factors = {
        one: gr.Slider(value=1, visible=limb in aligned.scales) for limb, one in zip(ALL, limbs.factors, strict=True)
    }
    return {
        limbs.over: str(over_picture(aligned.job.reference, aligned.fitted, first, job.folder)),
        limbs.frame: slider,
        limbs.said: warnings(aligned.warnings),
        limbs.table: limb_table(aligned.scales, aligned.scales),
    } | factors


def connect(desk: Desk, visit: gr.State, done: gr.State, limbs: Limbs) -> None:
    def draw(visit: str, token: str | None, frame: float, *values: float) -> tuple:
        aligned = desk.aligned(token, visit)
        if aligned is None:
            return gr.skip(), gr.skip(), gr.skip()
        fitted, lines = align_again(aligned, multipliers(aligned.scales, values))
        frame = min(max(int(frame), aligned.frames.start), aligned.frames.stop - 1)
        path = over_picture(aligned.job.reference, fitted, frame, desk.job(token).folder)
        return str(path), warnings(lines), limb_table(aligned.scales, fitted.alignment.scales)

    gr.on(
        [limbs.frame.change, *(one.change for one in limbs.factors)],
        draw,
        [visit, done, limbs.frame, *limbs.factors],
        [limbs.over, limbs.said, limbs.table],
        trigger_mode="always_last",
        **HANDLER,
    )
    limbs.reset.click(lambda: [1.0] * len(ALL), None, list(limbs.factors), **HANDLER)
