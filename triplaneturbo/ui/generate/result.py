"""The right side of the Generate tab: what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from triplaneturbo.serving.output_files import FORMATS
from triplaneturbo.ui.assets import read
from triplaneturbo.ui.generate import panels
from triplaneturbo.ui.generate.controls import COUNTS, QUICK

# Degrees around and from above: a three-quarter view of the front (+z), slightly from above, as the previews
# have it; the distance shows all of [-1, 1]^3: the viewer's own choice cuts the feet of tall things.
CAMERA = (60, 70, 2.9)


@dataclass(frozen=True)
class Pane:
    """The components.

    Attributes:
        view: a session's View as text, which nobody sees; when it changes, the viewer shows it.
        downloads: buttons by format.
        tab: of the tabs, by name.
    """

    viewer: gr.Model3D
    view: gr.Textbox
    facts: gr.HTML
    downloads: dict[str, Any]
    tabs: gr.Tabs
    tab: dict[str, gr.Tab]
    pictures: gr.Gallery
    variants: gr.Gallery
    strength: gr.Slider
    more: gr.Button
    past: HistoryPane


@dataclass(frozen=True)
class HistoryPane:
    """The history's components.

    Attributes:
        token: what the browser is known by.
        gallery: the results, the newest first.
        chosen: what the clicked one is.
        buttons: for the clicked one, by name: "restore", "pin", "delete".
        pack: makes the zip of all that `archive` downloads.
    """

    token: gr.Textbox
    gallery: gr.Gallery
    chosen: gr.HTML
    buttons: dict[str, gr.Button]
    pack: gr.Button
    archive: gr.DownloadButton


def build() -> Pane:
    """Put the result's components into the column that is being built."""
    viewer = gr.Model3D(
        label="Mesh",
        show_label=False,
        interactive=False,
        clear_color=(0.0, 0.0, 0.0, 0.0),
        camera_position=CAMERA,
        elem_id="viewer",
    )
    view = gr.Textbox(visible="hidden", elem_id="view")
    with gr.Row(elem_id="downloads"):
        downloads = {
            name: gr.DownloadButton(name.upper(), interactive=False, min_width=56, elem_id=f"download-{name}")
            for name in FORMATS
        }
    token = gr.Textbox(visible="hidden", elem_id="token")
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
        with gr.Tab("History", id="history") as remembering:
            past = _past(token)
    tab = {"details": details, "variants": choosing, "pictures": looking, "history": remembering}

    def show(view: str, viewer: gr.Model3D) -> None:
        """Nobody calls it: Gradio reads from it that the script is to have the viewer whole."""

    # In the browser, without a way to the server and back: it alone knows where the camera stands.
    show.__js_implementation__ = read("show.js", distance=CAMERA[2])  # type: ignore[attr-defined]
    view.change(show, [view, viewer], viewer, **QUICK)
    return Pane(viewer, view, facts, downloads, tabs, tab, pictures, variants, strength, more, past)


def _past(token: gr.Textbox) -> HistoryPane:
    """The history."""
    gallery = _gallery("History", "history")
    chosen = gr.HTML(panels.chosen(None), elem_id="chosen")
    with gr.Row(elem_id="past-row"):
        buttons = {
            name: gr.Button(label, interactive=False, min_width=90, elem_id=f"past-{name}")
            for name, label in (("restore", "Restore settings"), ("pin", "Pin"), ("delete", "Delete"))
        }
        pack = gr.Button("Pack all", min_width=90, elem_id="past-pack")
        archive = gr.DownloadButton("Download ZIP", interactive=False, min_width=90, elem_id="past-zip")
    return HistoryPane(token, gallery, chosen, buttons, pack, archive)


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
