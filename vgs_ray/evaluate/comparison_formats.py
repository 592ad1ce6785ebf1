"""The tables of a comparison as text: for the terminal and in Markdown. In: the content of compare.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tabulate import tabulate

from vgs_ray.evaluate.formats import Row, accuracy_text, by_benchmark, github_table, interval_text

FIGURES = {
    "Accuracy by method and run": "accuracy_by_run.png",
    "Accuracy against FLOPs": "accuracy_vs_flops.png",
    "Values along answers to held-out problems": "values_along_answers.png",
    "Mean value by position": "values_by_position.png",
    "Accuracy and Brier score against a field": "against_field.png",
}
METRICS = {"brier": "Brier", "auc": "AUC", "ranked_pairs": "ranked pairs"}
NOTES = """\
- Cells have the accuracy in % or the difference in points, with a 95% interval over problems: a bootstrap, or Student's t for
  fewer than 50 problems. Differences are paired by problem.
- The number after a method is its budget: generations in parallel, or sampled blocks of a tree search.
- FLOPs are those of policy and value model for one problem, counted by the engines.
- Brier and AUC compare values with outcomes. Own validation: at all tokens of the run's own validation rows. Held-out tokens and
  step ends: of the same finished answers to validation problems for each run. Answers to a benchmark: at the ends of the sampled
  answers. Ranked pairs: share of the pairs of a correct and an incorrect held-out answer to the same problem in which the correct
  one has the higher value at its end. compare.json also has the ECE."""


def terminal_table(comparison: Mapping[str, Any]) -> str:
    """Accuracy and FLOPs of each run by method, as text of at most 100 columns; one table for each benchmark."""
    heads, align = ["method", "budget", "run", "acc.%", "95%", "FLOPs"], ("left", "right", "left", *["right"] * 3)
    order = {tuple(column): place for place, column in enumerate(comparison["columns"])}
    tables = []
    for name, rows in by_benchmark(comparison["rows"]).items():
        ordered = sorted(rows, key=lambda row: order[row["method"], row["budget"]])
        cells = [
            [row["method"], row["budget"], row["run"], f"{100 * row['accuracy']:.1f}", interval_text(row, ".1f", "-"),
             f"{row['flops']:.2e}"]
            for row in ordered
        ]  # fmt: skip
        table = tabulate(cells, heads, "simple", disable_numparse=True, colalign=align)
        tables.append(f"{name}, {rows[0]['problems']} problems\n{table}")
    return "\n\n".join(tables)


def markdown(comparison: Mapping[str, Any], figures: Sequence[str]) -> str:
    """compare.md: a table of accuracies, FLOPs and differences for each benchmark, the value models, and the figures.

    Args:
        comparison: the content of compare.json.
        figures: names of the figures that exist.
    """
    differences = by_benchmark(comparison["differences"])
    parts = []
    for name, rows in by_benchmark(comparison["rows"]).items():
        parts += [f"# Comparison: {name}, {rows[0]['problems']} problems"]
        parts += [_table(comparison, rows, _runs(comparison), accuracy_text), "## FLOPs per problem"]
        parts += [_table(comparison, rows, _runs(comparison), lambda row: f"{row['flops']:.2e}")]
        gaps = [{**row, "run": f"`{row['a']}` − `{row['b']}`"} for row in differences.get(name, [])]
        if gaps:
            pairs = {row["run"]: row["run"] for row in gaps}
            parts += ["## Differences between runs", _table(comparison, gaps, pairs, _difference, "difference")]
    if comparison["value_models"]:
        parts += ["## Value models", _value_models(comparison["value_models"])]
    shown = [f"![{title}]({file})" for title, file in FIGURES.items() if file in figures]
    return "\n\n".join([*parts, NOTES, *shown]) + "\n"


def _runs(comparison: Mapping[str, Any]) -> dict[str, str]:
    return {name: f"`{name}`" for name in comparison["runs"]}


def _difference(row: Row) -> str:
    return f"{100 * row['difference']:+.1f} ({interval_text(row, '+.1f')})"


def _table(
    comparison: Mapping[str, Any],
    rows: Sequence[Row],
    labels: Mapping[str, str],
    cell: Callable[[Row], str],
    title: str = "run",
) -> str:
    """A line for each label and a column for each method; empty columns are left out."""
    by_place = {(row["run"], row["method"], row["budget"]): cell(row) for row in rows}
    filled = {place[1:] for place in by_place}
    columns = [tuple(column) for column in comparison["columns"] if tuple(column) in filled]
    cells = [[label, *(by_place.get((name, *column), "–") for column in columns)] for name, label in labels.items()]
    return github_table(cells, [title, *(f"`{method}` {budget}" for method, budget in columns)])


def _value_models(models: Sequence[Row]) -> str:
    """A line for each run; columns without any number are left out."""
    groups = list(dict.fromkeys(group for model in models for group in _by_group(model)))
    columns = [
        (group, metric)
        for group in groups
        for metric in METRICS
        if any(_by_group(model).get(group, {}).get(metric) is not None for model in models)
    ]
    cells = [
        [f"`{model['run']}`", *(_number(_by_group(model).get(a, {}).get(b)) for a, b in columns)] for model in models
    ]
    return github_table(cells, ["run", *(f"{METRICS[metric]}, {group}" for group, metric in columns)])


def _by_group(model: Row) -> dict[str, Row]:
    held_out = model.get("held_out", {})
    groups = {
        "own validation": model["validation"],
        "held-out tokens": held_out.get("tokens", {}),
        "held-out step ends": held_out.get("steps", {}),
        "held-out answers": {"ranked_pairs": held_out.get("ranked_pairs")},
    }
    return {**groups, **{f"answers to {name}": metrics for name, metrics in model["answers"].items()}}


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
