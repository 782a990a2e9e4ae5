"""How the page looks: theme without anything from elsewhere, CSS, and the small pieces of HTML."""

from html import escape
from typing import Any

import gradio as gr

from musepose.app.inputs import Checked
from musepose.app.jobs import DONE, FAILED, QUEUED, RUNNING, STOPPED, Job
from musepose.app.timings import Work

# Of all the page's own events: they are short, hidden from the API, and show no spinner over the components.
HANDLER: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
FONTS = ("ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif")
MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "Liberation Mono", "monospace")

HEADER = """
<header class="head">
  <h1>MusePose</h1>
  <p>One picture of a person and one dance video become a video of that person dancing that dance.</p>
</header>
"""

CSS = """
.gradio-container { max-width: 1180px !important; margin: 0 auto !important; padding-bottom: 3rem !important; }
.head { padding: 1.2rem 0 0.2rem; }
.head h1 { font-size: 1.9rem; font-weight: 700; letter-spacing: -0.02em; margin: 0; }
.head p { margin: 0.2rem 0 0; color: var(--body-text-color-subdued); font-size: 1.02rem; }
.step { display: flex; gap: 0.7rem; align-items: center; margin: 1.1rem 0 0; }
.html-container { padding: 0 !important; }
.step .number { flex: none; width: 2rem; height: 2rem; border-radius: 50%; background: var(--primary-600); color: white;
  display: grid; place-items: center; font-weight: 700; }
.step h2 { margin: 0; font-size: 1.25rem; font-weight: 650; }
.step p { margin: 0; color: var(--body-text-color-subdued); font-size: 0.92rem; }
.note { font-size: 0.92rem; padding: 0.15rem 0.1rem; color: var(--body-text-color-subdued); overflow-wrap: anywhere; }
.note.bad, .status.bad { color: var(--error-text-color); background: var(--error-background-fill);
  border: 1px solid var(--error-border-color); border-radius: var(--radius-md); padding: 0.5rem 0.7rem; }
.note.warn { color: var(--body-text-color); background: color-mix(in srgb, #f59e0b 14%, transparent);
  border: 1px solid color-mix(in srgb, #f59e0b 50%, transparent); border-radius: var(--radius-md);
  padding: 0.5rem 0.7rem; margin: 0.2rem 0; }
.note ul { margin: 0; padding-left: 1.1rem; }
.status { font-size: 0.95rem; overflow-wrap: anywhere; }
.status progress { width: 100%; height: 0.6rem; display: block; margin: 0.35rem 0; appearance: none; border: 0;
  border-radius: 1rem; overflow: hidden; background: var(--border-color-primary); color: var(--primary-600); }
.status progress::-webkit-progress-bar { background: var(--border-color-primary); }
.status progress::-webkit-progress-value { background: var(--primary-600); transition: width 0.4s; }
.status progress::-moz-progress-bar { background: var(--primary-600); }
/* Gradio's cutter loads its program from elsewhere; "from" and "to" do the same. */
#dance button[aria-label="Trim video to selection"] { display: none; }
.status .line { display: flex; justify-content: space-between; gap: 1rem; flex-wrap: wrap; }
.status .more { color: var(--body-text-color-subdued); }
.facts { display: flex; flex-wrap: wrap; gap: 0.4rem 1.6rem; padding: 0.2rem 0.1rem; }
.facts div { min-width: 6rem; }
.facts b { display: block; font-size: 1.05rem; }
.facts span { color: var(--body-text-color-subdued); font-size: 0.85rem; }
table.limbs { width: 100%; border-collapse: collapse; font-size: 0.92rem; }
table.limbs th, table.limbs td { text-align: right; padding: 0.2rem 0.5rem; border: 0;
  border-bottom: 1px solid var(--border-color-primary); }
table.limbs th:first-child, table.limbs td:first-child { text-align: left; }
footer { opacity: 0.7; }
"""


def theme() -> gr.themes.Base:
    """No font is loaded: those of the system."""
    base = gr.themes.Default(
        primary_hue="indigo",
        secondary_hue="indigo",
        neutral_hue="slate",
        font=FONTS,
        font_mono=MONO,
        radius_size="lg",
    )
    readable = {"body_text_color_subdued": "*neutral_600", "block_info_text_color": "*neutral_600"}
    dark = {f"{name}_dark": "*neutral_300" for name in readable}
    return base.set(**readable, **dark, block_label_text_color="*neutral_700")


def title(number: int, text: str, about: str) -> str:
    inside = f"<h2>{escape(text)}</h2><p>{escape(about)}</p>"
    return f'<div class="step"><span class="number" aria-hidden="true">{number}</span><div>{inside}</div></div>'


def note(checked: Checked | None) -> str:
    """One line beside a file."""
    if checked is None:
        return ""
    return f'<div class="note">{escape(checked.line)}</div>' if checked.good else error(checked.line)


def error(line: object) -> str:
    return f'<div class="note bad" role="alert">{escape(" ".join(str(line).split()))}</div>'


def warnings(lines: list[str]) -> str:
    """A list, or nothing."""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f'<div class="note warn"><ul>{items}</ul></div>' if lines else ""


def warning(line: str) -> str:
    return f'<div class="note warn">{escape(line)}</div>'


def duration(seconds: float) -> str:
    """5 s, 3 min, 2 h 10 min."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{max(round(seconds), 1)} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def status(job: Job | None, place: int = 0) -> str:
    """Where a job is: its place in the queue, or its stage with the time that is left."""
    if job is None:
        return ""
    if job.state == FAILED:
        return f'<div class="status bad" role="alert" data-state="{job.state}">{escape(job.error)}</div>'
    texts = {DONE: f"Done in {duration(job.seconds)}", STOPPED: "Stopped", QUEUED: _queued(place)}
    stage = job.stage
    if job.state != RUNNING:
        inside = escape(texts[job.state])
    elif stage is None:
        inside = f"{escape(job.lines[-1] if job.lines else 'Starting')} …"
    else:
        left = "" if stage.left is None else f"{duration(stage.left)} left"
        bar = (
            f'<progress max="{max(stage.total, 1)}" value="{stage.done}" aria-label="{escape(stage.name)}"></progress>'
        )
        line = f"<span>{escape(stage.name)}: {stage.done} of {stage.total}</span><span>{left}</span>"
        inside = f'{bar}<div class="line">{line}</div>'
    return f'<div class="status" aria-live="polite" data-state="{job.state}">{inside}</div>'


def _queued(place: int) -> str:
    return f"Waiting: {place} job{'s' if place != 1 else ''} before this one" if place else "Starting"


def forecast(work: Work, rate: float, window: int, memory: str, seconds: float | None) -> str:
    """Facts about a sampling before it starts."""
    time = "not known before the first run" if seconds is None else f"about {duration(seconds)}"
    facts = (
        (f"{work.frames} frames", f"{work.frames / rate:.1f} s at {rate:.4g} a second"),
        (f"{work.windows} window{'s' if work.windows != 1 else ''}", f"of {window} frames"),
        (time, "on this machine"),
        (_memory(memory), "memory plan"),
    )
    inside = "".join(f"<div><b>{escape(fact)}</b><span>{escape(about)}</span></div>" for fact, about in facts)
    return f'<div class="facts">{inside}</div>'


def _memory(line: str) -> str:
    """The plan's name and what it takes: `memory: high (layers whole): about 0.9 of 19 GB free` without the middle."""
    name, _, rest = line.removeprefix("memory: ").partition(" (")
    return f"{name}{rest.partition(')')[2]}"


def limb_table(found: dict[str, float], used: dict[str, float]) -> str:
    """Factors from the dancer's limb lengths to the aligned ones."""
    rows = "".join(
        f"<tr><td>{escape(limb.capitalize())}</td><td>{scale:.2f}</td><td>{used[limb]:.2f}</td></tr>"
        for limb, scale in found.items()
    )
    head = "<tr><th>Limb</th><th>found</th><th>used</th></tr>"
    return f'<table class="limbs">{head}{rows}</table>'
