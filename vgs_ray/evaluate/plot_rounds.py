"""The figure of rounds: accuracy of the main methods by round, at their largest budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib

matplotlib.use("Agg")  # draws without a display

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vgs_ray.data.storage import AnyPath
from vgs_ray.evaluate.formats import by_benchmark
from vgs_ray.evaluate.plot import LOOKS, STYLE, save_figure

Row = Mapping[str, Any]


def draw_rounds(rows: Sequence[Row], path: AnyPath) -> None:
    """Draw a panel for each benchmark, as a PNG and a PDF with the same name.

    Args:
        rows: of rounds.json.
        path: of the PNG.
    """
    benchmarks = by_benchmark(rows)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 5 * len(benchmarks)), dpi=200, layout="constrained")
        panels = figure.subplots(len(benchmarks), squeeze=False)[:, 0]
        for axes, (name, group) in zip(panels, benchmarks.items(), strict=True):
            _draw_benchmark(axes, name, group)
        save_figure(figure, path)


def _draw_benchmark(axes: Axes, name: str, rows: Sequence[Row]) -> None:
    largest = max(row["budget"] for row in rows)
    for method, look in LOOKS.items():
        points = [row for row in rows if row["method"] == method and row["budget"] in (1, largest)]
        points.sort(key=lambda row: row["round"])
        if points:
            means = [100 * row["accuracy"] for row in points]
            below = [100 * (row["accuracy"] - row["low"]) for row in points]
            above = [100 * (row["high"] - row["accuracy"]) for row in points]
            axes.errorbar(
                [row["round"] for row in points], means, [below, above], label=look.label, color=look.colour,
                linestyle=look.line, marker=look.marker, capsize=3, linewidth=2.2 if look.strong else 1.2,
            )  # fmt: skip
    axes.set(xlabel="round", ylabel="accuracy, %")
    axes.set_title(
        f"{name}: {rows[0]['problems']} problems, budget {largest}; bars are 95% intervals", loc="left", fontsize=11
    )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color="#E4E4E4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.legend(frameon=False, fontsize=10, loc="center left", bbox_to_anchor=(1.0, 0.5))
