"""One optimizer step of the value model on this worker. Needs torch and transformers alone.

In: a model that `prepare` has made ready, and this worker's micro-batches. Out: the loss and the norm of the gradient.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from vgs_ray.config import Train
from vgs_ray.value.model import ValueModel
from vgs_ray.value.training.feed import HostBatch
from vgs_ray.value.training.loss import summed_loss
from vgs_ray.value.training.optimizer import learning_rate
from vgs_ray.value.training.parallel import Worker, accumulate, clip_gradients
from vgs_ray.value.training.partition import Partition

SHOWN_IDS = 8


class LossDivergedError(RuntimeError):
    """The loss or the gradient norm is NaN or infinite.

    Attributes:
        details: step, loss, gradient norm, ids of the suspected roll-outs and of the whole batch.
    """

    def __init__(self, details: dict[str, Any]) -> None:
        self.details, suspects = details, details["suspects"]
        more = f" and {len(suspects) - SHOWN_IDS:,} more" if len(suspects) > SHOWN_IDS else ""
        super().__init__(
            f"loss is {details['loss']} and gradient norm is {details['grad_norm']} at step {details['step']}; both must be "
            f"finite: lower train.lr, or check these roll-outs: {', '.join(suspects[:SHOWN_IDS])}{more}"
        )


class Step(NamedTuple):
    """What one worker computes in a step.

    Attributes:
        partition: the partition of the batch.
        micro_batches: this worker's share; every worker has the same number.
        flops: FLOPs over all workers.
    """

    partition: Partition
    micro_batches: list[HostBatch]
    flops: float


class StepResult(NamedTuple):
    """One optimizer step over all workers.

    Attributes:
        loss: mean loss of the batch.
        grad_norm: gradient norm before clipping.
        tokens: tokens in the forward passes, without padding.
        padding: share of padding.
    """

    loss: float
    grad_norm: float
    tokens: int
    padding: float


class MicroLoss(NamedTuple):
    """A micro-batch's part of the loss, and the ids of its roll-outs."""

    loss: Tensor
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Trainer:
    """Optimizer steps on one worker; all workers run them together."""

    model: ValueModel
    optimizer: torch.optim.Optimizer
    config: Train
    worker: Worker

    def step(self, step: int, prepared: Step) -> StepResult:
        """One optimizer step on the mean loss over the units of the whole batch, for any partition of it.

        The host waits for the device once, when the loss and the norm are read.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config, step)
        self.optimizer.zero_grad()
        losses, partition = self._backward(prepared), prepared.partition
        if not losses:  # no sequence of the batch has a target
            return StepResult(0.0, 0.0, 0, 0.0)
        norm = clip_gradients(self.model, self.config.clip_norm)
        loss, norm = torch.stack([self._total(losses), norm]).tolist()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            suspects = _suspects(losses, self.worker)
            raise LossDivergedError({"step": step, "loss": loss, "grad_norm": norm, **suspects})
        self.optimizer.step()
        return StepResult(loss, norm, partition.tokens, partition.padding)

    def _backward(self, prepared: Step) -> list[MicroLoss]:
        losses: list[MicroLoss] = []
        for micro in prepared.micro_batches:
            accumulate(self.model, micro is prepared.micro_batches[-1], self.config)
            loss = summed_loss(self.model, micro.to(self.worker.device), self.config.loss) / prepared.partition.units
            loss.backward()
            losses.append(MicroLoss(loss.detach(), micro.ids))
        return losses

    def _total(self, losses: Sequence[MicroLoss]) -> Tensor:
        """Sum over the micro-batches of all workers, ()."""
        total = sum((each.loss for each in losses), torch.zeros((), device=self.worker.device))
        if self.worker.world > 1:
            dist.all_reduce(total)
        return total


def _suspects(losses: Sequence[MicroLoss], worker: Worker) -> dict[str, list[str]]:
    """Ids over all workers: `batch`, and `suspects` in micro-batches whose loss is not finite, or the whole batch if none is."""
    suspects = [name for each in losses for name in each.ids if not math.isfinite(each.loss)]
    shares = worker.gather((suspects, [name for each in losses for name in each.ids]))
    batch = [name for _, ids in shares for name in ids]
    return {"suspects": [name for ids, _ in shares for name in ids] or batch, "batch": batch}
