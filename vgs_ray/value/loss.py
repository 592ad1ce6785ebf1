"""Losses of the value model. Shapes: T target tokens, C classes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vgs_ray.value.model import ValueModel
from vgs_ray.value.packing import MicroBatch


def outcome_loss(model: ValueModel, batch: MicroBatch, device: torch.device) -> Tensor:
    """VGS loss (arXiv 2505.17373, section 2.1), summed over sequences: mean cross-entropy of the final class on each
    sequence's roll-out tokens. The caller divides by the sequences of the whole batch, over all workers and micro-batches.

    The head runs only where there is a target. Logits are float32 whatever the backbone's type.
    """
    weights = torch.from_numpy(batch.weights).to(device)
    chosen = weights > 0
    logits_TC = model.head(hidden_states(model, batch, device)[chosen]).float()
    labels_T = torch.from_numpy(batch.labels).to(device)[chosen]
    return (F.cross_entropy(logits_TC, labels_T, reduction="none") * weights[chosen]).sum()


def hidden_states(model: ValueModel, batch: MicroBatch, device: torch.device) -> Tensor:
    """States (rows, length, hidden).

    Packed sequences are told apart by their positions. Padding on the right needs no mask under causal attention, and
    attention without one is several times faster on CPU.
    """
    positions = torch.from_numpy(batch.position_ids).to(device) if batch.packed else None
    return model.hidden_states(torch.from_numpy(batch.input_ids).to(device), None, positions)
