"""Losses of the value model. Shapes: T target tokens, C outputs of the head.

In: a model and a micro-batch. Out: float32 logits where there is a target, and the loss summed over sequences (or pairs);
the caller divides by the sequences of the whole batch, over all workers and micro-batches.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

from vgs_ray.value.attention import bounds
from vgs_ray.value.model import ValueModel
from vgs_ray.value.packing import MicroBatch

Loss = Literal["outcome", "soft", "mse", "bradley_terry"]


def summed_loss(model: ValueModel, batch: MicroBatch, loss: Loss, device: torch.device) -> Tensor:
    """Loss of a micro-batch, (), summed over its sequences.

    - `outcome` (VGS, arXiv 2505.17373, section 2.1): mean cross-entropy of the final class on each sequence's roll-out tokens.
    - `soft`, `mse` (TVM, arXiv 2407.12863): the same mean of the cross-entropy or the squared error of P(correct) against
      each token's own value.
    - `bradley_terry`: -log P(the right answer ranks above the wrong one), read at the last token of each; the micro-batch
      has the right and the wrong answer of each pair one after the other.
    """
    logits_TC = target_logits(model, batch, device)
    if loss == "bradley_terry":
        return -F.logsigmoid(logits_TC[0::2, 0] - logits_TC[1::2, 0]).sum()
    chosen = batch.weights > 0
    weights_T = torch.from_numpy(batch.weights[chosen]).to(device)
    if loss == "outcome":
        labels_T = torch.from_numpy(batch.labels[chosen]).to(device)
        losses_T = F.cross_entropy(logits_TC, labels_T, reduction="none")
    else:
        values_T = torch.from_numpy(batch.values[chosen]).to(device)
        losses_T = (
            F.binary_cross_entropy_with_logits(logits_TC[:, 0], values_T, reduction="none")
            if loss == "soft"
            else (logits_TC[:, 0].sigmoid() - values_T).square()
        )
    return (losses_T * weights_T).sum()


def target_logits(model: ValueModel, batch: MicroBatch, device: torch.device) -> Tensor:
    """Logits (T, C), float32, at the tokens with a weight, in row order.

    Packed sequences are told apart by their bounds, or by their positions where the attention knows no bounds. Padding on
    the right needs no mask under causal attention, and attention without one is several times faster on CPU. Weights are
    float32 everywhere; on a GPU the arithmetic is bfloat16, in validation too, because flash attention takes no float32. A
    sharded model does that by its own policy.
    """
    chosen = torch.from_numpy(batch.weights > 0).to(device)
    positions = torch.from_numpy(batch.position_ids).to(device) if batch.packed else None
    packed = bounds(batch.position_ids, device) if batch.packed else {}
    mixed = device.type == "cuda" and not isinstance(model, FSDPModule)
    with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
        return model(torch.from_numpy(batch.input_ids).to(device), None, positions, chosen, **packed).float()
