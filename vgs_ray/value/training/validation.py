"""Predictions of the value model on held-out examples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from vgs_ray.config import Train
from vgs_ray.value.model import CORRECT, ValueModel, correct_probs
from vgs_ray.value.packing import Example, MicroBatch, lay_out
from vgs_ray.value.training.feed import row_multiple, to_device
from vgs_ray.value.training.loss import target_logits
from vgs_ray.value.training.metrics import Predictions
from vgs_ray.value.training.parallel import Worker, release
from vgs_ray.value.training.partition import partition_batch


@torch.no_grad()
def validate(model: ValueModel, examples: Sequence[Example], config: Train, worker: Worker) -> Predictions | None:
    """Predict the targets of held-out examples, divided among the workers. Rank 0 returns all, other workers return None."""
    lengths = np.array([[len(example.tokens)] for example in examples])
    multiple = row_multiple(config, worker.device)
    targets = lengths - np.array([[example.target_start] for example in examples])
    partition = partition_batch(lengths, targets, worker.world, config.micro_tokens, worker.layout)
    was_training = model.training
    model.eval()
    parts = []
    for pack in partition.packs[worker.rank]:
        batch = lay_out([examples[place] for place in pack], worker.layout, multiple=multiple)
        parts.append(_predictions(batch, target_logits(model, to_device(batch, worker.device))))
    release(model)
    model.train(was_training)
    every = worker.gather(_concatenate(parts))
    return _concatenate(every) if worker.rank == 0 else None


def _predictions(batch: MicroBatch, logits: Tensor) -> Predictions:
    targets = batch.weights > 0
    first, last = _ends(targets, batch.position_ids)
    return Predictions(
        _cross_entropy(logits, batch.labels[targets]).cpu().numpy(),
        correct_probs(logits).cpu().numpy(),
        (batch.labels == CORRECT)[targets],
        batch.weights[targets],
        batch.position_ids[targets].astype(np.int32),
        first,
        last,
    )


def _cross_entropy(logits: Tensor, labels: NDArray[np.int32]) -> Tensor:
    """Of the class, or of the only output against the class "correct"."""
    if logits.shape[-1] == 1:
        correct = torch.from_numpy((labels == CORRECT).astype(np.float32)).to(logits.device)
        return F.binary_cross_entropy_with_logits(logits[:, 0], correct, reduction="none")
    return F.cross_entropy(logits, torch.from_numpy(labels).long().to(logits.device), reduction="none")


def _ends(targets: NDArray[np.bool_], positions: NDArray[np.int32]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether each target is the first and the last one of its sequence. A sequence begins at the position 0."""
    sequences = np.cumsum(positions == 0)[targets.reshape(-1)]
    return np.diff(sequences, prepend=-1) != 0, np.diff(sequences, append=-1) != 0


def _concatenate(parts: Sequence[Predictions]) -> Predictions:
    return Predictions(*(np.concatenate(column) for column in zip(*parts, strict=True)))
