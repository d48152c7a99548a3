"""The right side of the Generate tab: what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from triplaneturbo.commands.outputs import FORMATS
from triplaneturbo.ui import panels
from triplaneturbo.ui.controls import COUNTS, QUICK
from triplaneturbo.ui.scripts import BEGIN_VIEW, END_VIEW

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
        tab: of the tabs, by name.
    """

    viewer: gr.Model3D
    turn: gr.Textbox
    facts: gr.HTML
    downloads: dict[str, Any]
    tabs: gr.Tabs
    tab: dict[str, gr.Tab]
    pictures: gr.Gallery
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
    corners = gr.Textbox(visible="hidden", elem_id="corners")
    with gr.Row(elem_id="downloads"):
        downloads = {
            name: gr.DownloadButton(name.upper(), interactive=False, min_width=80, elem_id=f"download-{name}")
            for name in FORMATS
        }
    with gr.Tabs(selected="details", elem_id="tabs") as tabs:
        with gr.Tab("Details", id="details") as details:
            facts = gr.HTML(panels.facts(), elem_id="facts")
        with gr.Tab("Variants", id="variants") as choosing:
            variants = _gallery("Variants", "variants")
            with gr.Row(elem_id="like-row"):
                strength = gr.Slider(
                    0.05, 1, 0.2, step=0.05, label="Strength", min_width=150, elem_id="strength"
                )
                more = gr.Button("More like this", scale=0, min_width=150, elem_id="more")
        with gr.Tab("Pictures", id="pictures") as looking:
            pictures = _gallery("Pictures", "pictures", 250, preview=True)
    tab = {"details": details, "variants": choosing, "pictures": looking}

    def show(page: gr.Request, _: str, viewer: gr.Model3D) -> Any:
        view = sessions.of(page.session_hash).view
        if view is None or (viewer.value and Path(viewer.value).name == view.path.name):
            return gr.skip()
        # A new file moves the camera to where it was told to be: that is where it stands now, then.
        return gr.update(value=str(view.path), camera_position=viewer.camera_position), str(view.corners)

    # Gradio looks for the class itself, and annotations are texts here.
    show.__annotations__ = {"page": gr.Request, "viewer": gr.Model3D}
    shown = turn.change(show, [turn, viewer], [viewer, corners], js=BEGIN_VIEW, **QUICK)
    shown.then(None, corners, None, js=END_VIEW, **QUICK)
    return Pane(viewer, turn, facts, downloads, tabs, tab, pictures, variants, strength, more)


def _gallery(label: str, name: str, height: int = 150, preview: bool = False) -> gr.Gallery:
    """A row of pictures."""
    return gr.Gallery(
        label=label,
        show_label=False,
        columns=COUNTS[-1],
        rows=1,
        height=height,
        object_fit="contain",
        allow_preview=preview,
        preview=False,
        interactive=False,
        buttons=["fullscreen"] if preview else [],
        elem_id=name,
        elem_classes="tt-gallery",
    )
