"""What training costs and how fast it goes: FLOPs of a step, and their share of what the device can do (MFU)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from vgs_ray.value.model import ValueModel

PEAK_FLOPS = {"H200": 989e12, "H100": 989e12, "H800": 989e12, "A100": 312e12, "A800": 312e12, "L40S": 362e12}
"""Dense bfloat16 FLOP/s by a part of the device's name, from the makers' data sheets (SXM versions)."""


class TrainingFlops(NamedTuple):
    """Of forward and backward passes of one model.

    Attributes:
        token: FLOPs for one token: 6 for each weight that it is multiplied with (arXiv 2001.08361).
        pair: FLOPs for one token that attends to one earlier token.
    """

    token: float
    pair: float

    @property
    def ratio(self) -> float:
        """Cost of a sequence of n tokens, divided by `token`, is n * (1 + ratio * n)."""
        return self.pair / 2 / self.token

    def flops(self, lengths: NDArray[np.integer]) -> float:
        """Of sequences, each token attending to half of its own sequence on average."""
        lengths = lengths.astype(np.float64)
        return float((self.token * lengths + self.pair * lengths**2 / 2).sum())


def training_flops(model: ValueModel) -> TrainingFlops:
    """The embedding is a lookup and the head is run on targets only; both are left out."""
    config = model.config
    weights = sum(weight.numel() for block in model.model.layers for weight in block.parameters())
    heads = config.num_attention_heads
    width = heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)
    return TrainingFlops(6.0 * weights, 12.0 * config.num_hidden_layers * width)


def peak_flops(device: torch.device) -> float | None:
    """Dense bfloat16 FLOP/s; None on CPU and for an unknown device."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAK_FLOPS.items() if part in name), None)
