"""Section 3: the knobs of sampling, what it will take, its job, and section 4: its results."""

import random
from dataclasses import dataclass
from typing import Any

import gradio as gr

from musepose.app import generation, page_result, weights
from musepose.app.desk import Desk
from musepose.app.jobs import DONE, RUNNING, Job
from musepose.app.page_align import POLL, Align
from musepose.app.page_limbs import multipliers
from musepose.app.style import HANDLER, error, forecast, status, title, warning
from musepose.inference.options import SCHEDULERS, Settings
from musepose.pipelines.presets import PRESETS
from musepose.utils.errors import UserError
from musepose.utils.options import option_specs

SPECS = {one.name: one for one in option_specs(Settings)}
HELP = {name: one.rules.help for name, one in SPECS.items()}
BASIC, MORE = ("width", "height", "steps", "cfg", "length"), ("skip", "shared_noise")
NUMBERS = (*BASIC, *MORE)
LABELS = dict(width="Width", height="Height", length="Frames at most", steps="Steps", cfg="Guidance (1: none)")
LABELS |= dict(skip="Skip", shared_noise="Shared noise")
PLANS = ("auto", "high", "sequential", "medium", "low", "least")
MOST_SEED = 2**31 - 1
OWN = "own"  # no preset


@dataclass(frozen=True)
class Generate:
    model: gr.Radio
    job: gr.State
    timer: gr.Timer
    result: page_result.Result

    @property
    def followed(self) -> list[Any]:
        return [self.job, self.timer]


def followed(generate: Generate, job: Job) -> dict:
    """Show a job, from its present state on."""
    return {generate.job: job.id, generate.timer: gr.Timer(POLL, active=True)}


def build(desk: Desk, visit: gr.State, align: Align) -> Generate:
    gr.HTML(title(3, "Generate", "Render the person in the picture in these poses"))
    usable = [name for name in generation.MODELS if not generation.missing(name)]
    first = usable[0] if usable else "puppets"
    start = generation.defaults(first)
    with gr.Row(equal_height=False):
        with gr.Column(scale=3, min_width=300):
            choices = [(generation.MODELS[name][0], name) for name in usable]
            model = gr.Radio(choices, value=first, label="Model", elem_id="model")
            gr.HTML("" if "published" in usable else warning(weights.NOT_PEOPLE.replace("`", "")), elem_id="no-people")
            preset = _preset()
            with gr.Row():
                numbers = {name: _number(name, start) for name in BASIC}
            with gr.Row():
                seed = gr.Number(start.seed, label="Seed", precision=0, min_width=120, elem_id="seed")
                chance = gr.Checkbox(False, label="Random seed", min_width=120)
            with gr.Accordion("More: frame rate, noise, scheduler, memory", open=False):
                with gr.Row():
                    numbers |= {name: _number(name, start) for name in MORE}
                scheduler = gr.Dropdown(
                    list(SCHEDULERS), value=start.scheduler, label="Scheduler", info=HELP["scheduler"]
                )
                vram = gr.Dropdown(
                    list(PLANS), value="auto", label="Memory plan, or GB", info=HELP["vram"], allow_custom_value=True
                )
        with gr.Column(scale=2, min_width=300):
            facts = gr.HTML(elem_id="forecast")
            with gr.Row():
                button = gr.Button("Generate", variant="primary", elem_id="generate")
                stop = gr.Button("Stop", interactive=False, elem_id="generate-stop", min_width=80)
            shown = gr.HTML(elem_id="generate-status")
            preview = gr.Image(
                label="Middle frame so far",
                buttons=["fullscreen", "download"],
                interactive=False,
                height=260,
                visible=False,
                elem_id="step-preview",
            )
    result = page_result.build()
    job, timer = gr.State(None), gr.Timer(POLL, active=False)
    generate = Generate(model, job, timer, result)
    knobs = [*numbers.values(), seed, scheduler, vram, preset]
    names = [*numbers, "seed", "scheduler", "vram", "preset"]
    factors = list(align.limbs.factors)

    def flags_of(values: tuple) -> dict[str, Any]:
        whole = {name: SPECS[name].kind is int for name in NUMBERS}
        pairs = zip(names, values[: len(names)], strict=True)
        flags = {name: int(value) if whole.get(name) and value is not None else value for name, value in pairs}
        return flags | {"preset": None if flags["preset"] == OWN else flags["preset"]}

    def submit(visit: str, aligned: str | None, model: str, chance: bool, *values: Any) -> dict:
        flags, new_seed = flags_of(values), None
        if chance:
            flags["seed"] = new_seed = random.randrange(MOST_SEED)
        try:
            scales = desk.required(aligned, visit).scales
            new = desk.generate(visit, aligned, model, flags, multipliers(scales, values[len(names) :]))
        except UserError as problem:
            return {shown: error(problem)}
        started = followed(generate, new) | {stop: gr.Button(interactive=True), preview: gr.Image(visible=False)}
        started[shown] = status(new, desk.queue.place(new))
        return started | ({} if new_seed is None else {seed: new_seed})

    def tick(visit: str, token: str | None, last: str | None) -> dict:
        found = desk.job(token, visit)
        if found is None:
            return {timer: gr.Timer(active=False), stop: gr.Button(interactive=False)}
        news = {shown: status(found, desk.queue.place(found)), stop: gr.Button(interactive=not found.finished)}
        if found.preview is not None and found.state == RUNNING:
            news[preview] = gr.Image(str(found.preview), visible=True)
        if found.finished:
            news |= {timer: gr.Timer(active=False), preview: gr.Image(None, visible=False)}
        if found.state == DONE:
            news |= page_result.shown(result, found, page_result.gallery(desk, visit))
        return news

    def foresee(visit: str, aligned: str | None, model: str, *values: Any) -> str:
        if desk.aligned(aligned, visit) is None:
            return '<div class="note">Align first: then the number of frames, the memory and the time stand here.</div>'
        try:
            found = desk.forecast(visit, aligned, model, flags_of(values))
        except UserError as problem:
            return error(problem)
        return forecast(found.work, found.rate, found.window, found.memory, found.seconds)

    def preset_changed(model: str, preset: str) -> list[Any]:
        """The preset's own values in the fields that are shown; the others go with its name."""
        has = vars(generation.defaults(model)) | PRESETS.get(preset, {})
        return [int(has["steps"]), has["scheduler"]]

    def model_changed(model: str) -> list[Any]:
        has = generation.defaults(model)
        return [*(getattr(has, name) for name in (*NUMBERS, "seed", "scheduler")), OWN]

    inputs = [visit, align.done, model, chance, *knobs, *factors]
    outputs = [*generate.followed, shown, stop, preview, seed]
    button.click(submit, inputs, outputs, **HANDLER)
    result.again.click(lambda: True, None, [chance], **HANDLER).then(submit, inputs, outputs, **HANDLER)
    timer.tick(tick, [visit, job, align.done], [timer, shown, stop, preview, *result.shown], **HANDLER)
    stop.click(desk.stop, [job, visit], None, **HANDLER)
    model.change(model_changed, [model], [*numbers.values(), seed, scheduler, preset], **HANDLER)
    gr.on(
        [align.done.change, model.change, *(one.change for one in knobs)],
        foresee,
        [visit, align.done, model, *knobs],
        [facts],
        trigger_mode="always_last",
        **HANDLER,
    )
    preset.change(preset_changed, [model, preset], [numbers["steps"], scheduler], **HANDLER)
    page_result.connect(desk, visit, result)
    return generate


def _number(name: str, start: Settings) -> gr.Number:
    rules = SPECS[name].rules
    return gr.Number(
        getattr(start, name),
        label=LABELS[name],
        info=rules.help if name in MORE else None,
        minimum=rules.low,
        maximum=rules.high,
        step=rules.multiple or (1 if SPECS[name].kind is int else 0.1),
        min_width=120,
        elem_id=name,
    )


def _preset() -> gr.Radio:
    choices = [("the model's own settings", OWN), *((name, name) for name in PRESETS)]
    return gr.Radio(choices, value=OWN, label="Preset", info=HELP["preset"], elem_id="preset")
