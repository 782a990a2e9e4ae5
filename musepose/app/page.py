"""The page: its sections, one below the other, and what happens when it is opened."""

import gradio as gr

from musepose.app import api, page_align, page_generate, page_inputs, weights
from musepose.app.desk import ALIGN, GENERATE, Desk
from musepose.app.folders import new_token
from musepose.app.style import HEADER

STORAGE = "musepose-visit"  # key in the browser's storage


def build_page(desk: Desk) -> gr.Blocks:
    """The page, not yet served."""
    with gr.Blocks(title="MusePose", analytics_enabled=False) as page:
        api.declare(desk)  # first: its names are its own
        gr.HTML(HEADER)
        kept = gr.BrowserState(None, storage_key=STORAGE)  # of the visit, for a reload or another tab
        visit = gr.State("")
        inputs = page_inputs.build(desk)
        align = page_align.build(desk, visit, inputs)
        generate = page_generate.build(desk, visit, align)
        with gr.Accordion("Weights: what is there, and how to get the rest", open=False, elem_id="weights"):
            gr.Markdown(weights.panel())
        page_inputs.connect_example(desk, inputs, align, generate)

        def open_page(token: str | None) -> dict:
            """Start a visit, or go on with it: its newest jobs appear again."""
            token = token or new_token()
            newest = {kind: jobs[-1] for kind in (ALIGN, GENERATE) if (jobs := desk.queue.of_visit(token, kind))}
            shown = {kept: token, visit: token}
            if ALIGN in newest:
                shown |= page_inputs.restored(inputs, newest[ALIGN]) | page_align.followed(align, newest[ALIGN])
            if GENERATE in newest:
                shown |= page_generate.followed(generate, newest[GENERATE])
            return shown

        everything = [kept, visit, *inputs.restored, *align.followed, *generate.followed]
        page.load(open_page, [kept], everything, show_progress="hidden", api_visibility="private")
    return page
