"""Metrics of stage tune: TRL's under the names of this project, and those of the value over all validation pairs."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vgs_ray.calibration import auc
from vgs_ray.data.storage import AnyPath
from vgs_ray.value.training.metrics_log import read_metrics

NAMES = {
    "loss": "loss",
    "grad_norm": "grad_norm",
    "learning_rate": "lr",
    "sft": "sft_loss",
    "squared_error": "value_mse",
    "path_error": "path_mse",
    "margin": "margin_loss",
    "node_mse": "node_mse",
    "node_auc": "node_auc",
    "answer_auc": "answer_auc",
    "logps/chosen": "chosen_logp",
    "logps/rejected": "rejected_logp",
}
"""Names in `metrics.jsonl` of the metrics that every loss has."""
DPO_NAMES = {"rewards/accuracies": "dpo_accuracy", "rewards/margins": "dpo_margin"}
"""Names of the metrics that need the reference model."""
VALIDATION = "validation_"


def named_metrics(logs: dict[str, float], dpo: bool) -> dict[str, float]:
    """The metrics of TRL's log that are kept. Those of a validation begin with `validation_`.

    Args:
        logs: what TRL logs.
        dpo: whether there is a reference model.
    """
    names = NAMES | DPO_NAMES if dpo else NAMES
    prefixes = (("", ""), ("eval_", VALIDATION))
    return {
        f"{ours}{name}": float(logs[f"{theirs}{key}"])
        for theirs, ours in prefixes
        for key, name in names.items()
        if f"{theirs}{key}" in logs
    }


class NodeValues(NamedTuple):
    """Values of paths.

    Attributes:
        values, q: (nodes,) V and Q.
        ends: (paths,) V at the last node.
        correct: (paths,) 1, 0, or NaN if it is not known.
    """

    values: NDArray[np.float32]
    q: NDArray[np.float32]
    ends: NDArray[np.float32]
    correct: NDArray[np.float32]


class ValuePredictions:
    """Values and Q of validation pairs."""

    def __init__(self) -> None:
        self._parts: list[NDArray[np.float32]] = []

    def add(self, part: NDArray[np.float32]) -> None:
        """Add pairs; the columns are V(chosen), V(rejected), Q(chosen), Q(rejected)."""
        self._parts.append(part)

    def summary(self) -> dict[str, float]:
        """Metrics of the values over all pairs.

        Returns:
            `validation_value_accuracy`: share of the pairs with V(chosen) > V(rejected). `validation_value_auc`: AUC of V against
            Q > 0 over both sides of all pairs; absent if all Q have the same sign.
        """
        if not self._parts:
            return {}
        values, q = np.split(np.concatenate(self._parts), 2, axis=1)
        metrics = {f"{VALIDATION}value_accuracy": float((values[:, 0] > values[:, 1]).mean())}
        area = auc(q.ravel() > 0, values.ravel())
        return metrics if area is None else {**metrics, f"{VALIDATION}value_auc": area}


def summarize_nodes(parts: list[NodeValues]) -> dict[str, float]:
    """Metrics of the values of validation paths, under TRL's prefix `eval_`; those that are not defined are absent.

    Returns:
        `node_mse` and `node_auc`: squared error, and AUC of V against Q > 0, over all nodes. `answer_auc`: AUC of V at the ends
        of the paths against their outcome.
    """
    if not parts:
        return {}
    values, q, ends, correct = (np.concatenate(column) for column in zip(*parts, strict=True))
    known = np.isfinite(correct)
    areas = {"node_auc": auc(q > 0, values), "answer_auc": auc(correct[known] > 0, ends[known])}
    metrics = {"node_mse": float(((values - q) ** 2).mean()), **{k: v for k, v in areas.items() if v is not None}}
    return {f"eval_{name}": value for name, value in metrics.items()}


def last_validation(rows: list[dict[str, float]]) -> dict[str, float]:
    """The validation metrics of the last validated step, and the step; empty if there was none."""
    row = next((row for row in reversed(rows) if f"{VALIDATION}loss" in row), {})
    return {name: value for name, value in row.items() if name.startswith(VALIDATION) or name == "step"}


def progress_text(log: AnyPath) -> str:
    """Time left, loss, and the accuracies of the last validation."""
    from tqdm import tqdm

    rows = read_metrics(log, tail=True)
    if not rows:
        return "starting workers"
    parts = [f"{tqdm.format_interval(rows[-1]['seconds_left'])} left", f"loss {rows[-1]['loss']:.3f}"]
    validation = last_validation(rows)
    for name, shown in (("dpo_accuracy", "DPO accuracy"), ("value_accuracy", "value accuracy")):
        if f"{VALIDATION}{name}" in validation:
            parts.append(f"{shown} {validation[f'{VALIDATION}{name}']:.0%}")
    return ", ".join(parts)
