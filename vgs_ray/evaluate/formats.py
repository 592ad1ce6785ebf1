"""The tables of a report as text: for the terminal, in Markdown and in LaTeX. In: rows of report.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tabulate import tabulate

Row = Mapping[str, Any]
FIGURES = {
    "Accuracy against FLOPs": "accuracy_vs_flops.png",
    "Accuracy against budget": "accuracy_vs_budget.png",
    "Calibration of the answers' values": "calibration.png",
}
PROBABILITY_FIGURE = "probability.png"
OUTCOMES = ("correct", "incorrect", "incomplete", "unknown")


def by_benchmark(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each benchmark, in their order."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["benchmark"], []).append(row)
    return groups


def terminal_table(rows: Sequence[Row]) -> str:
    """Rows of report.json as text of at most 100 columns, one table for each benchmark."""
    heads = ["method", "budget", "acc.%", "95%", "tokens", "scored", "FLOPs", "s"]
    align = ("left", *["right"] * 7)
    tables = {
        name: tabulate(
            [[row["method"], row["budget"], *_accuracy(row, "-"), *_costs(row, _short)] for row in group],
            heads, "simple", disable_numparse=True, colalign=align,
        )
        for name, group in by_benchmark(rows).items()
    }  # fmt: skip
    if len(tables) == 1:
        return str(*tables.values())
    return "\n\n".join(f"{name}\n{table}" for name, table in tables.items())


def cheaper_line(rows: Sequence[Row]) -> str:
    """The first of the report's `cheaper` as one line; empty if there is none."""
    if not rows:
        return ""
    row, vote = rows[0], rows[0]["accuracy"] - rows[0]["difference"]
    return (
        f"{row['method']} {row['budget']} has {100 * row['accuracy']:.1f}% for {100 * row['flops_share']:.0f}% of the FLOPs of "
        f"majority {row['majority_budget']} ({100 * vote:.1f}%)"
    )


def latex(rows: Sequence[Row]) -> str:
    """A booktabs table for each benchmark: methods by budgets, accuracy in % with its 95% interval."""
    tables = []
    for name, group in by_benchmark(rows).items():
        budgets = sorted({row["budget"] for row in group})
        cells: dict[str, dict[int, str]] = {}
        for row in group:
            accuracy, ends = _accuracy(row, "--")
            cells.setdefault(row["method"], {})[row["budget"]] = f"{accuracy} ({ends})"
        table = [
            [method.replace("_", " "), *(by_budget.get(budget, "") for budget in budgets)]
            for method, by_budget in cells.items()
        ]
        body = tabulate(table, ["method", *map(str, budgets)], "latex_booktabs", disable_numparse=True)
        tables.append(f"% {name}, {group[0]['problems']} problems: accuracy in % (95% interval) by budget\n{body}\n")
    return "\n".join(tables)


def markdown(report: Mapping[str, Sequence[Row]]) -> str:
    """report.md: the tables of each benchmark, the figures, and notes that explain the columns."""
    differences, cheaper = by_benchmark(report["comparisons"]), by_benchmark(report["cheaper"])
    parts = []
    for name, rows in by_benchmark(report["rows"]).items():
        parts += [f"# Report: {name}, {rows[0]['problems']} problems", _method_table(rows)]
        if name in differences:
            parts += ["## Differences, paired by problem", _difference_table(differences[name])]
        if name in cheaper:
            parts += ["## FLOPs for the accuracy of the majority vote", _cheaper_table(cheaper[name])]
    figures = [f"![{title}]({file})" for title, file in FIGURES.items()]
    answers = ["## Answers of each search", _answer_table(report["answers"]), _ANSWERS_NOTE]
    chosen = []
    if report["probabilities"]:
        table, figure = _probability_table(report["probabilities"]), f"![Chosen answers]({PROBABILITY_FIGURE})"
        chosen = ["## Probability of the chosen answer", table, _PROBABILITY_NOTE, figure]
    return "\n\n".join([*parts, _TABLE_NOTE, _METHODS_NOTE, *figures, *answers, *chosen]) + "\n"


def github_table(cells: list[list[Any]], heads: list[str], text_columns: int = 1) -> str:
    align = [*["left"] * text_columns, *["right"] * (len(heads) - text_columns)]
    return str(tabulate(cells, heads, "github", disable_numparse=True, colalign=align))


def _method_table(rows: Sequence[Row]) -> str:
    heads = ["method", "budget", "accuracy %", "95% interval", "generated", "scored", "forwarded", "FLOPs", "seconds"]
    cells = []
    for row in rows:
        generated, scored, *costs = _costs(row)
        cells.append([f"`{row['method']}`", row["budget"], *_accuracy(row), generated, scored, _forwarded(row), *costs])
    return github_table(cells, heads)


def _forwarded(row: Row) -> str:
    """Tokens that the policy and the value model forwarded for each generated one."""
    generated = max(row["generated_tokens"], 1e-9)  # every search of a method may have failed
    return f"{1 + row['prefilled_tokens'] / generated:.2f} + {row['scored_tokens'] / generated:.2f}"


def _difference_table(rows: Sequence[Row]) -> str:
    heads = ["difference", "budget", "points", "95% interval"]
    cells = [
        [f"`{row['a']}` − `{row['b']}`", row["budget"], f"{100 * row['difference']:+.1f}", interval_text(row, "+.1f")]
        for row in rows
    ]
    return github_table(cells, heads)


def _cheaper_table(rows: Sequence[Row]) -> str:
    vote = f"`majority` {rows[0]['majority_budget']}"
    heads = ["method", "budget", "accuracy %", f"FLOPs, % of {vote}", f"minus {vote}, points", "95% interval"]
    cells = [
        [
            f"`{row['method']}`", row["budget"], f"{100 * row['accuracy']:.1f}", f"{100 * row['flops_share']:.0f}",
            f"{100 * row['difference']:+.1f}", interval_text(row, "+.1f"),
        ]
        for row in rows
    ]  # fmt: skip
    return github_table(cells, heads)


def _answer_table(rows: Sequence[Row]) -> str:
    lengths, quality = ["tokens", "95th"], ["AUC", "ECE", "Brier"]
    heads = ["benchmark", "search", "answers", *OUTCOMES, *lengths, *quality, "seconds", "failed", "NaN"]
    return github_table([_answer_cells(row) for row in rows], heads, text_columns=2)


def _answer_cells(row: Row) -> list[Any]:
    calibration = row["calibration"] or {}
    return [
        row["benchmark"],
        f"`{row['search']}`",
        f"{row['answers']:,}",
        *(f"{100 * row[outcome] / max(row['answers'], 1):.1f}%" for outcome in OUTCOMES),
        *(f"{row['tokens'][name]:,.0f}" for name in ("mean", "p95")),
        *("-" if calibration.get(name) is None else f"{calibration[name]:.3f}" for name in ("auc", "ece", "brier")),
        f"{row['seconds']:.2f}",
        f"{row['failed']} of {row['searches']}",
        row["unscored_blocks"],
    ]


def _probability_table(rows: Sequence[Row]) -> str:
    cells = [
        [
            f"`{row['search']}`",
            name,
            f"{row['answers']:,}",
            *(f"{row[name][key]:.3f}" for key in ("auc", "ece", "brier")),
        ]
        for row in rows
        for name in ("share", "value", "probability")
    ]
    return github_table(cells, ["search", "number", "answers", "AUC", "ECE", "Brier"], text_columns=2)


_TABLE_NOTE = """\
The 95% intervals are over problems: a bootstrap, or Student's t for fewer than 50 problems. Each problem is resampled with all of
its samples. Tokens, FLOPs and seconds are means per problem.

- generated, scored: tokens that the policy generated and tokens that the value model forwarded, including pruned blocks.
- forwarded: tokens that the policy and the value model forwarded for each generated token. The policy forwards each token that it
  generates, and prefixes that were not cached.
- FLOPs: of both models, including prefixes that were forwarded again because they were not cached.
- FLOPs for the accuracy of the majority vote: the cheapest budget at which a method is at least as accurate as the majority vote
  with the largest budget. It is chosen by the accuracy on the same problems, so look at the interval.
- seconds: a share of the wall-clock time of concurrent searches. Use them to compare methods of one run, not as latencies."""
_METHODS_NOTE = """\
The methods are:

- `single`: one sample.
- `greedy`: one answer at temperature 0.
- `best_of_n`, `majority`, `weighted_majority`: among independent samples, the answer with the highest value, the largest class of
  equal answers, or the class with the highest sum of values.
- `best_of_n_likely`: the answer with the highest value * exp(c * mean log-probability), where c is `evaluate.likelihood`.
- `pass`: at least one answer is correct; an upper bound for every selector.
- `vgs_*`: the same selectors among the answers of value-guided search.
- `*_walk`: of a Monte Carlo tree search, the answer of the walk from the root along the highest Q.
- `adaptive_*`: the same votes with the same total number of answers, allocated to the problems whose vote is undecided.

The budget is the number of generations in parallel. Results for smaller budgets use disjoint parts of the largest one. A tie
counts as the mean of the tied answers."""
_ANSWERS_NOTE = """\
- tokens, 95th: mean and 95th percentile of the length of an answer.
- AUC, ECE (10 bins), Brier: of the values of finished answers against their correctness.
- failed: searches that raised an error. They count as wrong, and so do answers that could not be judged (unknown).
- NaN: blocks whose score was NaN. They rank below all others."""


_PROBABILITY_NOTE = """\
How well three numbers predict that the answer of the weighted majority is correct, over all budgets:

- share: of the weight of all answers.
- value: the highest value of an answer of its class.
- probability: a logistic regression on both and on the budget. That of each problem is fitted on other problems. The endpoint
  replies with it (`vgs_ray.probability`)."""


def _accuracy(row: Row, to: str = " to ") -> list[str]:
    return [f"{100 * row['accuracy']:.1f}", interval_text(row, ".1f", to)]


def accuracy_text(row: Row) -> str:
    """An accuracy in % and its interval, for one cell."""
    return f"{100 * row['accuracy']:.1f} ({interval_text(row, '.1f')})"


def interval_text(row: Row, form: str, to: str = " to ") -> str:
    return f"{100 * row['low']:{form}}{to}{100 * row['high']:{form}}"


def _costs(row: Row, form: Callable[[float], str] = "{:,.0f}".format) -> list[str]:
    tokens = [form(row[key]) for key in ("generated_tokens", "scored_tokens")]
    seconds = row["seconds"]
    return [*tokens, f"{row['flops']:.2e}", f"{seconds:.2f}" if seconds < 100 else f"{seconds:,.0f}"]


def _short(tokens: float) -> str:
    return f"{tokens:,.0f}" if tokens < 1e5 else f"{tokens / 1e6:,.2f}M"
