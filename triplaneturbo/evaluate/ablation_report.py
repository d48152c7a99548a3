"""The tables of an ablation as Markdown and JSON: measured rows beside the paper's figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from triplaneturbo.distill.corpora.prompt_list import how_many
from triplaneturbo.evaluate.ablation_runs import Budget
from triplaneturbo.evaluate.ablation_scores import Figure
from triplaneturbo.evaluate.ablation_tables import AblationRow, AblationTable, Variant

# Results of the finished runs by variant and seed; see `ablate.read_results`.
Results = Mapping[str, Mapping[int, Mapping[str, Any]]]
_COSTS = (
    Figure("parameters", "trained, M", 1e-6),
    Figure("iterations", "iterations", decimals=0),
    Figure("seconds", "seconds", decimals=0),
    Figure("cpu_seconds", "CPU seconds", decimals=0),
)
_QUOTED = ("paper: C.S.", "paper: R@1, %")


def markdown(
    tables: Sequence[AblationTable],
    results: Results,
    figures: Sequence[Figure],
    baseline: tuple[str, Mapping[str, Any]] | None,
    notes: Sequence[str],
) -> str:
    """Return all tables.

    Args:
        tables: the tables.
        results: results of the finished runs.
        figures: measured columns.
        baseline: label and figures of a row that every table ends with; None for none.
        notes: what the figures mean.
    """
    lines = ["# Ablations of the PRD paper", ""]
    headings = ["run", "seeds", *(f.heading for f in (*figures, *_COSTS)), *_QUOTED]
    for table in tables:
        lines += [f"## Table {table.number}: {table.title}", "", _line(headings)]
        lines.append("|---|" + "---:|" * (len(headings) - 1))
        lines += [_measured(row, results.get(row.variant.name, {}), figures) for row in table.rows]
        if baseline is not None:
            label, values = baseline
            cells = [_cell([values.get(f.key)], f) for f in figures]
            lines.append(_line([label, "-", *cells, *["-"] * (len(_COSTS) + len(_QUOTED))]))
        lines.append("")
    lines += ["Notes:", "", *(f"- {note}" for note in (*notes, *_diverged(tables, results)))]
    return "\n".join(lines) + "\n"


def record(tables: Sequence[AblationTable], results: Results, budget: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tables as values of JSON: each row's results by seed beside the paper's figures."""
    return {
        "budget": dict(budget),
        "tables": [
            {
                "table": table.number,
                "title": table.title,
                "rows": [
                    {
                        "label": row.label,
                        "variant": row.variant.name,
                        "quoted": {"clip_score": row.clip_score, "r_at_1": row.r_at_1},
                        "results": {str(s): r for s, r in results.get(row.variant.name, {}).items()},
                    }
                    for row in table.rows
                ],
            }
            for table in tables
        ],
    }


def budget_note(budget: Budget) -> str:
    """Return a sentence that states a budget."""
    scored = f"{budget.scored_steps} of the K steps" if budget.scored_steps else "all K steps"
    passes = "; smaller K get more iterations, for equal U-Net passes" if budget.equal == "passes" else ""
    return (
        f"Every run starts from a new adapter: {budget.iterations:,} iterations of {how_many(budget.batch)}"
        f" per process, {scored} scored, {budget.optimizer} at {budget.learning_rate:g}{passes}. Means over"
        " seeds, with the lowest and highest."
    )


QUOTED_NOTE = (
    "The paper's figures (arXiv 2503.21694, Tables 2 to 6) are quoted: the full model after 15,000 iterations"
    " on eight H20 GPUs. Compare orders, not values, unless the model and the budget are the paper's. Its"
    " Tables 4 and 5 print the same figures for the runs without MVDream and without rasterization."
)


def _measured(row: AblationRow, results: Mapping[int, Mapping[str, Any]], figures: Sequence[Figure]) -> str:
    by_seed = [results[seed] for seed in sorted(results)]
    cells = [_cell([result["figures"].get(f.key) for result in by_seed], f) for f in figures]
    costs = [_cell([result.get(f.key) for result in by_seed], f) for f in _COSTS]
    return _line([row.label, str(len(by_seed)), *cells, *costs, row.clip_score, row.r_at_1])


def _cell(values: Sequence[float | None], figure: Figure) -> str:
    """Format the mean of a figure over seeds, with the lowest and highest if they differ."""
    known = [figure.scale * value for value in values if value is not None]
    if not known:
        return "-"
    mean, low, high = (f"{value:,.{figure.decimals}f}" for value in (fmean(known), min(known), max(known)))
    return mean if low == high else f"{mean} ({low} to {high})"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _diverged(tables: Sequence[AblationTable], results: Results) -> list[str]:
    variants: dict[str, Variant] = {row.variant.name: row.variant for t in tables for row in t.rows}
    return [
        f"{name}, seed {seed}: diverged, and is scored at iteration {result['iterations']}."
        for name in variants
        for seed, result in sorted(results.get(name, {}).items())
        if result["diverged"]
    ]
