"""The right side of the Generate tab: what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr

from triplaneturbo.commands.outputs import FORMATS
from triplaneturbo.ui import panels
from triplaneturbo.ui.controls import COUNTS, QUICK

if TYPE_CHECKING:
    from triplaneturbo.ui.sessions import Sessions

# Degrees around and from above: a three-quarter view of the front (+z), slightly from above, as the previews
# have it; the distance shows all of [-1, 1]^3: the viewer's own choice cuts the feet of tall things.
CAMERA = (60, 70, 2.9)


@dataclass(frozen=True)
class Pane:
    """The components.

    Attributes:
        turn: a number that nobody sees; when it changes, the viewer shows the session's view.
        downloads: buttons by format.
    """

    viewer: gr.Model3D
    turn: gr.Textbox
    facts: gr.HTML
    downloads: dict[str, Any]
    tabs: gr.Tabs
    variants: gr.Gallery
    strength: gr.Slider
    more: gr.Button


def build(sessions: Sessions) -> Pane:
    """Put the result's components into the column that is being built."""
    viewer = gr.Model3D(
        label="Mesh",
        show_label=False,
        interactive=False,
        clear_color=(0.0, 0.0, 0.0, 0.0),
        camera_position=CAMERA,
        elem_id="viewer",
    )
    turn = gr.Textbox(visible="hidden", elem_id="turn")
    with gr.Row(elem_id="downloads"):
        downloads = {
            name: gr.DownloadButton(name.upper(), interactive=False, min_width=80, elem_id=f"download-{name}")
            for name in FORMATS
        }
    with gr.Tabs(selected="details", elem_id="tabs") as tabs:
        with gr.Tab("Details", id="details"):
            facts = gr.HTML(panels.facts(), elem_id="facts")
        with gr.Tab("Variants", id="variants"):
            variants = gr.Gallery(
                label="Variants",
                show_label=False,
                columns=COUNTS[-1],
                rows=1,
                height=150,
                object_fit="contain",
                allow_preview=False,
                interactive=False,
                buttons=[],
                elem_id="variants",
                elem_classes="tt-gallery",
            )
            with gr.Row(elem_id="like-row"):
                strength = gr.Slider(
                    0.05, 1, 0.2, step=0.05, label="How far from it", min_width=150, elem_id="strength"
                )
                more = gr.Button("More like this", scale=0, min_width=150, elem_id="more")

    def show(page: gr.Request, _: str, viewer: gr.Model3D) -> Any:
        # A new file moves the camera to where it was told to be: that is where it stands now, then.
        path = sessions.of(page.session_hash).view
        if path is None:
            return gr.skip()
        return gr.update(value=str(path), camera_position=viewer.camera_position)

    # Gradio looks for the class itself, and annotations are texts here.
    show.__annotations__ = {"page": gr.Request, "viewer": gr.Model3D}
    turn.change(show, [turn, viewer], viewer, trigger_mode="always_last", **QUICK)
    return Pane(viewer, turn, facts, downloads, tabs, variants, strength, more)
