"""The report of an evaluation: numbers (report.json, report.csv), tables (report.md, report.tex) and figures (PNG and PDF).

In: what `methods.measure` and `answers.answer_rows` found. Out: rows with 95% intervals and paired comparisons, written into one
folder. Benchmarks come one after the other; where there are several, their average follows, each with the same weight.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vgs_ray.data.files import write_atomically, write_json
from vgs_ray.evaluate.methods import COMPARED, Measured
from vgs_ray.evaluate.statistics import Interval, average, difference, interval
from vgs_ray.evaluate.tables import latex, markdown
from vgs_ray.search.flops import Cost, sum_costs

JSON, CSV, MARKDOWN, LATEX = "report.json", "report.csv", "report.md", "report.tex"
AVERAGE = "average"
"""What several benchmarks together are called."""

Row = dict[str, Any]
_ByPlace = dict[tuple[str, int], list[Measured]]
"""Every benchmark's reading of one method at one budget."""


def rows(measured: Iterable[Measured], resamples: int = 2000, seed: int = 0) -> list[Row]:
    """Rows of report.json. `samples` are generations of each problem behind the estimate; costs are per problem."""
    readings = list(measured)
    found = [_row(each.benchmark, [each], interval(each.correct, resamples, seed)) for each in readings]
    for each in _everywhere(readings).values():
        found.append(_row(AVERAGE, each, average([reading.correct for reading in each], resamples, seed)))
    return found


def _everywhere(measured: Iterable[Measured]) -> _ByPlace:
    """Methods and budgets that every benchmark has, where there are several benchmarks."""
    places: _ByPlace = {}
    for each in measured:
        places.setdefault((each.method, each.budget), []).append(each)
    count = len({each.benchmark for found in places.values() for each in found})
    return {place: found for place, found in places.items() if len(found) == count > 1}


def _row(benchmark: str, readings: list[Measured], found: Interval) -> Row:
    first, count = readings[0], len(readings)
    cost = Cost(*(part / count for part in sum_costs([each.cost for each in readings])))
    return {
        "benchmark": benchmark,
        "method": first.method,
        "budget": first.budget,
        "accuracy": found.mean,
        "low": found.low,
        "high": found.high,
        "problems": sum(len(each.correct) for each in readings),
        "samples": min(each.samples for each in readings),
        "generated_tokens": cost.generated,
        "scored_tokens": cost.scored,
        "flops": cost.flops,
        "seconds": sum(each.seconds for each in readings) / count,
    }


def comparisons(measured: Iterable[Measured], resamples: int = 2000, seed: int = 0) -> list[Row]:
    """Accuracy of `a` minus that of `b` at each budget that both have, paired by problem."""
    readings = list(measured)
    at = {(each.benchmark, each.method, each.budget): each for each in readings}
    benchmarks, shared = list(dict.fromkeys(each.benchmark for each in readings)), _everywhere(readings)
    found = []
    for a, b in _pairs(each.method for each in readings):
        for budget in sorted({each.budget for each in readings}):
            both = [(at.get((name, a, budget)), at.get((name, b, budget))) for name in benchmarks]
            pairs = [(one, other) for one, other in both if one and other]
            named = [(one.benchmark, difference(one.correct, other.correct, resamples, seed)) for one, other in pairs]
            if (a, budget) in shared and (b, budget) in shared:
                gaps = [np.subtract(one.correct, other.correct) for one, other in pairs]
                named.append((AVERAGE, average(gaps, resamples, seed)))
            for name, (mean, low, high) in named:
                row = {"benchmark": name, "a": a, "b": b, "budget": budget}
                found.append({**row, "difference": mean, "low": low, "high": high})
    return found


def _pairs(methods: Iterable[str]) -> list[tuple[str, str]]:
    """The guided search against every vote without search, and every other weighted vote against the majority."""
    others = dict.fromkeys(method for method in methods if method.endswith("_weighted_majority"))
    return [*COMPARED, *((other, "majority") for other in others if other != COMPARED[0][0])]


def write_report(
    folder: Path, measured: Sequence[Measured], answers: list[Row], *, resamples: int = 2000, seed: int = 0
) -> dict[str, list[Row]]:
    """Write the files into `folder`, report.json last, and return what report.json holds.

    Args:
        folder: made where it does not exist.
        measured: methods at budgets.
        answers: rows of `answer_rows`.
        resamples, seed: of the intervals.

    Raises:
        ValueError: nothing was measured.
    """
    from vgs_ray.evaluate.plot import figures  # here, so that a table needs no matplotlib

    if not measured:
        raise ValueError("nothing was measured: no budget is a multiple of keep * branch, or there are no searches")
    report = {
        "rows": rows(measured, resamples, seed),
        "comparisons": comparisons(measured, resamples, seed),
        "answers": answers,
    }
    folder.mkdir(parents=True, exist_ok=True)
    figures(report, folder)
    write_atomically(folder / CSV, _csv(report["rows"]))
    write_atomically(folder / LATEX, latex(report["rows"]))
    write_atomically(folder / MARKDOWN, markdown(report))
    write_json(folder / JSON, report)
    return report


def _csv(found: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(found[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    return text.getvalue()
