"""Training logs: JSON lines, and a plot of their curves."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from triplaneturbo.utils.atomic_files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLUMNS = 3


def log_line(path: Path, line: dict[str, float]) -> None:
    """Append a line to the log `path` (.jsonl) and update its plot (-curves.png)."""
    with path.open("a") as log:
        log.write(json.dumps(line) + "\n")
    write_atomically(path.with_name(f"{path.stem}-curves.png"), curves(path))


def curves(path: Path) -> bytes:
    """Plot each value of a log over its first one, the step; returns a PNG.

    If a run was resumed from an earlier state, the later line of each step is used.
    """
    from matplotlib.figure import Figure

    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    count = next(iter(lines[0]))
    latest = {line[count]: line for line in lines}
    names = list(dict.fromkeys(name for line in lines for name in line if name != count))
    rows = -(-len(names) // _COLUMNS)
    figure = Figure(figsize=(3.6 * _COLUMNS, 2.3 * rows), layout="constrained")
    panels = list(figure.subplots(rows, _COLUMNS, squeeze=False).flat)
    for panel, name in zip(panels, names, strict=False):
        points = [(at, line[name]) for at, line in sorted(latest.items()) if name in line]
        panel.plot(*zip(*points, strict=True), color="#3b6fb5", marker="." if len(points) < 40 else "")
        panel.set_title(name, fontsize=10)
        panel.set_ylim(0, 1.08 * max(max(value for _, value in points), 1e-6))
        panel.grid(alpha=0.3)
    for panel in panels[len(names) :]:
        panel.remove()
    figure.supxlabel(count, fontsize=10)
    return as_png(figure)


def as_png(figure: Figure) -> bytes:
    """Return a figure as PNG bytes."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()
