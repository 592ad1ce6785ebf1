"""Losses of the value model. Shapes: T target tokens, C outputs of the head.

In: a model and a micro-batch. Out: float32 logits at the targets, and the loss summed over sequences (or pairs). The caller
divides the sum by the number of sequences in the whole batch, over all workers and micro-batches.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

import vgs_ray.value.attention  # noqa: F401  registers attention `varlen`
from vgs_ray.config.train import Loss
from vgs_ray.value.model import ValueModel
from vgs_ray.value.training.feed import DeviceBatch


def summed_loss(model: ValueModel, batch: DeviceBatch, loss: Loss) -> Tensor:
    """Loss of a micro-batch, (), summed over its sequences.

    - `outcome` (VGS, arXiv 2505.17373, section 2.1): cross-entropy of the final class, mean over a sequence's roll-out tokens.
    - `soft`, `mse` (TVM, arXiv 2407.12863): cross-entropy or squared error of P(correct) against each token's own value, mean
      over a sequence's roll-out tokens with a value.
    - `bradley_terry`: -log P(the correct answer ranks above the incorrect one), from the last tokens. The micro-batch alternates
      between the correct and the incorrect answer of each pair.
    """
    logits_TC = target_logits(model, batch)
    if loss == "bradley_terry":
        return -F.logsigmoid(logits_TC[0::2, 0] - logits_TC[1::2, 0]).sum()
    if loss == "outcome":
        losses_T = F.cross_entropy(logits_TC, batch.labels.long(), reduction="none")
    elif loss == "soft":
        losses_T = F.binary_cross_entropy_with_logits(logits_TC[:, 0], batch.values, reduction="none")
    else:
        losses_T = (logits_TC[:, 0].sigmoid() - batch.values).square()
    return (losses_T * batch.weights).sum()


def target_logits(model: ValueModel, batch: DeviceBatch) -> Tensor:
    """Logits (T, C), float32, at the targets.

    No attention mask is needed: packed sequences are kept apart by their bounds or positions, and padding is on the right, where
    causal attention does not see it.
    """
    return model(batch.input_ids, chosen=batch.targets, **batch.packing).float()
