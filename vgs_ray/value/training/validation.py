"""Predictions of the value model on held-out examples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from vgs_ray.config import Train
from vgs_ray.value.model import CORRECT, ValueModel, correct_probs
from vgs_ray.value.packing import Example, lay_out
from vgs_ray.value.training.loss import target_logits
from vgs_ray.value.training.metrics import Predictions
from vgs_ray.value.training.parallel import Worker, release
from vgs_ray.value.training.partition import partition_batch


@torch.no_grad()
def validate(model: ValueModel, examples: Sequence[Example], config: Train, worker: Worker) -> Predictions | None:
    """Values of held-out examples, each worker its share of them; the first worker gets all, the others None."""
    lengths = np.array([[len(example.tokens)] for example in examples])
    targets = lengths - np.array([[example.target_start] for example in examples])
    plan = partition_batch(lengths, targets, worker.world, config.micro_tokens, worker.layout)
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
            Predictions(
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
    mine = Predictions(*(np.concatenate(column) for column in zip(*found, strict=True)))
    everyone = worker.gather(mine)
    return Predictions(*map(np.concatenate, zip(*everyone, strict=True))) if worker.rank == 0 else None
