"""What a reply says, for a terminal: the answer, how likely it is, the classes of equal answers, and the cost.

In: the object `vgs_ray` and the usage of a reply. Out: lines of text.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import tabulate

from pipelines.asking.tree_text import printable

LABEL = 9
"""Columns of a label and the space after it."""
CLASSES = 5
"""Classes of answers that are shown."""
COMPARED = ("answer", "votes", "likely", "tokens", "FLOPs", "seconds")


def reply_rows(search: Mapping[str, Any], usage: Mapping[str, Any]) -> dict[str, list[str]]:
    """Lines about a reply, by label.

    Args:
        search: `vgs_ray` of the reply.
        usage: its `usage`.
    """
    rows = {
        "answer": [_answer(search)],
        "likely": [_likely(search)],
        "votes": _votes(search),
        "cost": [_cost(search, usage)],
        "note": list(search["warnings"]),
    }
    return {label: lines for label, lines in rows.items() if lines}


def labelled(rows: Mapping[str, Sequence[str]], width: int) -> str:
    """Lines with their labels in a column of their own, wrapped to the width."""
    wrapped = []
    for label, lines in rows.items():
        for index, line in enumerate(lines):
            first = f"{label if not index else '':<{LABEL}}"
            room = max(width, LABEL + 20)
            wrapped.append(textwrap.fill(line, room, initial_indent=first, subsequent_indent=" " * LABEL))
    return "\n".join(wrapped)


def compare_table(replies: Mapping[str, Mapping[str, Any]], grades: Mapping[str | None, str], width: int) -> str:
    """A column for each reply. What no reply has is left out.

    Args:
        replies: whole replies by the name of the column; empty ones failed.
        grades: `right`, `wrong` or `unknown` by answer; empty if the correct answer is not known.
        width: columns of the terminal, to which long answers are cut.
    """
    room = max((width - LABEL) // len(replies) - 2, 10)
    columns = [_column(reply["vgs_ray"], grades, room) if reply else {"answer": "failed"} for reply in replies.values()]
    labels = [label for label in (*COMPARED, "grade") if any(column.get(label) for column in columns)]
    rows = [["", *replies], *([label, *(column.get(label) or "-" for column in columns)] for label in labels)]
    return tabulate(rows, tablefmt="plain", colalign=["left", *["right"] * len(replies)], disable_numparse=True)


def _column(search: Mapping[str, Any], grades: Mapping[str | None, str], room: int) -> dict[str, str]:
    probability, flops = search["probability"], search["flops"]
    answer = printable(search["answer"] or "none")
    won = search["votes"][0]["leaves"] if search["votes"] else 0
    return {
        "answer": answer if len(answer) <= room else f"{answer[: room - 3]}...",
        "votes": f"{won} of {len(search['leaves'])}",
        "likely": "" if probability is None else _percent(probability),
        "tokens": f"{search['usage']['generated']:,}",
        "FLOPs": "" if flops is None else f"{flops:.1e}",
        "seconds": f"{search['seconds']:.1f}",
        "grade": grades.get(search["answer"], ""),
    }


def _answer(search: Mapping[str, Any]) -> str:
    if search["answer"] is None:
        return "none: no generated answer is complete"
    tie = f", almost tied with {printable(search['votes'][1]['answer'])}" if search["undecided"] else ""
    return f"{printable(search['answer'])}{tie}"


def _likely(search: Mapping[str, Any]) -> str:
    if search["probability"] is None:
        return "unknown: the server has no evaluation of such a search"
    return f"{_percent(search['probability'])} to be correct, as measured by the evaluation"


def _percent(probability: float) -> str:
    return ">99%" if probability > 0.99 else "<1%" if probability < 0.01 else f"{probability:.0%}"


def _votes(search: Mapping[str, Any]) -> list[str]:
    """A line for each class of equal answers, and one for the other generated answers."""
    votes, count = search["votes"], len(search["leaves"])
    total = sum(vote["weight"] for vote in votes)
    rows = [
        [
            printable(vote["answer"]),
            f"{vote['leaves']} of {count}",
            f"{vote['weight'] / total:.0%} of the vote" if total else "",
        ]
        for vote in votes[:CLASSES]
    ]
    if rest := votes[CLASSES:]:
        rows.append([f"{len(rest)} other answers", f"{sum(vote['leaves'] for vote in rest)} of {count}", ""])
    if missing := count - sum(vote["leaves"] for vote in votes):
        rows.append(["no answer", f"{missing} of {count}", ""])
    table = (
        tabulate(rows, tablefmt="plain", colalign=["left", "right", "right"], disable_numparse=True) if rows else "none"
    )
    return table.splitlines()


def _cost(search: Mapping[str, Any], usage: Mapping[str, Any]) -> str:
    """FLOPs are left out if the server can't count them."""
    flops = "" if search["flops"] is None else f", {search['flops']:.1e} FLOPs"
    return (
        f"{usage['prompt_tokens']:,} prompt, {search['usage']['generated']:,} generated, "
        f"{search['usage']['scored']:,} scored tokens{flops}, {search['seconds']:.1f} s"
    )
