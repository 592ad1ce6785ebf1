"""Validation metrics: ranking and calibration of P(correct), overall and by position in the sequence."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vgs_ray.calibration import Bin, auc, bin_predictions, brier_score, expected_calibration_error, reliability


class Predictions(NamedTuple):
    """Predictions at the targets of the held-out examples; arrays of shape (tokens,).

    Targets are all roll-out tokens; with label kind `step_values`, the last tokens of steps.

    Attributes:
        loss: cross-entropy against the outcome, in nats.
        value: P(correct).
        correct: whether the finished answer is correct.
        weight: 1 / (targets of the sequence).
        position: position in the sequence, including the prompt.
        first, last: whether the token is the first or last target of its sequence.
    """

    loss: NDArray[np.float32]
    value: NDArray[np.float32]
    correct: NDArray[np.bool_]
    weight: NDArray[np.float32]
    position: NDArray[np.int32]
    first: NDArray[np.bool_]
    last: NDArray[np.bool_]


def summarize(predictions: Predictions) -> dict[str, float]:
    """Metrics over all targets; every sequence has the same weight.

    Returns:
        `cross_entropy` in nats; `auc`, `brier` and `ece` (expected calibration error) of P(correct) against the outcome;
        `auc_start` and `auc_end`, the AUC at the first and the last target alone. An AUC is 0.5 if all outcomes are
        equal.
    """
    loss, value, correct, weight, _, first, last = predictions
    areas = {
        "auc": auc(correct, value, weight),
        "auc_start": auc(correct[first], value[first]),
        "auc_end": auc(correct[last], value[last]),
    }
    return {
        "cross_entropy": float(np.average(loss, weights=weight)),
        "brier": brier_score(correct, value, weight),
        "ece": expected_calibration_error(reliability(value, correct, weight)),
        **{name: 0.5 if area is None else area for name, area in areas.items()},
    }


def by_position(predictions: Predictions, width: int) -> list[Bin]:
    """Bins of `width` tokens over the position in the sequence."""
    index = predictions.position // width
    return bin_predictions(index, width, predictions.value, predictions.correct, predictions.weight)
