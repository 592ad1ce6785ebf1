"""The report of an evaluation: data (report.json, report.csv), tables (report.md, report.tex) and figures (PNG and PDF).

In: results of `methods.evaluate_methods` and rows of `answer_statistics`. Out: accuracies with 95% intervals and paired
comparisons, written to one folder. With several benchmarks, their average comes last, each benchmark with the same weight.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.csv import write_csv

from vgs_ray.data.files import atomic_file, write_atomically, write_json
from vgs_ray.data.storage import AnyPath
from vgs_ray.evaluate.formats import by_benchmark, latex, markdown
from vgs_ray.evaluate.methods import COMPARED_METHODS, MethodResult
from vgs_ray.evaluate.statistics import Interval, average, interval, paired_difference
from vgs_ray.search.flops import mean_cost

JSON, CSV, MARKDOWN, LATEX = "report.json", "report.csv", "report.md", "report.tex"
PER_PROBLEM = "per_problem.parquet"
"""Expected correctness of each problem, from which runs are compared problem by problem."""
PER_PROBLEM_SCHEMA = pa.schema(
    {
        "benchmark": pa.string(), "method": pa.string(), "budget": pa.int64(), "problem_id": pa.string(),
        "correct": pa.float64(),
    }
)  # fmt: skip
AVERAGE = "average"
"""Name of the average over several benchmarks."""

Row = dict[str, Any]


def method_rows(results: Iterable[MethodResult], resamples: int = 2000, seed: int = 0) -> list[Row]:
    """The `rows` of report.json. `samples` are generations of each problem behind the estimate; costs are means per problem."""
    results = list(results)
    rows = [_row(result.benchmark, [result], interval(result.correct, resamples, seed)) for result in results]
    for shared in _on_all_benchmarks(results).values():
        rows.append(_row(AVERAGE, shared, average([result.correct for result in shared], resamples, seed)))
    return rows


def _on_all_benchmarks(results: Iterable[MethodResult]) -> dict[tuple[str, int], list[MethodResult]]:
    """Results by (method, budget), for those that every benchmark has; empty with a single benchmark."""
    by_method: dict[tuple[str, int], list[MethodResult]] = {}
    for result in results:
        by_method.setdefault((result.method, result.budget), []).append(result)
    count = len({result.benchmark for group in by_method.values() for result in group})
    return {method: group for method, group in by_method.items() if len(group) == count > 1}


def _row(benchmark: str, results: list[MethodResult], accuracy: Interval) -> Row:
    """The row of one method at one budget, over the results of one or of all benchmarks."""
    cost = mean_cost([result.cost for result in results])
    return {
        "benchmark": benchmark,
        "method": results[0].method,
        "budget": results[0].budget,
        "accuracy": accuracy.mean,
        "low": accuracy.low,
        "high": accuracy.high,
        "problems": sum(len(result.correct) for result in results),
        "samples": min(result.samples for result in results),
        "generated_tokens": cost.generated,
        "prefilled_tokens": cost.prefilled,
        "scored_tokens": cost.scored,
        "flops": cost.flops,
        "seconds": sum(result.seconds for result in results) / len(results),
    }


def per_problem(results: Iterable[MethodResult]) -> pa.Table:
    """A row for each benchmark, method, budget and problem, as `PER_PROBLEM_SCHEMA`."""
    rows = [
        (result.benchmark, result.method, result.budget, problem, correct)
        for result in results
        for problem, correct in zip(result.problem_ids, result.correct, strict=True)
    ]
    columns = zip(*rows, strict=True)
    return pa.table(dict(zip(PER_PROBLEM_SCHEMA.names, columns, strict=True)), schema=PER_PROBLEM_SCHEMA)


Place = tuple[str, int]
"""A method at a budget."""
Placed = dict[str, dict[Place, MethodResult]]
"""Results by benchmark and place."""


def comparison_rows(results: Iterable[MethodResult], resamples: int = 2000, seed: int = 0) -> list[Row]:
    """The `comparisons` of report.json: accuracy of `a` minus that of `b` at each shared budget, paired by problem."""
    results = list(results)
    placed, rows = _placed(results), list[Row]()
    for a, b in _compared_methods(result.method for result in results):
        for budget in sorted({result.budget for result in results}):
            for benchmark in (*placed, *([AVERAGE] if len(placed) > 1 else [])):
                if gap := _gap(placed, benchmark, (a, budget), (b, budget), resamples, seed):
                    row = {"benchmark": benchmark, "a": a, "b": b, "budget": budget}
                    rows.append({**row, "difference": gap.mean, "low": gap.low, "high": gap.high})
    return rows


def _placed(results: Iterable[MethodResult]) -> Placed:
    placed: Placed = {}
    for result in results:
        placed.setdefault(result.benchmark, {})[result.method, result.budget] = result
    return placed


def _gap(placed: Placed, benchmark: str, a: Place, b: Place, resamples: int, seed: int) -> Interval | None:
    """Accuracy of `a` minus that of `b` on a benchmark, or on average over all; None if one of them is missing there."""
    parts = list(placed.values()) if benchmark == AVERAGE else [placed[benchmark]]
    pairs = [(part[a].correct, part[b].correct) for part in parts if a in part and b in part]
    return paired_difference(pairs, resamples, seed) if len(pairs) == len(parts) else None


def cheaper_rows(
    results: Sequence[MethodResult], rows: Sequence[Row], resamples: int = 2000, seed: int = 0
) -> list[Row]:
    """The `cheaper` of report.json: methods with at least the accuracy of the largest majority vote, for fewer FLOPs.

    A row has the cheapest such budget of one method, `majority_budget`, `flops_share` of the FLOPs of that vote, and the
    difference of the accuracies, paired by problem. Upper bounds are left out. Of methods that choose the same answers, such as
    those of a search with one answer, the first one is listed.
    """
    found, placed = list[Row](), _placed(results)
    for benchmark, group in by_benchmark(rows).items():
        vote = max((row for row in group if row["method"] == "majority"), key=lambda row: row["budget"], default=None)
        if vote is None:
            continue
        as_good = [row for row in group if row["accuracy"] >= vote["accuracy"] and row["flops"] < vote["flops"]]
        methods = dict.fromkeys(row["method"] for row in as_good if not row["method"].endswith("pass"))
        cheapest = [
            min((row for row in as_good if row["method"] == each), key=lambda row: row["flops"]) for each in methods
        ]
        for row in {(row["flops"], row["accuracy"]): row for row in reversed(cheapest)}.values():
            places = (row["method"], row["budget"]), ("majority", vote["budget"])
            gap = _gap(placed, benchmark, *places, resamples, seed)
            assert gap is not None, "both methods have a row"
            share = {"majority_budget": vote["budget"], "flops_share": row["flops"] / vote["flops"]}
            kept = {name: row[name] for name in ("benchmark", "method", "budget", "accuracy")}
            found.append({**kept, **share, "difference": gap.mean, "low": gap.low, "high": gap.high})
    return sorted(found, key=lambda row: (row["flops_share"], -row["accuracy"]))


def _compared_methods(methods: Iterable[str]) -> list[tuple[str, str]]:
    """Guided search against each vote of samples, and each other weighted majority against the majority of samples."""
    weighted = dict.fromkeys(method for method in methods if method.endswith("_weighted_majority"))
    return [*COMPARED_METHODS, *((method, "majority") for method in weighted if method != COMPARED_METHODS[0][0])]


def write_report(
    folder: AnyPath,
    results: Sequence[MethodResult],
    answers: list[Row],
    probabilities: Sequence[Row] = (),
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, list[Row]]:
    """Write the files into `folder`, report.json last, and return the content of report.json.

    Args:
        folder: created if it does not exist.
        results: methods at budgets.
        answers: rows of `answer_statistics`.
        probabilities: rows of `answer_probability.probability_rows`.
        resamples, seed: of the intervals.

    Raises:
        ValueError: `results` is empty.
    """
    from vgs_ray.evaluate.plot import draw_figures  # tables must not need matplotlib

    if not results:
        raise ValueError(
            "the report has no results: it needs searches, and a budget that is a multiple of keep * branch: change "
            "evaluate.budgets or evaluate.beam"
        )
    rows = method_rows(results, resamples, seed)
    report = {
        "rows": rows,
        "comparisons": comparison_rows(results, resamples, seed),
        "cheaper": cheaper_rows(results, rows, resamples, seed),
        "answers": answers,
        "probabilities": list(probabilities),
    }
    folder.mkdir(parents=True, exist_ok=True)
    draw_figures(report, folder)
    with atomic_file(folder / CSV) as temporary:
        write_csv(pa.Table.from_pylist(report["rows"]), temporary)
    with atomic_file(folder / PER_PROBLEM) as temporary:
        pq.write_table(per_problem(results), temporary)
    write_atomically(folder / LATEX, latex(report["rows"]))
    write_atomically(folder / MARKDOWN, markdown(report))
    write_json(folder / JSON, report)
    return report
