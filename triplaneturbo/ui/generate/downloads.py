"""Updates for what the page offers of the shown mesh: its files, AR, the turntable and the comparison."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import gradio as gr

if TYPE_CHECKING:
    from triplaneturbo.ui.generate.result import ResultView
    from triplaneturbo.ui.generate.updates import Updates


def offer(files: Mapping[str, Path], result_view: ResultView) -> Updates:
    """Return the updates that offer the files of a mesh, and nothing of the previous one.

    AR needs the GLB and the USDZ, which differ only in their suffix.

    Args:
        files: paths by format, of the files written so far; other formats are disabled.
    """
    updates: Updates = {
        button: gr.update(value=str(files[name]) if name in files else None, interactive=name in files)
        for name, button in result_view.downloads.items()
    }
    stem = str(files["usdz"].with_suffix("")) if {"glb", "usdz"} <= files.keys() else ""
    updates |= {
        result_view.ar.start: gr.update(interactive=bool(stem)),
        result_view.ar.stem: stem,
        result_view.ar.code: gr.update(visible=False),
    }
    for button in (result_view.turntable.animation, result_view.turntable.still):
        updates[button] = gr.update(value=None, interactive=False)
    return updates | {result_view.comparison: gr.update(value=None)}


def outputs(result_view: ResultView) -> list[gr.components.Component]:
    """Return the components that `offer` updates."""
    ar, turntable = result_view.ar, result_view.turntable
    return [
        *result_view.downloads.values(),
        *(ar.start, ar.stem, ar.code, turntable.animation, turntable.still, result_view.comparison),
    ]
