"""The table of rounds: accuracies of the main methods by round, as JSON, Markdown and a figure.

In: report.json of each round. Out: rounds.json, rounds.md, rounds.png and rounds.pdf.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import tabulate

from vgs_ray.data.files import write_atomically, write_json
from vgs_ray.data.storage import AnyPath
from vgs_ray.evaluate.comparison import MAIN_METHODS
from vgs_ray.evaluate.formats import accuracy_text, by_benchmark
from vgs_ray.evaluate.report import JSON

Row = Mapping[str, Any]
METHODS = (*MAIN_METHODS, "best_of_n_likely", "vgs_best_likely", "pass")
KEPT = ("benchmark", "method", "budget", "accuracy", "low", "high", "problems", "generated_tokens", "flops")


def round_rows(folders: Sequence[AnyPath]) -> list[dict[str, Any]]:
    """The rows of the main methods in the reports of rounds 1, 2, ..., with the round and the name of its run.

    Args:
        folders: of the runs.
    """
    rows = []
    for number, folder in enumerate(folders, 1):
        report = json.loads((folder / "evaluate" / JSON).read_text())
        rows += [
            {"round": number, "run": folder.name, **{name: row[name] for name in KEPT}}
            for row in report["rows"]
            if row["method"] in METHODS
        ]
    return rows


def write_rounds(rows: Sequence[Row], folder: AnyPath) -> str:
    """Write the files into `folder`, and return the table for the terminal."""
    from vgs_ray.evaluate.plot_rounds import draw_rounds  # tables must not need matplotlib

    parts = []
    for name, group in by_benchmark(rows).items():
        parts += [f"# Rounds: {name}, {group[0]['problems']} problems", _table(group, "github")]
    draw_rounds(rows, folder / "rounds.png")
    write_atomically(folder / "rounds.md", "\n\n".join([*parts, _NOTE, "![Accuracy by round](rounds.png)"]) + "\n")
    write_json(folder / "rounds.json", {"rows": rows})
    return "\n\n".join(f"{name}\n{_table(group, 'simple')}" for name, group in by_benchmark(rows).items())


def _table(rows: Sequence[Row], form: str) -> str:
    """Methods and budgets by rounds."""
    rounds = sorted({row["round"] for row in rows})
    cells: dict[tuple[str, int], dict[int, str]] = {}
    for row in rows:
        cells.setdefault((row["method"], row["budget"]), {})[row["round"]] = accuracy_text(row)
    order = sorted(cells, key=lambda place: (METHODS.index(place[0]), place[1]))
    table = [[*place, *(cells[place].get(number, "-") for number in rounds)] for place in order]
    align = ["left", *["right"] * (len(rounds) + 1)]
    heads = ["method", "budget", *(f"round {number}" for number in rounds)]
    return str(tabulate(table, heads, form, disable_numparse=True, colalign=align))


_NOTE = "Accuracy in % and its 95% interval over problems. The reports of the rounds explain the methods."
