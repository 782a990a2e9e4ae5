"""Section 2: the knobs of the alignment, its job, and its result."""

from dataclasses import dataclass
from typing import Any

import gradio as gr

from musepose.app import alignment, page_limbs
from musepose.app.desk import Desk
from musepose.app.jobs import DONE, Job
from musepose.app.page_inputs import Inputs, path_of
from musepose.app.previews import dance_frame, own_pose
from musepose.app.style import HANDLER, error, status, title
from musepose.media.video_reader import probe
from musepose.pose.options import AUTO, Settings
from musepose.pose.person_choice import WORDS
from musepose.utils.errors import UserError
from musepose.utils.options import option_specs

HELP = {one.name: one.rules.help for one in option_specs(Settings)}
SMOOTH = {"as the method has it": None, "on": True, "off": False}
POLL = 0.7  # seconds


@dataclass(frozen=True)
class Align:
    """Components that other sections read, and the job that is shown."""

    detector: gr.Radio
    job: gr.State  # id of the newest job
    done: gr.State  # id of the newest finished one, which Generate uses
    timer: gr.Timer
    limbs: page_limbs.Limbs

    @property
    def followed(self) -> list[Any]:
        return [self.job, self.timer]


def followed(align: Align, job: Job) -> dict:
    """Show a job, from its present state on."""
    return {align.job: job.id, align.timer: gr.Timer(POLL, active=True)}


def build(desk: Desk, visit: gr.State, inputs: Inputs) -> Align:
    gr.HTML(title(2, "Align", "Fit the dancer's poses to the person in the picture, and see them on the picture"))
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=300):
            detector = _detector()
            method = gr.Radio(["robust", "published"], value="robust", label="Method", info=HELP["align"])
            with gr.Accordion("More: who, which frame, smoothing", open=False, elem_id="align-more"):
                who = [*WORDS, "2", "3", "4"]
                person = gr.Dropdown(who, value=who[0], label="Person in the dance", info=HELP["person"])
                picture_person = gr.Dropdown(who, value=who[0], label="Person in the picture")
                smooth = gr.Radio([*SMOOTH], value=next(iter(SMOOTH)), label="Smoothing", info=HELP["smooth"])
                auto = gr.Checkbox(True, label="Choose the align frame automatically", info=HELP["align_frame"])
                with gr.Group(visible=False) as by_number:
                    frame = gr.Slider(0, 1, 0, step=1, label="Align frame", elem_id="align-frame")
                    frame_shown = gr.Image(
                        label="This frame of the dance",
                        buttons=["fullscreen", "download"],
                        interactive=False,
                        height=240,
                    )
            with gr.Row():
                button = gr.Button("Align", variant="primary", elem_id="align")
                stop = gr.Button("Stop", interactive=False, elem_id="align-stop", min_width=80)
            shown = gr.HTML(elem_id="align-status")
        with gr.Column(scale=3, min_width=300):
            limbs = page_limbs.build()
            heading = "Pose video, and the skeleton found in the picture"
            with gr.Accordion(heading, open=False, elem_id="align-videos"), gr.Row():
                own = gr.Image(
                    label="Found in the picture",
                    buttons=["fullscreen", "download"],
                    interactive=False,
                    height=320,
                    min_width=200,
                )
                video = gr.Video(label="Aligned pose video", interactive=False, height=320, min_width=200)
    job, done, timer = gr.State(None), gr.State(None), gr.Timer(POLL, active=False)
    align = Align(detector, job, done, timer, limbs)
    knobs = [detector, method, person, picture_person, smooth, auto, frame, inputs.start, inputs.end]

    def submit(visit: str, before: str | None, picture: Any, dance: Any, *values: Any) -> dict:
        if not (picture and dance):
            return {shown: error("give a picture and a dance video first")}
        detector, method, person, picture_person, smooth, auto, frame, start, end = values
        flags = {"align": method, "person": person, "picture_person": picture_person, "smooth": SMOOTH.get(smooth)}
        flags |= {"align_frame": AUTO if auto else int(frame or 0), "from_": start or 0, "to": end or None}
        try:
            new = desk.align(visit, path_of(picture), path_of(dance), detector, flags, before)
        except UserError as problem:
            return {shown: error(problem)}
        return followed(align, new) | {shown: status(new, desk.queue.place(new)), stop: gr.Button(interactive=True)}

    def tick(visit: str, token: str | None) -> dict:
        found = desk.job(token, visit)
        if found is None:
            return {timer: gr.Timer(active=False), stop: gr.Button(interactive=False)}
        line = status(found, desk.queue.place(found))
        if not found.finished:
            return {shown: line, stop: gr.Button(interactive=True)}
        ended = {shown: line, timer: gr.Timer(active=False), stop: gr.Button(interactive=False)}
        if found.state != DONE:
            return ended
        result = found.result
        picture = own_pose(result.job.reference, result.fitted, found.folder)
        ended |= {done: found.id, own: str(picture), video: str(result.job.aligned_path)}
        return ended | page_limbs.shown(limbs, found)

    def show_frame(dance: Any, number: float, start: float | None) -> str | None:
        path = path_of(dance)
        if path is None:
            return None
        first = round((start or 0) * probe(path).rate)
        drawn = dance_frame(path, first + int(number), path.parent)
        return None if drawn is None else str(drawn)

    def frames_of(dance: Any, start: float | None, end: float | None) -> Any:
        """The slider's range, for the part of the dance that is chosen."""
        try:
            found = probe(path_of(dance)) if dance else None
        except UserError:
            found = None
        if found is None:
            return gr.Slider(maximum=1, value=0)
        last = found.frames if end is None else min(round(end * found.rate), found.frames)
        return gr.Slider(maximum=max(last - round((start or 0) * found.rate) - 1, 1), value=0)

    button.click(
        submit,
        [visit, done, inputs.picture, inputs.dance, *knobs],
        [*align.followed, shown, stop],
        preprocess=False,
        **HANDLER,
    )
    outputs = [timer, stop, shown, done, own, video, *limbs.shown]
    timer.tick(tick, [visit, job], outputs, **HANDLER)
    stop.click(desk.stop, [job, visit], None, **HANDLER)
    auto.change(lambda yes: gr.Group(visible=not yes), [auto], [by_number], **HANDLER)
    gr.on(
        [frame.change, auto.change],
        show_frame,
        [inputs.dance, frame, inputs.start],
        [frame_shown],
        preprocess=False,
        trigger_mode="always_last",
        **HANDLER,
    )
    gr.on(
        [inputs.end.change, inputs.start.change],
        frames_of,
        [inputs.dance, inputs.start, inputs.end],
        [frame],
        preprocess=False,
        **HANDLER,
    )
    page_limbs.connect(desk, visit, done, limbs)
    return align


def _detector() -> gr.Radio:
    """The detectors; those without their files say so in the help."""
    absent = {name: why for name in alignment.DETECTORS if (why := alignment.missing(name))}
    choices = [(label, name) for name, (label, _) in alignment.DETECTORS.items() if name not in absent]
    lacking = ", ".join(alignment.DETECTORS[name][0].split(":")[0] for name in absent)
    info = f"Not here: {lacking}; see Weights below." if lacking else "BlazePose or DWPose for people."
    return gr.Radio(choices, value=choices[0][1] if choices else None, label="Detector", info=info, elem_id="detector")
