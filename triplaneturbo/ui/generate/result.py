"""Right column of the Generate tab: the viewer, downloads and the tabs below them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr

from triplaneturbo.serving.output_files import FORMATS
from triplaneturbo.serving.refine_request import LENGTHS
from triplaneturbo.ui.assets import read
from triplaneturbo.ui.generate import first_visit, panels
from triplaneturbo.ui.generate.controls import COUNTS, UNQUEUED

if TYPE_CHECKING:
    from triplaneturbo.serving.engine import Engine

# Azimuth and polar angle in degrees, and distance: a three-quarter view of the front (+z), slightly from
# above, as in previews. The distance shows all of [-1, 1]^3; the viewer's default cuts off tall objects.
CAMERA = (60, 70, 2.9)


@dataclass(frozen=True)
class ResultView:
    """Components of the result column.

    Attributes:
        view_json: hidden; a session's View as JSON. When it changes, the viewer loads that file.
        downloads: buttons by format.
        tab: tabs by name.
        strength: how much "More like this" varies the mesh.
        more: the "More like this" button.
        looks: suggested looks for the shown result.
    """

    viewer: gr.Model3D
    view_json: gr.Textbox
    facts: gr.HTML
    downloads: dict[str, Any]
    tabs: gr.Tabs
    tab: dict[str, gr.Tab]
    pictures: gr.Gallery
    variants: gr.Gallery
    comparison: gr.ImageSlider
    strength: gr.Slider
    more: gr.Button
    history: HistoryView
    refine: RefineView
    looks: gr.Dataset
    turntable: TurntableView
    ar: ArView
    link: LinkView


@dataclass(frozen=True)
class LinkView:
    """The Copy link button beside the downloads.

    Attributes:
        key: hidden; the key of the shown result's link, "" if the history does not have the result.
    """

    start: gr.Button
    key: gr.Textbox


@dataclass(frozen=True)
class ArView:
    """The AR button beside the downloads, and the QR code that it shows.

    Attributes:
        stem: hidden; the path of the shown mesh's GLB and USDZ without their suffix, "" until both are
            written.
    """

    start: gr.Button
    stem: gr.Textbox
    code: gr.HTML


@dataclass(frozen=True)
class TurntableView:
    """Components of the Pictures tab that render the mesh: the button and the downloads of its files."""

    start: gr.Button
    animation: gr.DownloadButton
    still: gr.DownloadButton


@dataclass(frozen=True)
class RefineView:
    """Components that refine the shown result or an uploaded file.

    Attributes:
        steps: the choice of steps, for both.
        start: refines the shown result.
        upload: asks for a mesh or a picture and refines it.
        key: hidden; allows the page to upload.
        upload_result: hidden; "uploaded" after an upload, an error message, or "" if no file was chosen.
    """

    steps: gr.Dropdown
    start: gr.Button
    upload: gr.Button
    key: gr.Textbox
    upload_result: gr.Textbox


@dataclass(frozen=True)
class HistoryView:
    """Components of the History tab.

    Attributes:
        token: hidden; identifies the browser.
        gallery: results, newest first.
        selected: description of the selected result.
        buttons: "restore", "pin" and "delete", for the selected result.
        settings_file: restores the settings of a file, which it asks for.
        dropped: hidden; does the same with a file that was dropped onto the page.
        pack: makes the ZIP of all results that `archive` downloads.
    """

    token: gr.Textbox
    gallery: gr.Gallery
    selected: gr.HTML
    buttons: dict[str, gr.Button]
    settings_file: gr.Button
    dropped: gr.Button
    pack: gr.Button
    archive: gr.DownloadButton


def build(engine: Engine, refines: bool, uploads: bool, links: bool) -> ResultView:
    """Create the components in the current Gradio column.

    Args:
        engine: knows the durations of refinements.
        refines: whether some visitors of this server may refine results.
        uploads: whether some of these may upload what is refined.
        links: whether results are kept, so that they have links.
    """
    with gr.Column(elem_id="stage"):
        viewer = gr.Model3D(
            label="Mesh",
            show_label=False,
            interactive=False,
            clear_color=(0.0, 0.0, 0.0, 0.0),
            camera_position=CAMERA,
            elem_id="viewer",
        )
        examples = first_visit.gallery(engine.name)
        if examples:
            gr.HTML(examples, elem_id="first-visit")
    view_json = gr.Textbox(visible="hidden", elem_id="view")
    with gr.Row(elem_id="downloads"):
        downloads = {
            name: gr.DownloadButton(name.upper(), interactive=False, min_width=50, elem_id=f"download-{name}")
            for name in FORMATS
        }
        ar_start = gr.Button("AR", interactive=False, min_width=50, elem_id="ar")
        link_start = gr.Button(
            "Copy link", interactive=False, min_width=84, visible=links, elem_id="copy-link"
        )
        refine = _refine(engine, refines, uploads)
    link = LinkView(link_start, gr.Textbox(visible="hidden"))
    ar_stem = gr.Textbox(visible="hidden")
    ar = ArView(ar_start, ar_stem, gr.HTML(visible=False, elem_id="ar-code"))
    looks = gr.Dataset(
        components=[gr.Textbox(visible=False)],
        samples=[],
        label="Same shape, another look",
        layout="gallery",
        elem_id="looks",
    )
    if refines and engine.domain.has_ground_truth:
        gr.HTML(panels.refine_note(), elem_id="refine-note")
    token = gr.Textbox(visible="hidden", elem_id="token")
    # A browser has the content of a tab only once it is open, but drop.js clicks this at any time.
    dropped = gr.Button("Settings from a GLB", visible="hidden", elem_id="dropped-file")
    with gr.Tabs(selected="details", elem_id="tabs") as tabs:
        with gr.Tab("Details", id="details") as details_tab:
            facts = gr.HTML(panels.facts(), elem_id="facts")
        with gr.Tab("Variants", id="variants") as variants_tab:
            variants = _gallery("Variants", "variants")
            with gr.Row(elem_id="like-row"):
                strength = gr.Slider(
                    0.05, 1, 0.2, step=0.05, label="Strength", min_width=150, elem_id="strength"
                )
                more = gr.Button("More like this", scale=0, min_width=150, elem_id="more")
        with gr.Tab("Pictures", id="pictures") as pictures_tab:
            pictures = _gallery("Pictures", "pictures", 250, preview=True)
            turntable = _turntable()
        with gr.Tab("Compare", id="comparison", visible=refines) as comparison_tab:
            comparison = gr.ImageSlider(
                label="Draft and refined",
                interactive=False,
                height=320,
                image_mode="RGBA",
                format="png",
                buttons=["fullscreen"],
                elem_id="comparison",
            )
        with gr.Tab("History", id="history") as history_tab:
            history = _history(token, dropped)
    tab = {
        "details": details_tab,
        "variants": variants_tab,
        "pictures": pictures_tab,
        "comparison": comparison_tab,
        "history": history_tab,
    }

    def show(view: str, viewer: gr.Model3D) -> None:
        """Never called: its signature tells Gradio to pass the viewer component to the script."""

    # Runs in the browser without a round trip, since only the browser knows the current camera.
    show.__js_implementation__ = read("show.js", distance=CAMERA[2])  # type: ignore[attr-defined]
    view_json.change(show, [view_json, viewer], viewer, **UNQUEUED)
    return ResultView(
        viewer=viewer, view_json=view_json, facts=facts, downloads=downloads, tabs=tabs, tab=tab,
        pictures=pictures, variants=variants, comparison=comparison, strength=strength, more=more,
        history=history, refine=refine, looks=looks, turntable=turntable, ar=ar, link=link,
    )  # fmt: skip


def refine_choices(engine: Engine) -> list[tuple[str, int]]:
    """Return the lengths of a refinement, with their estimated durations, as choices of a dropdown."""
    return [(panels.refine_choice(steps, engine.refinements.estimate(steps)), steps) for steps in LENGTHS]


def _refine(engine: Engine, refines: bool, uploads: bool) -> RefineView:
    steps = gr.Dropdown(
        refine_choices(engine), value=LENGTHS[1], label="Length of the refinement", show_label=False,
        container=False, min_width=190, visible=refines, elem_id="refine-steps",
    )  # fmt: skip
    start = gr.Button("Refine", interactive=False, min_width=80, visible=refines, elem_id="refine")
    upload = gr.Button("Refine a file", min_width=110, visible=refines and uploads, elem_id="refine-upload")
    key = gr.Textbox(visible="hidden", elem_id="refine-key")
    return RefineView(steps, start, upload, key, gr.Textbox(visible="hidden", elem_id="refine-uploaded"))


def _turntable() -> TurntableView:
    with gr.Row(elem_id="turntable-row"):
        start = gr.Button("Render turntable", min_width=130, elem_id="turntable")
        animation = gr.DownloadButton("WebP", interactive=False, min_width=70, elem_id="download-turntable")
        still = gr.DownloadButton("PNG", interactive=False, min_width=70, elem_id="download-still")
    return TurntableView(start, animation, still)


def _history(token: gr.Textbox, dropped: gr.Button) -> HistoryView:
    gallery = _gallery("History", "history")
    selected = gr.HTML(panels.selected_entry(None), elem_id="chosen")
    with gr.Row(elem_id="past-row"):
        restore = gr.Button("Restore settings", interactive=False, min_width=144, elem_id="past-restore")
        settings_file = gr.Button("Settings from a GLB", min_width=160, elem_id="settings-file")
        pin = gr.Button("Pin", interactive=False, min_width=90, elem_id="past-pin")
        delete = gr.Button("Delete", interactive=False, min_width=90, elem_id="past-delete")
        pack = gr.Button("Make ZIP", min_width=90, elem_id="past-pack")
        archive = gr.DownloadButton("Download ZIP", interactive=False, min_width=110, elem_id="past-zip")
    buttons = {"restore": restore, "pin": pin, "delete": delete}
    return HistoryView(token, gallery, selected, buttons, settings_file, dropped, pack, archive)


def _gallery(label: str, name: str, height: int = 150, preview: bool = False) -> gr.Gallery:
    """Create a single-row gallery; with `preview`, images open in full size."""
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
