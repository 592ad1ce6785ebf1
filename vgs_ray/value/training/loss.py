"""Losses of the value model. Shapes: T target tokens, C outputs of the head.

In: a model and a micro-batch. Out: float32 logits at the targets, and the loss summed over sequences (or pairs). The caller
divides the sum by the number of sequences in the whole batch, over all workers and micro-batches.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

from vgs_ray.config.train import Loss
from vgs_ray.value.attention import sequence_bounds
from vgs_ray.value.model import ValueModel
from vgs_ray.value.packing import MicroBatch


def summed_loss(model: ValueModel, batch: MicroBatch, loss: Loss, device: torch.device) -> Tensor:
    """Loss of a micro-batch, (), summed over its sequences.

    - `outcome` (VGS, arXiv 2505.17373, section 2.1): cross-entropy of the final class, mean over a sequence's roll-out tokens.
    - `soft`, `mse` (TVM, arXiv 2407.12863): cross-entropy or squared error of P(correct) against each token's own value, mean
      over a sequence's roll-out tokens with a value.
    - `bradley_terry`: -log P(the correct answer ranks above the incorrect one), from the last tokens. The micro-batch alternates
      between the correct and the incorrect answer of each pair.
    """
    logits_TC = target_logits(model, batch, device)
    if loss == "bradley_terry":
        return -F.logsigmoid(logits_TC[0::2, 0] - logits_TC[1::2, 0]).sum()
    targets = batch.weights > 0
    weights_T = torch.from_numpy(batch.weights[targets]).to(device)
    if loss == "outcome":
        labels_T = torch.from_numpy(batch.labels[targets]).to(device)
        losses_T = F.cross_entropy(logits_TC, labels_T, reduction="none")
    else:
        values_T = torch.from_numpy(batch.values[targets]).to(device)
        losses_T = (
            F.binary_cross_entropy_with_logits(logits_TC[:, 0], values_T, reduction="none")
            if loss == "soft"
            else (logits_TC[:, 0].sigmoid() - values_T).square()
        )
    return (losses_T * weights_T).sum()


def target_logits(model: ValueModel, batch: MicroBatch, device: torch.device) -> Tensor:
    """Logits (T, C), float32, at the tokens with a weight, in row order.

    No attention mask is needed: packed sequences are kept apart by their bounds or positions, and padding is on the right, where
    causal attention does not see it. Weights are float32. On a GPU the computation is bfloat16, in validation too, because flash
    attention does not support float32; a sharded model has its own mixed-precision policy for this.
    """
    targets = torch.from_numpy(batch.weights > 0).to(device)
    positions = torch.from_numpy(batch.position_ids).to(device) if batch.packed else None
    bounds = sequence_bounds(batch.position_ids, device) if batch.packed else {}
    mixed = device.type == "cuda" and not isinstance(model, FSDPModule)
    with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
        return model(torch.from_numpy(batch.input_ids).to(device), None, positions, targets, **bounds).float()
