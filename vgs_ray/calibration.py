"""Calibration and ranking of predicted P(correct), for tokens in validation and for finished answers in evaluation.

In: predicted probabilities, outcomes, and optional weights. Out: AUC, Brier score, expected calibration error (ECE), and the bins
of a reliability diagram. numpy and scikit-learn only.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BINS = 10
Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]


class Bin(NamedTuple):
    """Predictions that fall into one range; means are weighted.

    Attributes:
        low: lower edge of the range.
        size: number of predictions.
        share: share of the total weight.
        value: mean P(correct).
        correct: share that is correct.
        accuracy: share for which P(correct) > 0.5 matches the outcome.
        auc: AUC within the bin; 0.5 if all outcomes in the bin are equal.
    """

    low: float
    size: int
    share: float
    value: float
    correct: float
    accuracy: float
    auc: float


def bin_predictions(
    index: NDArray[np.integer], width: float, values: Floats, correct: Bools, weights: Floats | None = None
) -> list[Bin]:
    """One `Bin` for each index that occurs, in ascending order.

    Args:
        index: (predictions,) bin of each prediction; bin i begins at `i * width`.
        width: width of a bin.
        values: (predictions,) P(correct) in [0, 1].
        correct: (predictions,) outcomes.
        weights: (predictions,) weights; None for equal weights.
    """
    weights = np.ones(len(values)) if weights is None else weights
    total, bins = weights.sum(dtype=np.float64), []
    for position in np.unique(index):
        inside = index == position
        value, hit, weight = values[inside], correct[inside], weights[inside]
        area = auc(hit, value, weight)
        mean, rate, accuracy = (float(np.average(x, weights=weight)) for x in (value, hit, (value > 0.5) == hit))
        share = float(weight.sum(dtype=np.float64) / total)
        bins.append(
            Bin(float(position * width), len(value), share, mean, rate, accuracy, 0.5 if area is None else area)
        )
    return bins


def reliability(values: Floats, correct: Bools, weights: Floats | None = None) -> list[Bin]:
    """Bins of a reliability diagram: `BINS` ranges of P(correct) of equal width, without the empty ones."""
    index = np.minimum((values * BINS).astype(int), BINS - 1)
    return bin_predictions(index, 1 / BINS, values, correct, weights)


def expected_calibration_error(bins: list[Bin]) -> float:
    """Mean distance between predicted and observed rate over the bins of `reliability` (arXiv 1706.04599, equation 3)."""
    return sum(each.share * abs(each.value - each.correct) for each in bins)


def brier_score(correct: Bools, values: Floats, weights: Floats | None = None) -> float:
    """Mean squared error of P(correct)."""
    from sklearn.metrics import brier_score_loss

    return float(brier_score_loss(correct, values, sample_weight=weights, pos_label=True))


def auc(correct: Bools, values: Floats, weights: Floats | None = None) -> float | None:
    """Area under the ROC curve; None if all outcomes are equal, because then there is nothing to rank."""
    from sklearn.metrics import roc_auc_score

    if correct.all() or not correct.any():
        return None
    return float(roc_auc_score(correct, values, sample_weight=weights))
