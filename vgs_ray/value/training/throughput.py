"""Training throughput: FLOPs of a step, tokens per second, and model FLOPs utilization (MFU)."""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from vgs_ray.value.model import ValueModel
from vgs_ray.value.training.parallel import Worker

PEAK_FLOPS = {"H200": 989e12, "H100": 989e12, "H800": 989e12, "A100": 312e12, "A800": 312e12, "L40S": 362e12}
"""Dense bfloat16 FLOP/s by a part of the device's name, from the vendors' data sheets (SXM versions)."""


class TrainingFlops(NamedTuple):
    """FLOPs of a forward and a backward pass.

    Attributes:
        token: FLOPs per token: 6 per weight (arXiv 2001.08361).
        pair: FLOPs per pair of a token and an earlier token that it attends to.
    """

    token: float
    pair: float

    @property
    def ratio(self) -> float:
        """The cost of a sequence of n tokens is `token * n * (1 + ratio * n)`."""
        return self.pair / 2 / self.token

    def of_sequences(self, lengths: NDArray[np.integer]) -> float:
        """FLOPs of sequences; each token attends to half of its sequence on average."""
        lengths = lengths.astype(np.float64)
        return float((self.token * lengths + self.pair * lengths**2 / 2).sum())


def training_flops(model: ValueModel) -> TrainingFlops:
    """FLOPs of a model, without the embedding (a lookup) and the head (computed at targets only)."""
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


class Throughput:
    """Mean throughput of all workers since this process started to train.

    Args:
        done: steps that were finished before.
        steps: steps of the whole run.
        worker: this process.
    """

    def __init__(self, done: int, steps: int, worker: Worker) -> None:
        self._done, self._steps, self._start = done, steps, time.monotonic()
        peak = peak_flops(worker.device)
        self._peak = peak * worker.world if peak else None
        self._tokens, self._flops = 0, 0.0

    def update(self, step: int, tokens: int, flops: float) -> dict[str, float]:
        """Count the finished step `step` (from 1).

        Returns:
            `tokens_per_s`, `seconds_left` and, on a known GPU, `mfu`.
        """
        elapsed = time.monotonic() - self._start
        self._tokens += tokens
        self._flops += flops
        metrics = {
            "tokens_per_s": self._tokens / elapsed,
            "seconds_left": elapsed / (step - self._done) * (self._steps - step),
        }
        return metrics | ({"mfu": self._flops / elapsed / self._peak} if self._peak else {})
