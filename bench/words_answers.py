"""Why answers to word problems are wrong, and which of them the value model recognises: bench/words_answers.py RUN_FOLDER POLICY.

In: the searches of a finished run of recipe `words`, and the folder of its policy. Out: shares of the samples that are right,
have a wrong calculation, or calculate correctly and still have a wrong answer; AUC of their values against those of right
answers; and the mean AUC among the answers to one problem.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import defaultdict
from fractions import Fraction
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from tabulate import tabulate

from vgs_ray.calibration import auc
from vgs_ray.prompts import load_tokenizer
from vgs_ray.words.formulas import apply

CALCULATION = re.compile(r"(\d+(?:\.\d+)?) ([-+*/]) (\d+(?:\.\d+)?) = (\d+(?:\.\d+)?)")
ROUNDED = Fraction(1, 100)


def is_right(left: str, sign: str, right: str, result: str) -> bool:
    """Whether a calculation is right, to two decimals."""
    a, b = Fraction(left), Fraction(right)
    if sign == "/":
        return bool(b) and abs(a / b - Fraction(result)) <= ROUNDED
    return apply(a, sign, b) == Fraction(result)


def kind_of(text: str, outcome: str) -> str:
    if outcome == "correct":
        return "right"
    calculations = CALCULATION.findall(text)
    return "right calculations, wrong answer" if all(is_right(*each) for each in calculations) else "wrong calculation"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("policy")
    options = parser.parse_args()
    tokenizer = load_tokenizer(options.policy)
    values: dict[str, list[float]] = defaultdict(list)
    within: dict[str, list[float]] = defaultdict(list)
    correct: dict[str, list[bool]] = defaultdict(list)
    for file in sorted((options.run / "evaluate").glob("part-*.parquet")):
        for row in pq.read_table(file, columns=["explorer", "tree", "leaves"]).to_pylist():
            tree, leaves = json.loads(row["tree"]), json.loads(row["leaves"])
            right = [leaf["outcome"] == "correct" for leaf in leaves]
            correct[row["explorer"]] += right
            if 0 < sum(right) < len(right):
                within[row["explorer"]].append(_auc(right, [leaf["value"] for leaf in leaves]))
            if row["explorer"] == "sample":
                _add(values, tree, leaves, tokenizer)
    print_tables(values, within, correct)


def _add(values: dict[str, list[float]], tree: dict[str, Any], leaves: list[dict[str, Any]], tokenizer: Any) -> None:
    tokens = {node["id"]: node["tokens"] for node in tree["nodes"]}
    for leaf in leaves:
        values[kind_of(tokenizer.decode(tokens[leaf["node"]]), leaf["outcome"])].append(leaf["value"])


def _auc(correct: list[bool], values: list[float]) -> float:
    found = auc(np.array(correct), np.array(values))
    assert found is not None
    return found


def print_tables(
    values: dict[str, list[float]], within: dict[str, list[float]], correct: dict[str, list[bool]]
) -> None:
    """Print the samples by kind, then the answers of each search."""
    right, total = values["right"], sum(map(len, values.values()))
    lines = [
        [kind, len(each), len(each) / total, mean(each), _auc([True] * len(right) + [False] * len(each), right + each)]
        for kind, each in sorted(values.items())
    ]
    print(tabulate(lines, ["samples", "number", "share", "mean value", "AUC against right"], "github", floatfmt=".3f"))
    print()
    lines = [[name, len(correct[name]), mean(correct[name]), len(each), mean(each)] for name, each in within.items()]
    headers = ["search", "answers", "right", "problems with right and wrong answers", "mean AUC within a problem"]
    print(tabulate(lines, headers, "github", floatfmt=".3f"))


if __name__ == "__main__":
    main()
