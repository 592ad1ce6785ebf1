"""Figures of a report: accuracy against FLOPs and against budget, and calibration.

In: what report.json holds. Out: for each figure a PNG that reads well at the width of a README and a PDF for a paper. Colours are
Okabe and Ito's, which colour-blind readers can tell apart; line styles and markers say the same again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle, pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple

import matplotlib

from vgs_ray.data.files import atomic_file

matplotlib.use("Agg")  # no display is needed, and none is asked for

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter

from vgs_ray.evaluate.formats import by_benchmark


class _Look(NamedTuple):
    label: str
    colour: str
    line: str
    marker: str
    band: bool  # drawn strong, with its interval


LOOKS = {
    "vgs_weighted_majority": _Look("VGS, weighted majority", "#D55E00", "-", "o", True),
    "vgs_best": _Look("VGS, best", "#D55E00", ":", "o", False),
    "vgs_majority": _Look("VGS, majority", "#D55E00", "--", "o", False),
    "weighted_majority": _Look("weighted majority", "#0072B2", "-", "s", True),
    "best_of_n": _Look("best of N", "#009E73", "-", "^", True),
    "majority": _Look("majority", "#444444", "-", "D", True),
    "single": _Look("one sample", "#444444", "-", "X", True),
    "pass": _Look("pass@N, samples", "#767676", "--", "s", False),
    "vgs_pass": _Look("pass@N, VGS", "#767676", ":", "o", False),
    "adaptive_weighted_majority": _Look("weighted, adaptive", "#CC79A7", "-.", "P", False),
    "vgs_adaptive_weighted_majority": _Look("VGS, weighted, adaptive", "#56B4E9", "-.", "P", False),
}

VARIANT_COLOURS = ("#CC79A7", "#56B4E9", "#E69F00", "#117733", "#882255")

CURVES = ("sample", "beam")
"""Searches whose calibration is drawn; those of all variants together could not be told apart, and are in the table."""
CURVE_COLOURS = ("#0072B2", "#D55E00", "#009E73", *VARIANT_COLOURS)

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


def draw_figures(report: Mapping[str, Sequence[Mapping[str, Any]]], folder: Path) -> None:
    """Draw the report's figures. Of several benchmarks the last one, their average, has the plain names.

    Args:
        report: what report.json holds.
        folder: of the files; each is replaced at once when it is complete.
    """
    benchmarks = by_benchmark(report["rows"])
    for number, (name, rows) in enumerate(benchmarks.items(), 1):
        ending = "" if number == len(benchmarks) else f"-{name.replace('/', '_')}"
        accuracy(rows, "flops", folder / f"accuracy_vs_flops{ending}.png")
        accuracy(rows, "budget", folder / f"accuracy_vs_budget{ending}.png")
    calibration(report["answers"], folder / "calibration.png")


def accuracy(rows: Sequence[Mapping[str, Any]], against: Literal["flops", "budget"], path: Path) -> None:
    """Draw the rows of one benchmark, one line for each method: a PNG of 1800 by 1000 pixels, and a PDF beside it."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 5), dpi=200, layout="constrained")
        axes = figure.add_subplot()
        names: list[_Label] = []
        for method, look in {**LOOKS, **_variants(rows)}.items():
            points = sorted((row for row in rows if row["method"] == method), key=lambda row: row[against])
            if points:
                names.append(_draw(axes, points, against, look))
        _finish(axes, rows, against)
        figure.draw_without_rendering()  # fixes the scales that labels are placed by
        _name_lines(axes, names)
        _save(figure, path)


def calibration(answers: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw what values of finished answers promised and what came, of samples and of guided search; dots by number of answers."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6, 5), dpi=200, layout="constrained")
        axes = figure.add_subplot()
        axes.plot([0, 100], [0, 100], color="#999999", linestyle="--", linewidth=1, label="calibrated")
        several = len({row["benchmark"] for row in answers}) > 1
        drawn = [row for row in answers if row["calibration"] and row["search"] in CURVES]
        for row, colour in zip(drawn, cycle(CURVE_COLOURS)):
            bins = row["calibration"]["bins"]
            x, y = ([100 * each[name] for each in bins] for name in ("value", "correct"))
            name = f"{row['benchmark']}, {row['search']}" if several else row["search"]
            axes.plot(x, y, color=colour, linewidth=1.6, label=f"{name}, ECE {row['calibration']['ece']:.3f}")
            most = max(each["answers"] for each in bins)
            axes.scatter(
                x, y, [10 + 90 * each["answers"] / most for each in bins], color=colour, edgecolors="white", zorder=3
            )
        axes.set(xlim=(0, 100), ylim=(0, 100), xlabel="value of the finished answer, %", ylabel="share correct, %")
        axes.grid(color="#E4E4E4", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.legend(frameon=False, loc="upper left", fontsize=10)
        _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    """As a PNG and as a PDF; neither holds the time, so the same numbers give the same bytes."""
    for kind, told in (("png", None), ("pdf", {"CreationDate": None})):
        whole = path.with_suffix(f".{kind}")
        with atomic_file(whole) as temporary:
            figure.savefig(temporary, format=kind, facecolor="white", metadata=told)


def _variants(rows: Sequence[Mapping[str, Any]]) -> dict[str, _Look]:
    """Looks of the weighted votes of other searches."""
    end = "_weighted_majority"
    names = sorted({row["method"] for row in rows if row["method"].endswith(end)} - LOOKS.keys())
    return {
        name: _Look(name.removesuffix(end), VARIANT_COLOURS[at % len(VARIANT_COLOURS)], "-.", "P", False)
        for at, name in enumerate(names)
    }


class _Label(NamedTuple):
    text: str
    colour: str
    strong: bool
    x: float
    y: float


def _draw(axes: Axes, points: Sequence[Mapping[str, Any]], against: str, look: _Look) -> _Label:
    x, y = [row[against] for row in points], [100 * row["accuracy"] for row in points]
    low, high = [100 * row["low"] for row in points], [100 * row["high"] for row in points]
    order = 3 if look.band else 2
    if look.band and len(points) > 1:
        axes.fill_between(x, low, high, color=look.colour, alpha=0.12, linewidth=0, zorder=1)
    elif look.band:
        axes.errorbar(x, y, [[y[0] - low[0]], [high[0] - y[0]]], color=look.colour, linewidth=1, capsize=3, zorder=2)
    width, size = (2.2, 7) if look.band else (1.2, 4)
    axes.plot(
        x,
        y,
        color=look.colour,
        linestyle=look.line,
        linewidth=width,
        marker=look.marker,
        markersize=size,
        markeredgecolor="white",
        markeredgewidth=0.8,
        zorder=order,
    )
    return _Label(look.label, look.colour, look.band, x[-1], y[-1])


def _finish(axes: Axes, rows: Sequence[Mapping[str, Any]], against: str) -> None:
    axes.set_xscale("log")
    places = [row[against] for row in rows if row[against] > 0] or [1.0]
    axes.set_xlim(min(places) / 1.25, max(places) * 1.25)
    axes.set_ylim(max(0, min(100 * row["low"] for row in rows) - 3), min(100, max(100 * r["high"] for r in rows)) + 2)
    if against == "budget":
        axes.xaxis.set_major_locator(FixedLocator(sorted(set(places))))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda budget, _: f"{budget:,.0f}"))
        axes.set_xlabel("budget: generations side by side (log scale)")
    else:
        # On less than two decades, powers of ten alone would leave one or two labels.
        subs = (1.0, 2.0, 5.0) if max(places) / min(places) < 100 else (1.0,)
        axes.xaxis.set_major_locator(LogLocator(subs=subs))
        axes.xaxis.set_major_formatter(FuncFormatter(_power))
        axes.set_xlabel("FLOPs per problem, policy and value model (log scale)")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(axis="y", color="#E4E4E4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_ylabel("accuracy, %")
    problems = max(row["problems"] for row in rows)
    budgets = ", ".join(str(budget) for budget in sorted({row["budget"] for row in rows}))
    axes.set_title(
        f"{rows[0]['benchmark']}: {problems} problems, budgets {budgets}; bands are 95% intervals",
        loc="left",
        fontsize=11,
        color="#222222",
    )


def _power(flops: float, _: int | None = None) -> str:
    mantissa, exponent = f"{flops:.0e}".split("e")
    times = "" if mantissa == "1" else rf"{mantissa}\times"
    return rf"${times}10^{{{int(exponent)}}}$"


def _name_lines(axes: Axes, names: list[_Label]) -> None:
    """Names right of the axes, level with their line's end, moved apart where they would touch."""
    low, high = axes.get_ylim()
    gap = (high - low) * 0.055
    placed = _apart([name.y for name in names], gap, low, high)
    right = axes.get_xlim()[1] * 1.05
    for name, y in zip(names, placed, strict=True):
        leader = {"arrowstyle": "-", "color": name.colour, "alpha": 0.6, "linewidth": 0.8, "linestyle": (0, (1, 2))}
        axes.annotate(
            name.text,
            (name.x, name.y),
            (right, y),
            color=name.colour,
            va="center",
            fontsize=11 if name.strong else 10,
            fontweight="bold" if name.strong else "normal",
            annotation_clip=False,
            arrowprops={**leader, "shrinkA": 2, "shrinkB": 5, "relpos": (0.0, 0.5)},
        )


def _apart(heights: list[float], gap: float, low: float, high: float) -> list[float]:
    """The heights, moved as little as keeps them `gap` apart and their order, inside [low, high] where they fit."""
    order = sorted(range(len(heights)), key=heights.__getitem__)
    placed = list(heights)
    for below, at in pairwise(order):
        placed[at] = max(placed[at], placed[below] + gap)
    ceiling = high
    for at in reversed(order):
        placed[at] = ceiling = min(placed[at], ceiling)
        ceiling -= gap
    return placed
