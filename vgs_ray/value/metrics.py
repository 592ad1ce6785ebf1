"""How good values are on held-out problems, before any search asks them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from vgs_ray.value.loss import target_logits
from vgs_ray.value.model import CORRECT, ValueModel
from vgs_ray.value.packing import Example, Layout, micro_batches


@torch.no_grad()
def validate(
    model: ValueModel, examples: Sequence[Example], micro_tokens: int, max_length: int, layout: Layout
) -> dict[str, float]:
    """Metrics over all roll-out tokens of held-out examples, every sequence with the same weight.

    Returns:
        `cross_entropy` (nats), `auc` of P(correct) against the outcome (0.5 when only one class occurs), `brier` of
        P(correct), `auc_start` and `auc_end`: the same AUC at the first and the last roll-out token alone.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    losses, values, hits, weights, firsts, lasts = [], [], [], [], [], []
    for batch in micro_batches(examples, micro_tokens, max_length, layout):
        chosen = batch.weights > 0
        logits = target_logits(model, batch, device)
        labels = torch.from_numpy(batch.labels[chosen]).to(device)
        losses.append(F.cross_entropy(logits, labels, reduction="none").cpu().numpy())
        values.append(logits.softmax(-1)[:, CORRECT].cpu().numpy())
        hits.append(batch.labels[chosen] == CORRECT)
        weights.append(batch.weights[chosen])
        edges = np.pad(chosen, ((0, 0), (1, 1)))
        firsts.append((edges[:, 1:-1] & ~edges[:, :-2])[chosen])
        lasts.append((edges[:, 1:-1] & ~edges[:, 2:])[chosen])
    model.train(was_training)
    loss, value, hit, weight, first, last = map(np.concatenate, (losses, values, hits, weights, firsts, lasts))
    return {
        "cross_entropy": float(np.average(loss, weights=weight)),
        "auc": auc(hit, value, weight),
        "brier": float(np.average((value - hit) ** 2, weights=weight)),
        "auc_start": auc(hit[first], value[first]),
        "auc_end": auc(hit[last], value[last]),
    }


def check_held_out(examples: Sequence[Example], max_length: int) -> None:
    """Find out before the first step, not at the first validation.

    Raises:
        ValueError: no example has a target within `max_length`.
    """
    if not any(example.target_start < len(example.tokens) <= max_length for example in examples):
        raise ValueError(
            f"none of {len(examples)} held-out sequences has a roll-out token and fits train.max_length={max_length}; "
            "validation needs one: raise train.max_length"
        )


def auc(hit: np.ndarray, value: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Area under the ROC curve; 0.5 when one class is absent, because then nothing can be ranked."""
    from sklearn.metrics import roc_auc_score

    return 0.5 if hit.all() or not hit.any() else float(roc_auc_score(hit, value, sample_weight=weight))
