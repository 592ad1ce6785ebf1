"""AdamW, and a learning rate that depends on the step alone (arXiv 2505.17373, appendix E)."""

from __future__ import annotations

import math

import torch

from vgs_ray.config import Train
from vgs_ray.value.model import ValueModel


def learning_rate(config: Train, step: int) -> float:
    """Learning rate of the step after `step` finished ones: linear warm-up, then cosine decay to `min_lr_share` of the peak.

    As published, for step k of 1 ... `steps` with w warm-up steps: k / w of the peak up to k = w, then half a cosine over
    (k - w) / (steps - w), so that the last step has the lowest rate.
    """
    k = step + 1
    warmup = max(1, round(config.steps * config.warmup_share), config.min_warmup_steps)
    if k <= warmup:
        return config.lr * k / warmup
    progress = (k - warmup) / (config.steps - warmup)
    return config.lr * (config.min_lr_share + (1 - config.min_lr_share) * 0.5 * (1 + math.cos(math.pi * progress)))


def make_optimizer(model: ValueModel, config: Train) -> torch.optim.AdamW:
    """AdamW with float32 state; weight decay applies to matrices only."""
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    matrices = [weight for weight in trained if weight.ndim >= 2]
    vectors = [weight for weight in trained if weight.ndim < 2]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)
