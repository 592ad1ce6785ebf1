"""Statistics of the answers of each explorer: outcomes, lengths and calibration.

In: graded searches. Out: one row for each benchmark and explorer. numpy and scikit-learn only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vgs_ray.calibration import auc, brier_score, expected_calibration_error, reliability
from vgs_ray.evaluate.graded_search import GradedSearch

OUTCOMES = ("correct", "incorrect", "incomplete", "unknown")


def answer_statistics(searches: Iterable[GradedSearch]) -> list[dict[str, Any]]:
    """Counts by outcome, lengths in tokens, mean seconds of a search, and `calibration` of each explorer's answers."""
    groups: dict[tuple[str, str], list[GradedSearch]] = {}
    for search in searches:
        groups.setdefault((search.benchmark, search.explorer), []).append(search)
    return [_row(benchmark, explorer, searches) for (benchmark, explorer), searches in groups.items()]


def _row(benchmark: str, explorer: str, searches: list[GradedSearch]) -> dict[str, Any]:
    leaves = [leaf for search in searches for leaf in search.leaves]
    outcomes = Counter(leaf.outcome for leaf in leaves)
    lengths = np.array([leaf.tokens for leaf in leaves] or [0])
    scored = [leaf for leaf in leaves if leaf.value is not None]
    values = np.array([leaf.value for leaf in scored], np.float64)
    return {
        "benchmark": benchmark,
        "search": explorer,
        "searches": len(searches),
        "failed": sum(search.failed for search in searches),
        "answers": len(leaves),
        **{outcome: outcomes[outcome] for outcome in OUTCOMES},
        "unscored_blocks": sum(search.unscored for search in searches),
        "tokens": {
            "mean": float(lengths.mean()),
            **{f"p{percent}": float(np.percentile(lengths, percent)) for percent in (50, 95)},
        },
        "seconds": float(np.mean([search.seconds for search in searches])),
        "calibration": calibration(values, np.array([leaf.outcome == "correct" for leaf in scored], np.bool_)),
    }


def calibration(values: NDArray[np.float64], correct: NDArray[np.bool_]) -> dict[str, Any] | None:
    """How well the values of finished answers predict their correctness; None without answers.

    Args:
        values: (answers,) P(correct) in [0, 1].
        correct: (answers,) whether each answer is correct.

    Returns:
        `ece` (expected calibration error), `brier`, `auc` (None if all outcomes are equal), and `bins`: number of answers, mean
        value and share correct of each non-empty bin.
    """
    if not len(values):
        return None
    bins = reliability(values, correct)
    return {
        "ece": expected_calibration_error(bins),
        "brier": brier_score(correct, values),
        "auc": auc(correct, values),
        "bins": [{"answers": each.size, "value": each.value, "correct": each.correct} for each in bins],
    }
