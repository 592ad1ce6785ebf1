"""Compare the finished evaluations of several runs on the same problems.

In: run folders with `evaluate/report.json` and `evaluate/per_problem.parquet`. Out: accuracies of the runs, and their differences
paired by problem.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

from vgs_ray.data.parquet import parquet_file
from vgs_ray.data.storage import AnyPath
from vgs_ray.errors import UserError
from vgs_ray.evaluate.report import AVERAGE, JSON, PER_PROBLEM, Row
from vgs_ray.evaluate.statistics import paired_difference

MAIN_METHODS = (
    "single", "greedy", "majority", "best_of_n", "weighted_majority", "vgs_best", "vgs_weighted_majority"
)  # fmt: skip
"""Compared unless other methods are named, with the weighted majority of each variant."""


class Column(NamedTuple):
    """A method at a budget."""

    method: str
    budget: int


Place = tuple[str, Column]
"""A benchmark and a column."""


@dataclass(frozen=True)
class RunResults:
    """The evaluation of one run.

    Attributes:
        name: of the run.
        rows: rows of report.json.
        correct: expected correctness by problem id.
        answers: calibration of the values of independent samples (`vgs_ray.evaluate.answer_statistics.calibration`) by benchmark.
        validation: metrics of the last validation of the run's own value model; empty if the run has trained none.
    """

    name: str
    rows: dict[Place, Row]
    correct: dict[Place, dict[str, float]]
    answers: dict[str, Row]
    validation: dict[str, float]

    @property
    def problems(self) -> dict[str, frozenset[str]]:
        """Problem ids by benchmark."""
        by_benchmark: dict[str, frozenset[str]] = {}
        for (benchmark, _), correct in self.correct.items():
            by_benchmark[benchmark] = by_benchmark.get(benchmark, frozenset()) | correct.keys()
        return by_benchmark


def read_run(root: AnyPath, name: str) -> RunResults:
    """Read the evaluation of a run.

    Raises:
        UserError: the run has no finished evaluation, or its report is damaged.
    """
    folder = root / name / "evaluate"
    for file in (folder / JSON, folder / PER_PROBLEM):
        if not file.is_file():
            raise UserError(
                f"{file} is missing; a comparison reads finished evaluations: run python -m pipelines.evaluate RECIPE --run-name "
                f"{name} first, with --from-trees if its searches are finished"
            )
    try:
        report = json.loads((folder / JSON).read_text())
        table = parquet_file(folder / PER_PROBLEM).read()
    except ValueError as error:  # pyarrow's error for a damaged file is one too
        raise UserError(
            f"{folder} has a damaged report ({error}); a comparison reads {JSON} and {PER_PROBLEM}: run python -m "
            f"pipelines.evaluate RECIPE --run-name {name} --from-trees to write it again"
        ) from error
    correct = dict[Place, dict[str, float]]()
    for row in table.to_pylist():
        correct.setdefault(_place(row), {})[row["problem_id"]] = row["correct"]
    answers = {row["benchmark"]: row["calibration"] for row in report["answers"] if row["search"] == "sample"}
    return RunResults(
        name,
        {_place(row): row for row in report["rows"]},
        correct,
        {benchmark: calibration for benchmark, calibration in answers.items() if calibration},
        _counts(root / name / "train").get("validation", {}),
    )


def _place(row: Row) -> Place:
    return row["benchmark"], Column(row["method"], row["budget"])


def _counts(folder: AnyPath) -> dict[str, Any]:
    """The counts of a complete stage; empty if the run has no such stage."""
    manifest = folder / "_stage.json"
    return dict(json.loads(manifest.read_text())["counts"]) if manifest.is_file() else {}


def read_field(root: AnyPath, run: str, field: str) -> float:
    """A positive number of a run's configuration, such as `label.paths`, from the manifest of its stage.

    Raises:
        UserError: the run has no such stage, or the field is no positive number of it.
    """
    manifest = root / run / field.partition(".")[0] / "_stage.json"
    if not manifest.is_file():
        raise UserError(
            f"{manifest} is missing, so run {run} has no {field} of its own: name other runs, or another field"
        )
    described = json.loads(manifest.read_text())
    value = {**described["operation"], **described["identity"]}.get(field)
    if not isinstance(value, int | float) or isinstance(value, bool) or value <= 0:
        raise UserError(
            f"{field} of run {run} is {value!r}; a plot with a logarithmic scale needs a positive number: name another field, or "
            "leave this run out"
        )
    return float(value)


def compare_runs(
    runs: Sequence[RunResults],
    methods: Sequence[str] = (),
    budgets: Sequence[int] = (),
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Accuracies of the runs, and the difference of each run to each run before it.

    Args:
        runs: in the order of the tables.
        methods: names of methods as in report.json; by default `MAIN_METHODS` and the weighted majority of each variant.
        budgets: budgets of these methods; by default the largest one that the runs share.
        resamples, seed: of the intervals of differences.

    Returns:
        `runs`: names. `columns`: [method, budget] pairs. `rows`: rows of report.json with the name of the run, for each
        benchmark, run and column that the run has. `curves`: such rows of the methods of `is_curve` at all budgets.
        `differences`: accuracy of `a` minus that of `b`, with a 95% interval. `value_models`: metrics of each run's value model,
        on its validation rows and on the sampled answers of each benchmark.

    Raises:
        UserError: a run was evaluated on other problems, or no run has a method or budget.
    """
    check_same_problems(runs)
    columns = chosen_columns(runs, methods, budgets)
    benchmarks = list(dict.fromkeys(benchmark for run in runs for benchmark, _ in run.rows))
    rows = [
        {"run": run.name, **run.rows[benchmark, column]}
        for benchmark in benchmarks
        for run in runs
        for column in columns
        if (benchmark, column) in run.rows
    ]
    return {
        "runs": [run.name for run in runs],
        "columns": [list(column) for column in columns],
        "rows": rows,
        "curves": [{"run": run.name, **row} for run in runs for row in run.rows.values() if is_curve(row["method"])],
        "differences": _differences(runs, benchmarks, columns, resamples, seed),
        "value_models": [_value_metrics(run) for run in runs if run.validation or run.answers],
    }


def check_same_problems(runs: Sequence[RunResults]) -> None:
    """Check that all runs were evaluated on the same benchmarks and problems.

    Raises:
        UserError: fewer than two runs, a run that occurs twice, or a run with other benchmarks or problems.
    """
    names = [run.name for run in runs]
    if len(set(names)) < max(2, len(names)):
        raise UserError(f"runs are {names}; a comparison needs at least two different runs: pass --runs A B")
    first = runs[0]
    for run in runs[1:]:
        if run.problems.keys() != first.problems.keys():
            raise UserError(
                f"{first.name} was evaluated on {', '.join(first.problems)} and {run.name} on {', '.join(run.problems)}; a "
                "comparison needs the same benchmarks: pass the same --evaluate.benchmarks to both evaluations"
            )
        for benchmark, ids in run.problems.items():
            if other := ids ^ first.problems[benchmark]:
                raise UserError(
                    f"{first.name} has {len(first.problems[benchmark])} problems of {benchmark} and {run.name} {len(ids)}, and "
                    f"{len(other)} are in only one of them; a comparison needs the same problems: pass the same "
                    "--evaluate.limit to both evaluations"
                )


def chosen_columns(runs: Sequence[RunResults], methods: Sequence[str], budgets: Sequence[int]) -> list[Column]:
    """The columns of the tables: see `compare_runs`."""
    of_runs = [{column for _, column in run.rows} for run in runs]
    names = list(dict.fromkeys(column.method for run in runs for _, column in run.rows))
    if wrong := [method for method in methods if method not in names]:
        raise UserError(
            f"methods has {', '.join(wrong)}; no run has this method, but {', '.join(names)}: name some of these"
        )
    columns = []
    for method in methods or _main_methods(names):
        having = [{column.budget for column in each if column.method == method} for each in of_runs]
        having = [each for each in having if each]
        common = set.intersection(*having) or set.union(*having)
        columns += [Column(method, budget) for budget in sorted(common & {1, *budgets} if budgets else {max(common)})]
    if not columns:
        raise UserError(f"no run has a budget of {', '.join(map(str, budgets))}: pass other --budgets")
    return columns


def _main_methods(names: Iterable[str]) -> list[str]:
    variants = [name for name in names if is_curve(name) and name not in MAIN_METHODS]
    return [*(name for name in MAIN_METHODS if name in names), *variants]


def is_curve(method: str) -> bool:
    """Whether a method is a vote of samples, or the weighted majority of a guided search or a variant."""
    votes = method in ("majority", "weighted_majority")
    return votes or (method.endswith("_weighted_majority") and "adaptive" not in method)


def _differences(
    runs: Sequence[RunResults], benchmarks: Sequence[str], columns: Sequence[Column], resamples: int, seed: int
) -> list[Row]:
    rows = []
    for benchmark in benchmarks:
        parts = [name for name in benchmarks if name != AVERAGE] if benchmark == AVERAGE else [benchmark]
        for b, a in combinations(runs, 2):
            for column in columns:
                if all((part, column) in run.correct for part in parts for run in (a, b)):
                    pairs = [_paired(a.correct[part, column], b.correct[part, column]) for part in parts]
                    gap = paired_difference(pairs, resamples, seed)
                    place = {"benchmark": benchmark, "a": a.name, "b": b.name, **column._asdict()}
                    rows.append({**place, "difference": gap.mean, "low": gap.low, "high": gap.high})
    return rows


def _paired(a: dict[str, float], b: dict[str, float]) -> tuple[list[float], list[float]]:
    """The numbers of both in the same order of problems."""
    problems = sorted(a)
    return [a[problem] for problem in problems], [b[problem] for problem in problems]


def _value_metrics(run: RunResults) -> Row:
    answers = {name: {key: each[key] for key in ("brier", "auc", "ece")} for name, each in run.answers.items()}
    return {"run": run.name, "validation": run.validation, "answers": answers}
