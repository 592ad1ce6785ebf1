"""How good values are on held-out problems, before any search asks them: ranking, calibration, and both by position."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from vgs_ray.config import Train
from vgs_ray.value.model import CORRECT, ValueModel, correct_probs
from vgs_ray.value.training.loss import target_logits
from vgs_ray.value.training.packing import Example, lay_out
from vgs_ray.value.training.parallel import Worker, release
from vgs_ray.value.training.plan import plan_step

BINS = 15


class Readings(NamedTuple):
    """Values at all roll-out tokens of the held-out examples; every array has one entry for each token.

    Attributes:
        loss: cross-entropy against the outcome, nats.
        value: P(correct).
        hit: the finished answer is correct.
        weight: 1 / (roll-out tokens of the sequence).
        position: of the token in its sequence, prompt included.
        first, last: it is its sequence's first or last roll-out token.
    """

    loss: NDArray[np.float32]
    value: NDArray[np.float32]
    hit: NDArray[np.bool_]
    weight: NDArray[np.float32]
    position: NDArray[np.int32]
    first: NDArray[np.bool_]
    last: NDArray[np.bool_]


class Bin(NamedTuple):
    """Tokens of one range of values, or of positions: what was promised and what came.

    Attributes:
        low: where the range begins.
        share: of all sequences' weight.
        value, hit: mean P(correct) and share of tokens whose answer became correct, weighted.
        accuracy: share of tokens where P(correct) above 0.5 says what came, weighted.
        auc: of P(correct) against the outcome within the bin.
    """

    low: float
    share: float
    value: float
    hit: float
    accuracy: float
    auc: float


@torch.no_grad()
def read(model: ValueModel, examples: Sequence[Example], config: Train, worker: Worker) -> Readings | None:
    """Values of held-out examples, each worker its share of them; the first worker gets all, the others None."""
    lengths = np.array([[len(example.tokens)] for example in examples])
    targets = lengths - np.array([[example.target_start] for example in examples])
    plan = plan_step(lengths, targets, worker.world, config.micro_tokens, worker.layout)
    was_training = model.training
    model.eval()
    found = []
    for pack in plan.packs[worker.rank]:
        batch = lay_out([examples[place] for place in pack], worker.layout)
        logits = target_logits(model, batch, worker.device)
        chosen = batch.weights > 0
        if logits.shape[-1] == 1:
            hits = torch.from_numpy((batch.labels[chosen] == CORRECT).astype(np.float32)).to(worker.device)
            losses = F.binary_cross_entropy_with_logits(logits[:, 0], hits, reduction="none")
        else:
            losses = F.cross_entropy(logits, torch.from_numpy(batch.labels[chosen]).to(worker.device), reduction="none")
        positions = batch.position_ids
        # A target is the first of its sequence where the token before it is none, or belongs to another sequence.
        before, after = np.roll(chosen, 1, 1), np.roll(chosen, -1, 1)
        before[:, 0] = after[:, -1] = False
        restarts, ends = positions == 0, np.roll(positions, -1, 1) == 0
        found.append(
            Readings(
                losses.cpu().numpy(),
                correct_probs(logits).cpu().numpy(),
                (batch.labels == CORRECT)[chosen],
                batch.weights[chosen],
                positions[chosen].astype(np.int32),
                (~before | restarts)[chosen],
                (~after | ends)[chosen],
            )
        )
    release(model)
    model.train(was_training)
    mine = Readings(*(np.concatenate(column) for column in zip(*found, strict=True)))
    everyone = worker.gather(mine)
    return Readings(*map(np.concatenate, zip(*everyone, strict=True))) if worker.rank == 0 else None


def summarize(readings: Readings) -> dict[str, float]:
    """Metrics over all roll-out tokens, every sequence with the same weight.

    Returns:
        `cross_entropy` (nats), `auc` of P(correct) against the outcome (0.5 when only one class occurs), `brier` and `ece`
        (expected calibration error, 15 bins of equal width) of P(correct), `auc_start` and `auc_end`: the AUC at the first
        and the last roll-out token alone.
    """
    loss, value, hit, weight, _, first, last = readings
    return {
        "cross_entropy": float(np.average(loss, weights=weight)),
        "auc": auc(hit, value, weight),
        "brier": float(np.average((value - hit) ** 2, weights=weight)),
        "ece": sum(each.share * abs(each.value - each.hit) for each in reliability(readings)),
        "auc_start": auc(hit[first], value[first]),
        "auc_end": auc(hit[last], value[last]),
    }


def reliability(readings: Readings, bins: int = BINS) -> list[Bin]:
    """Bins of equal width over P(correct) that have a token."""
    return _bins(readings, np.minimum((readings.value * bins).astype(int), bins - 1), 1 / bins)


def by_position(readings: Readings, width: int) -> list[Bin]:
    """Bins of `width` tokens over the position in the sequence."""
    return _bins(readings, readings.position // width, width)


def _bins(readings: Readings, which: NDArray[np.integer], width: float) -> list[Bin]:
    found, whole = [], readings.weight.sum(dtype=np.float64)
    for index in np.unique(which):
        here = which == index
        value, hit, weight = readings.value[here], readings.hit[here], readings.weight[here]
        mean, rate = (float(np.average(column, weights=weight)) for column in (value, hit))
        right = float(np.average((value > 0.5) == hit, weights=weight))
        share = float(weight.sum(dtype=np.float64) / whole)
        found.append(Bin(float(index * width), share, mean, rate, right, auc(hit, value, weight)))
    return found


def auc(hit: NDArray[np.bool_], value: NDArray[np.float32], weight: NDArray[np.float32] | None = None) -> float:
    """Area under the ROC curve; 0.5 when one class is absent, because then nothing can be ranked."""
    from sklearn.metrics import roc_auc_score

    return 0.5 if hit.all() or not hit.any() else float(roc_auc_score(hit, value, sample_weight=weight))
