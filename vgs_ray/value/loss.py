"""Losses of the value model. Shapes: T target tokens, C classes.

In: a model and a micro-batch. Out: float32 logits where there is a target, and the loss summed over sequences.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vgs_ray.value.model import ValueModel
from vgs_ray.value.packing import MicroBatch


def outcome_loss(model: ValueModel, batch: MicroBatch, device: torch.device) -> Tensor:
    """VGS loss (arXiv 2505.17373, section 2.1), summed over sequences: mean cross-entropy of the final class on each
    sequence's roll-out tokens. The caller divides by the sequences of the whole batch, over all workers and micro-batches.

    The head runs only where there is a target.
    """
    chosen = batch.weights > 0
    logits_TC = target_logits(model, batch, device)
    labels_T = torch.from_numpy(batch.labels[chosen]).to(device)
    weights_T = torch.from_numpy(batch.weights[chosen]).to(device)
    return (F.cross_entropy(logits_TC, labels_T, reduction="none") * weights_T).sum()


def target_logits(model: ValueModel, batch: MicroBatch, device: torch.device) -> Tensor:
    """Class logits (T, C), float32, at the tokens with a weight, in row order.

    Packed sequences are told apart by their positions. Padding on the right needs no mask under causal attention, and
    attention without one is several times faster on CPU. Weights are float32 everywhere; on a GPU the arithmetic is
    bfloat16, in validation too, because flash attention takes no float32.
    """
    chosen = torch.from_numpy(batch.weights > 0).to(device)
    positions = torch.from_numpy(batch.position_ids).to(device) if batch.packed else None
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        states = model.hidden_states(torch.from_numpy(batch.input_ids).to(device), None, positions)
        return model.head(states[chosen]).float()
