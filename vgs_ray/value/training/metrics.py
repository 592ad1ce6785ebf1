"""How good values are on held-out problems, before any search asks them: ranking, calibration, and both by position."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from vgs_ray.calibration import Bin, auc, bin_predictions, brier_score, expected_calibration_error, reliability
from vgs_ray.config import Train
from vgs_ray.value.model import CORRECT, ValueModel, correct_probs
from vgs_ray.value.training.loss import target_logits
from vgs_ray.value.training.packing import Example, lay_out
from vgs_ray.value.training.parallel import Worker, release
from vgs_ray.value.training.plan import plan_step


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
    """Metrics over all roll-out tokens; every sequence has the same weight.

    Returns:
        `cross_entropy` in nats; `auc`, `brier` and `ece` (expected calibration error) of P(correct) against the outcome;
        `auc_start` and `auc_end`, the AUC at the first and the last roll-out token alone. An AUC is 0.5 if all outcomes are
        equal.
    """
    loss, value, hit, weight, _, first, last = readings
    areas = {
        "auc": auc(hit, value, weight),
        "auc_start": auc(hit[first], value[first]),
        "auc_end": auc(hit[last], value[last]),
    }
    return {
        "cross_entropy": float(np.average(loss, weights=weight)),
        "brier": brier_score(hit, value, weight),
        "ece": expected_calibration_error(reliability(value, hit, weight)),
        **{name: 0.5 if area is None else area for name, area in areas.items()},
    }


def by_position(readings: Readings, width: int) -> list[Bin]:
    """Bins of `width` tokens over the position in the sequence."""
    return bin_predictions(readings.position // width, width, readings.value, readings.hit, readings.weight)
