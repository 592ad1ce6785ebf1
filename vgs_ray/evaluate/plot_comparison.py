"""Figures of a comparison of runs: accuracies, values along answers, and a curve against a field of the recipe.

In: the content of compare.json. Out: PNG and PDF files. Every run has one colour and one marker in all figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")  # draws without a display

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

from vgs_ray.evaluate.formats import Row, by_benchmark
from vgs_ray.evaluate.plot import LOOKS, STYLE, Look, draw_lines, save_figure

COLOURS = ("#0072B2", "#009E73", "#CC79A7", "#D55E00", "#E69F00", "#56B4E9", "#444444", "#882255")
MARKERS = ("s", "^", "D", "o", "P", "X", "v", "*")
RIGHT, WRONG = "#0072B2", "#D55E00"
MAX_STEP_LINES = 100
"""The ends of more steps would make the background grey."""
MAX_STEP_TEXTS, STEP_TEXT = 16, 20
"""The last 20 characters of each step are written below the axis, if an answer has at most 16 steps."""
GRID = {"color": "#E4E4E4", "linewidth": 0.8}
Content = Mapping[str, Any]


class _Look(NamedTuple):
    color: str
    marker: str
    linestyle: str


def _looks(runs: Sequence[str]) -> dict[str, _Look]:
    """A look for each run or line. The ninth has the colour and the marker of the first, and a dashed line."""
    count = len(COLOURS)
    return {
        run: _Look(COLOURS[place % count], MARKERS[place % count], "-" if place < count else "--")
        for place, run in enumerate(runs)
    }


def draw_comparison(comparison: Content, folder: Path) -> list[str]:
    """Draw every figure that the comparison has data for, and return their names."""
    drawn = []
    with matplotlib.rc_context(STYLE):
        benchmarks = by_benchmark(comparison["rows"])
        for number, (name, rows) in enumerate(benchmarks.items(), 1):
            suffix = "" if number == len(benchmarks) else f"-{name.replace('/', '_')}"
            drawn.append(_save(_accuracy_figure(comparison, rows), folder / f"accuracy_by_run{suffix}.png"))
            if points := [row for row in comparison["curves"] if row["benchmark"] == name]:
                drawn.append(f"accuracy_vs_flops{suffix}.png")
                draw_lines(_curves(comparison["runs"], points), "flops", folder / drawn[-1])
        if curves := comparison.get("held_out"):
            drawn.append(_save(_position_figure(curves), folder / "values_by_position.png"))
            if curves["examples"]:
                drawn.append(_save(_answers_figure(curves), folder / "values_along_answers.png"))
        if comparison.get("against"):
            drawn.append(_save(_field_figure(comparison), folder / "against_field.png"))
    return drawn


def _curves(runs: Sequence[str], rows: Sequence[Row]) -> list[tuple[Look, list[Row]]]:
    """A line for each run and method. Runs with the same policy and seed have the same majority votes, which are drawn once."""
    lines, votes = list[tuple[Look, list[Row]]](), {row["budget"]: row for row in rows if row["method"] == "majority"}
    same = all(row["accuracy"] == votes[row["budget"]]["accuracy"] for row in rows if row["method"] == "majority")
    for run, look in _looks(runs).items():
        mine = [row for row in rows if row["run"] == run and not (same and row["method"] == "majority")]
        for method in dict.fromkeys(row["method"] for row in mine):
            strong = method == "vgs_weighted_majority"
            line = "-" if strong else {"weighted_majority": "--", "majority": ":"}.get(method, "-.")
            label = "VGS" if strong else _method_label(method, 1)
            drawn = Look(f"{run}, {label}", look.color, line, look.marker, strong)
            lines.append((drawn, [row for row in mine if row["method"] == method]))
    return [*lines, (LOOKS["majority"], list(votes.values()))] if same else lines


def _save(figure: Figure, path: Path) -> str:
    save_figure(figure, path)
    return path.name


def _method_label(method: str, budget: int) -> str:
    label = LOOKS[method].label if method in LOOKS else method.removesuffix("_weighted_majority").replace("_", " ")
    return label if budget == 1 else f"{label}, {budget}"


def _accuracy_figure(comparison: Content, rows: Sequence[Row]) -> Figure:
    """A line of dots with intervals for each method, one dot for each run."""
    runs, looks = comparison["runs"], _looks(comparison["runs"])
    filled = {(row["method"], row["budget"]) for row in rows}
    columns = [tuple(column) for column in comparison["columns"] if tuple(column) in filled]
    gap = 0.8 / len(runs)
    figure = Figure(figsize=(9, 1.4 + 0.2 * len(columns) * (len(runs) + 1)), dpi=200, layout="constrained")
    axes = figure.add_subplot()
    for place, run in enumerate(runs):
        mine = {(row["method"], row["budget"]): row for row in rows if row["run"] == run}
        shown = [(at, mine[column]) for at, column in enumerate(columns) if column in mine]
        heights = [at + (place - (len(runs) - 1) / 2) * gap for at, _ in shown]
        means = [100 * row["accuracy"] for _, row in shown]
        spans = [
            [100 * (row["accuracy"] - row["low"]) for _, row in shown],
            [100 * (row["high"] - row["accuracy"]) for _, row in shown],
        ]
        axes.errorbar(
            means,
            heights,
            xerr=spans,
            fmt=looks[run].marker,
            color=looks[run].color,
            markersize=6,
            capsize=2,
            linewidth=1.2,
            label=run,
        )
    axes.set_yticks(range(len(columns)), [_method_label(*column) for column in columns])
    axes.set_ylim(len(columns) - 0.5, -0.5)
    for edge in range(1, len(columns)):
        axes.axhline(edge - 0.5, **GRID)
    axes.grid(axis="x", **GRID)
    axes.set_axisbelow(True)
    axes.set_xlabel("accuracy, %")
    title = f"{rows[0]['benchmark']}: {rows[0]['problems']} problems; bars are 95% intervals"
    axes.set_title(title, loc="left", fontsize=11, color="#222222")
    figure.legend(loc="outside upper right", ncols=min(len(runs), 5), frameon=False)
    return figure


def _answers_figure(curves: Content) -> Figure:
    """A row for each problem: the values of all runs along a correct and an incorrect answer."""
    looks, examples = _looks(list(curves["runs"])), curves["examples"]
    figure = Figure(figsize=(11, 1 + 2.3 * len(examples)), dpi=200, layout="constrained")
    grid = figure.subplots(len(examples), 2, squeeze=False, sharey=True)
    for axes_row, example in zip(grid, examples, strict=True):
        for axes, answer in zip(axes_row, example["answers"], strict=True):
            _draw_answer(axes, answer, looks)
        axes_row[0].set_ylabel("value")
    for axes, outcome in zip(grid[0], ("correct answer", "incorrect answer"), strict=True):
        axes.set_title(outcome, loc="left", fontsize=11)
    for axes in grid[-1]:
        axes.set_xlabel("tokens of the answer; a vertical line is the end of a step")
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
    return figure


def _draw_answer(axes: Axes, answer: Content, looks: Mapping[str, _Look]) -> None:
    for end in answer["step_ends"] if len(answer["step_ends"]) <= MAX_STEP_LINES else ():
        axes.axvline(end + 1, **GRID)
    for run, values in answer["values"].items():
        positions = range(1, len(values) + 1)
        marked: Any = [*answer["step_ends"], len(values) - 1] if answer["step_ends"] else max(1, len(values) // 12)
        axes.plot(positions, values, **looks[run]._asdict(), markevery=marked, markersize=4, linewidth=1.2, label=run)
    axes.set(ylim=(0, 1), xlim=(0, len(positions) + 1))
    if answer.get("steps") and 0 < len(answer["step_ends"]) <= MAX_STEP_TEXTS:
        ends = [end + 1 for end in answer["step_ends"]]
        texts = [step if len(step) <= STEP_TEXT else f"…{step[1 - STEP_TEXT :]}" for step in answer["steps"]]
        axes.set_xticks(ends, texts[: len(ends)], rotation=30, ha="right", rotation_mode="anchor", fontsize=8)


def _position_figure(curves: Content) -> Figure:
    """A panel for each run: the mean value in each tenth of correct and of incorrect answers."""
    runs = curves["runs"]
    figure = Figure(figsize=(1 + 2.6 * len(runs), 3.6), dpi=200, layout="constrained")
    panels = figure.subplots(1, len(runs), squeeze=False, sharey=True)[0]
    for axes, (run, each) in zip(panels, runs.items(), strict=True):
        for outcome, colour, line in (("correct", RIGHT, "-"), ("incorrect", WRONG, "--")):
            x = [100 * (place + 1) / len(each[outcome]) for place in range(len(each[outcome]))]
            low, mean, high = ([part[name] for part in each[outcome]] for name in ("low", "mean", "high"))
            axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
            axes.plot(x, mean, color=colour, linestyle=line, linewidth=2, label=f"{outcome} answers")
        metrics = each.get("steps", each["tokens"])
        area = "" if metrics["auc"] is None else f", AUC {metrics['auc']:.3f}"
        axes.set_title(f"{run}\nBrier {metrics['brier']:.3f}{area}", loc="left", fontsize=10)
        axes.set(xlim=(0, 100), ylim=(0, 1), xlabel="% of the answer")
        axes.grid(axis="y", **GRID)
    with_steps = all("steps" in each for each in runs.values())
    panels[0].set_ylabel("mean value at the last step end" if with_steps else "mean value")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=2, frameon=False)
    return figure


def _field_figure(comparison: Content) -> Figure:
    """Left: accuracy of each method. Right: Brier scores of the value models. Both against a field of the recipe."""
    field, numbers = comparison["against"]["field"], comparison["against"]["numbers"]
    figure = Figure(figsize=(11, 5), dpi=200, layout="constrained")
    left, right = figure.subplots(1, 2)
    rows = list(by_benchmark(comparison["rows"]).values())[-1]
    columns = [tuple(column) for column in comparison["columns"]]
    for look, column in zip(_looks([str(column) for column in columns]).values(), columns, strict=False):
        points = sorted(
            (numbers[row["run"]], 100 * row["accuracy"]) for row in rows if (row["method"], row["budget"]) == column
        )
        left.plot(*zip(*points, strict=True), **look._asdict(), linewidth=1.6, label=_method_label(*column))
    _draw_briers(right, comparison, numbers)
    for axes, columns_of_legend in ((left, 2), (right, 1)):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(FixedLocator(sorted(set(numbers.values()))))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel(f"{field} (log scale)")
        axes.grid(axis="y", **GRID)
        axes.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=columns_of_legend)
    left.set_ylabel("accuracy, %")
    right.set_ylabel("Brier score")
    return figure


def _draw_briers(axes: Axes, comparison: Content, numbers: Mapping[str, float]) -> None:
    models = [model for model in comparison["value_models"] if model["run"] in numbers]
    groups = {
        "tokens of the same held-out answers": [(model, _held_out(model, "tokens")) for model in models],
        "step ends of the same held-out answers": [(model, _held_out(model, "steps")) for model in models],
        "tokens of the run's own validation rows": [(model, model["validation"].get("brier")) for model in models],
        **{
            f"ends of answers to {name}": [(model, model["answers"].get(name, {}).get("brier")) for model in models]
            for name in dict.fromkeys(name for model in models for name in model["answers"])
        },
    }
    for (name, briers), look in zip(groups.items(), _looks(list(groups)).values(), strict=True):
        points = sorted((numbers[model["run"]], brier) for model, brier in briers if brier is not None)
        if points:
            axes.plot(*zip(*points, strict=True), **look._asdict(), linewidth=1.6, label=name)


def _held_out(model: Row, where: str) -> float | None:
    brier: float | None = model.get("held_out", {}).get(where, {}).get("brier")
    return brier
