"""Figures of a report: accuracy against FLOPs and against budget, and calibration of the answers' values.

In: the content of report.json. Out: for each figure a PNG for a README and a PDF for a paper. The colours are those of Okabe and
Ito, which colour-blind readers can tell apart; line styles and markers repeat the distinction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle, pairwise
from typing import Any, Literal, NamedTuple

import matplotlib

from vgs_ray.data.files import atomic_file
from vgs_ray.data.storage import AnyPath

matplotlib.use("Agg")  # draws without a display

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter

from vgs_ray.evaluate.formats import PROBABILITY_FIGURE, Row, by_benchmark

Axis = Literal["flops", "budget"]
X_LABELS: dict[Axis, str] = {
    "flops": "FLOPs per problem, policy and value model (log scale)",
    "budget": "budget: generations in parallel (log scale)",
}


class Look(NamedTuple):
    """Of a line. `strong` is a thick line with its interval."""

    label: str
    colour: str
    line: str
    marker: str
    strong: bool


LOOKS = {
    "vgs_weighted_majority": Look("VGS, weighted majority", "#D55E00", "-", "o", True),
    "vgs_best": Look("VGS, best", "#D55E00", ":", "o", False),
    "vgs_majority": Look("VGS, majority", "#D55E00", "--", "o", False),
    "weighted_majority": Look("weighted majority", "#0072B2", "-", "s", True),
    "best_of_n": Look("best of N", "#009E73", "-", "^", True),
    "best_of_n_likely": Look("best of N, likely", "#009E73", ":", "^", False),
    "vgs_best_likely": Look("VGS, best, likely", "#E69F00", "-", "v", False),
    "majority": Look("majority", "#444444", "-", "D", True),
    "single": Look("one sample", "#444444", "-", "X", True),
    "greedy": Look("greedy", "#882255", "-", "*", True),
    "pass": Look("pass@N, samples", "#767676", "--", "s", False),
    "vgs_pass": Look("pass@N, VGS", "#767676", ":", "o", False),
    "adaptive_weighted_majority": Look("weighted, adaptive", "#CC79A7", "-.", "P", False),
    "vgs_adaptive_weighted_majority": Look("VGS, weighted, adaptive", "#56B4E9", "-.", "P", False),
}

VARIANT_COLOURS = ("#CC79A7", "#56B4E9", "#E69F00", "#117733", "#882255")

CALIBRATED = ("sample", "beam")
"""Explorers in the calibration figure. With all variants the lines would be hard to tell apart; report.md lists the others."""
CALIBRATION_COLOURS = ("#0072B2", "#D55E00", "#009E73", *VARIANT_COLOURS)

STYLE = {
    "font.size": 11,
    "font.family": "DejaVu Sans",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#666666",
    "axes.labelcolor": "#222222",
    "xtick.color": "#444444",
    "ytick.color": "#444444",
}


def draw_figures(report: Mapping[str, Sequence[Row]], folder: AnyPath) -> None:
    """Draw the report's figures.

    With several benchmarks, the file names of all but the average end in the benchmark's name.

    Args:
        report: the content of report.json.
        folder: of the files.
    """
    benchmarks = by_benchmark(report["rows"])
    for number, (name, rows) in enumerate(benchmarks.items(), 1):
        suffix = "" if number == len(benchmarks) else f"-{name.replace('/', '_')}"
        draw_accuracy(rows, "flops", folder / f"accuracy_vs_flops{suffix}.png")
        draw_accuracy(rows, "budget", folder / f"accuracy_vs_budget{suffix}.png")
    draw_calibration(report["answers"], folder / "calibration.png")
    if report["probabilities"]:
        draw_probabilities(report["probabilities"], folder / PROBABILITY_FIGURE)


def draw_accuracy(rows: Sequence[Row], against: Axis, path: AnyPath) -> None:
    """Draw the rows of one benchmark, one line for each method."""
    looks = {**LOOKS, **_variant_looks(rows)}
    draw_lines(
        [(look, [row for row in rows if row["method"] == method]) for method, look in looks.items()], against, path
    )


def draw_lines(lines: Sequence[tuple[Look, Sequence[Row]]], against: Axis, path: AnyPath) -> None:
    """Draw lines with labels, except those without rows: a PNG of 1800 by 1000 pixels, and a PDF with the same name."""
    rows = [row for _, points in lines for row in points]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 5), dpi=200, layout="constrained")
        axes = figure.add_subplot()
        labels = [
            _draw_line(axes, sorted(points, key=lambda row: row[against]), against, look)
            for look, points in lines
            if points
        ]
        _set_limits(axes, rows, against)
        _set_ticks(axes, rows, against)
        _set_texts(axes, rows, against)
        figure.draw_without_rendering()  # fixes the scales that labels are placed by
        _draw_labels(axes, labels)
        save_figure(figure, path)


def draw_calibration(answers: Sequence[Row], path: AnyPath) -> None:
    """Draw the share of correct answers against their value, for `CALIBRATED` explorers; dots grow with the number of answers."""
    with_benchmark = len({row["benchmark"] for row in answers}) > 1
    drawn = [row for row in answers if row["calibration"] and row["search"] in CALIBRATED]
    names = [f"{row['benchmark']}, {row['search']}" if with_benchmark else row["search"] for row in drawn]
    curves = [(name, row["calibration"]) for name, row in zip(names, drawn, strict=True)]
    _draw_curves(curves, "value of the finished answer, %", "correct answers, %", path)


def draw_probabilities(rows: Sequence[Row], path: AnyPath) -> None:
    """Draw the share of correct chosen answers against three numbers that could predict it, of the guided search if any."""
    row = next((row for row in rows if row["search"] == "beam"), rows[0])
    names = {"share": "share of the vote", "value": "value", "probability": "probability"}
    curves = [(name, row[key]) for key, name in names.items()]
    _draw_curves(curves, "share of the vote, value or probability, %", "correct chosen answers, %", path)


def _draw_curves(curves: Sequence[tuple[str, Mapping[str, Any]]], x: str, y: str, path: AnyPath) -> None:
    """A reliability diagram with a curve for each `calibration`."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6, 5), dpi=200, layout="constrained")
        axes = figure.add_subplot()
        axes.plot([0, 100], [0, 100], color="#999999", linestyle="--", linewidth=1, label="calibrated")
        for (name, calibration), colour in zip(curves, cycle(CALIBRATION_COLOURS)):
            _draw_curve(axes, calibration, name, colour)
        axes.set(xlim=(0, 100), ylim=(0, 100), xlabel=x, ylabel=y)
        axes.grid(color="#E4E4E4", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.legend(frameon=False, loc="upper left", fontsize=10)
        save_figure(figure, path)


def _draw_curve(axes: Axes, calibration: Mapping[str, Any], name: str, colour: str) -> None:
    bins = calibration["bins"]
    x, y = ([100 * each[key] for each in bins] for key in ("value", "correct"))
    most = max(each["answers"] for each in bins)
    sizes = [10 + 90 * each["answers"] / most for each in bins]
    axes.plot(x, y, color=colour, linewidth=1.6, label=f"{name}, ECE {calibration['ece']:.3f}")
    axes.scatter(x, y, sizes, color=colour, edgecolors="white", zorder=3)


def save_figure(figure: Figure, path: AnyPath) -> None:
    """Save as PNG and PDF, without a creation date: equal numbers give equal bytes."""
    for kind, metadata in (("png", None), ("pdf", {"CreationDate": None})):
        with atomic_file(path.with_suffix(f".{kind}")) as temporary:
            figure.savefig(temporary, format=kind, facecolor="white", metadata=metadata)


def _variant_looks(rows: Sequence[Row]) -> dict[str, Look]:
    """Looks of the variants' weighted majorities."""
    suffix = "_weighted_majority"
    names = sorted({row["method"] for row in rows if row["method"].endswith(suffix)} - LOOKS.keys())
    return {
        name: Look(name.removesuffix(suffix).replace("_", " "), colour, "-.", "P", False)
        for name, colour in zip(names, cycle(VARIANT_COLOURS))
    }


class _Label(NamedTuple):
    text: str
    colour: str
    strong: bool
    x: float
    y: float


def _draw_line(axes: Axes, points: Sequence[Row], against: str, look: Look) -> _Label:
    x, y = [row[against] for row in points], [100 * row["accuracy"] for row in points]
    low, high = [100 * row["low"] for row in points], [100 * row["high"] for row in points]
    if look.strong and len(points) > 1:
        axes.fill_between(x, low, high, color=look.colour, alpha=0.12, linewidth=0, zorder=1)
    elif look.strong:
        axes.errorbar(x, y, [[y[0] - low[0]], [high[0] - y[0]]], color=look.colour, linewidth=1, capsize=3, zorder=2)
    width, size, order = (2.2, 7, 3) if look.strong else (1.2, 4 if len(points) > 1 else 7, 2)
    line = {"color": look.colour, "linestyle": look.line, "linewidth": width}
    marker = {"marker": look.marker, "markersize": size, "markeredgecolor": "white", "markeredgewidth": 0.8}
    axes.plot(x, y, zorder=order, **line, **marker)
    return _Label(look.label, look.colour, look.strong, x[-1], y[-1])


def _set_limits(axes: Axes, rows: Sequence[Row], against: str) -> None:
    positions = _positions(rows, against)
    low, high = min(100 * row["low"] for row in rows), max(100 * row["high"] for row in rows)
    axes.set_xscale("log")
    axes.set_xlim(min(positions) / 1.25, max(positions) * 1.25)
    axes.set_ylim(max(0, low - 3), min(100, high) + 2)


def _set_ticks(axes: Axes, rows: Sequence[Row], against: str) -> None:
    positions = _positions(rows, against)
    if against == "budget":
        axes.xaxis.set_major_locator(FixedLocator(sorted(set(positions))))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda budget, _: f"{budget:,.0f}"))
    else:
        # With powers of ten alone, less than two decades would have one or two ticks.
        subs = (1.0, 2.0, 5.0) if max(positions) / min(positions) < 100 else (1.0,)
        axes.xaxis.set_major_locator(LogLocator(subs=subs))
        axes.xaxis.set_major_formatter(FuncFormatter(_power_of_ten))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(axis="y", color="#E4E4E4", linewidth=0.8)
    axes.set_axisbelow(True)


def _set_texts(axes: Axes, rows: Sequence[Row], against: Axis) -> None:
    axes.set_xlabel(X_LABELS[against])
    axes.set_ylabel("accuracy, %")
    problems = max(row["problems"] for row in rows)
    budgets = ", ".join(str(budget) for budget in sorted({row["budget"] for row in rows}))
    title = f"{rows[0]['benchmark']}: {problems} problems, budgets {budgets}; bands are 95% intervals"
    axes.set_title(title, loc="left", fontsize=11, color="#222222")


def _positions(rows: Sequence[Row], against: str) -> list[float]:
    """Positive positions on the x axis."""
    return [row[against] for row in rows if row[against] > 0] or [1.0]


def _power_of_ten(flops: float, _: int | None = None) -> str:
    mantissa, exponent = f"{flops:.0e}".split("e")
    times = "" if mantissa == "1" else rf"{mantissa}\times"
    return rf"${times}10^{{{int(exponent)}}}$"


def _draw_labels(axes: Axes, labels: list[_Label]) -> None:
    """Draw labels to the right of the axes, at the height of their line's last point unless they would overlap."""
    low, high = axes.get_ylim()
    heights = _spread([label.y for label in labels], (high - low) * 0.055, high)
    right = axes.get_xlim()[1] * 1.05
    for label, height in zip(labels, heights, strict=True):
        leader = {"arrowstyle": "-", "color": label.colour, "alpha": 0.6, "linewidth": 0.8, "linestyle": (0, (1, 2))}
        axes.annotate(
            label.text,
            (label.x, label.y),
            (right, height),
            color=label.colour,
            va="center",
            fontsize=11 if label.strong else 10,
            fontweight="bold" if label.strong else "normal",
            annotation_clip=False,
            arrowprops={**leader, "shrinkA": 2, "shrinkB": 5, "relpos": (0.0, 0.5)},
        )


def _spread(heights: list[float], gap: float, top: float) -> list[float]:
    """Move the heights `gap` apart and not above `top`, in the same order and as little as possible."""
    order = sorted(range(len(heights)), key=heights.__getitem__)
    spread = list(heights)
    for below, above in pairwise(order):
        spread[above] = max(spread[above], spread[below] + gap)
    for index in reversed(order):
        spread[index] = min(spread[index], top)
        top = spread[index] - gap
    return spread
