"""The training loop of the value model: knows torch.distributed, not Ray.

In: a model, training examples in their order, held-out examples. Out: metrics through `report`, checkpoints, the trained
model. What a step does is a function of the configuration and the step alone, so a restart goes on exactly.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from vgs_ray.config import Train
from vgs_ray.ids import stable_seed
from vgs_ray.value import checkpoint
from vgs_ray.value.loader import Examples, Order
from vgs_ray.value.loss import outcome_loss
from vgs_ray.value.metrics import validate
from vgs_ray.value.model import ValueModel
from vgs_ray.value.packing import Example, Layout, micro_batches

Report = Callable[[dict[str, float]], None]


class LossDivergedError(RuntimeError):
    """The loss is not a number."""


@dataclass(frozen=True)
class Worker:
    """This process among all of them."""

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def layout(self) -> Layout:
        return "packed" if self.device.type == "cuda" else "bucketed"


def learning_rate(config: Train, step: int) -> float:
    """Linear warm-up, then cosine to `min_lr_share` of the peak (arXiv 2505.17373, appendix E)."""
    warmup = max(1, round(config.steps * config.warmup_share))
    if step < warmup:
        return config.lr * (step + 1) / warmup
    progress = (step - warmup) / max(1, config.steps - warmup)
    return config.lr * (config.min_lr_share + (1 - config.min_lr_share) * 0.5 * (1 + math.cos(math.pi * progress)))


def make_optimizer(model: ValueModel, config: Train) -> torch.optim.AdamW:
    """AdamW with float32 state; only matrices decay."""
    matrices = [weight for weight in model.parameters() if weight.ndim >= 2]
    vectors = [weight for weight in model.parameters() if weight.ndim < 2]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)


def fit(
    model: ValueModel,
    config: Train,
    train: Examples,
    held_out: Sequence[Example],
    folder: Path,
    seed: int,
    worker: Worker,
    report: Report,
) -> None:
    """Train `model` in place for `config.steps` steps, going on from the newest checkpoint in `folder`.

    Args:
        train: this worker reads its share of each batch from them.
        held_out: rank 0 validates on them.
        folder: of the checkpoints.
        seed: of order and dropout.
        report: called on rank 0 with `step`, `loss`, `lr`, `tokens_per_s`, `seconds_left` after each step, and with the
            metrics of `validate` when it ran.

    Raises:
        LossDivergedError: the loss is NaN or infinite; the message has the ids of the batch.
    """
    optimizer = make_optimizer(model, config)
    done = checkpoint.load_latest(folder, model, optimizer, worker.device)
    order = Order(train.groups(config.group_size), seed)
    model.train()
    started, tokens = time.monotonic(), 0
    for step in range(done, config.steps):
        torch.manual_seed(stable_seed(seed, "dropout", step, worker.rank))
        batch = [train.example(index) for index in order.batch(step, config.batch_size, worker.rank, worker.world)]
        loss = _step(model, optimizer, config, step, batch, worker)
        tokens += worker.world * sum(len(example.tokens) for example in batch)
        if worker.rank == 0:
            elapsed = time.monotonic() - started
            per_step = elapsed / (step + 1 - done)
            metrics = {
                "step": step + 1,
                "loss": loss,
                "lr": learning_rate(config, step),
                "tokens_per_s": tokens / elapsed,
                "seconds_left": per_step * (config.steps - step - 1),
            }
            last = step + 1 == config.steps
            if held_out and (last or (step + 1) % config.validate_every == 0):
                metrics |= validate(model, held_out, config.micro_tokens, config.max_length, worker.layout)
            if last or (step + 1) % config.checkpoint_every == 0:
                checkpoint.save(folder, step + 1, model, optimizer)
            report(metrics)


def _step(
    model: ValueModel, optimizer: torch.optim.Optimizer, config: Train, step: int, batch: list[Example], worker: Worker
) -> float:
    """One optimizer step; returns the loss of the batch over all workers."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(config, step)
    optimizer.zero_grad()
    total, sequences = torch.zeros((), device=worker.device), 0
    for micro in micro_batches(batch, config.micro_tokens, config.max_length, worker.layout):
        with torch.autocast(worker.device.type, torch.bfloat16, enabled=worker.device.type == "cuda"):
            loss = outcome_loss(model, micro, worker.device)
        loss.backward()
        total += loss.detach()
        sequences += micro.sequences
    mean = _share(model, total, sequences, worker)
    if not math.isfinite(mean):
        ids = ", ".join(example.id for example in batch)
        raise LossDivergedError(
            f"loss is {mean} at step {step}; it must be finite: look at these roll-outs or lower train.lr: {ids}"
        )
    torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
    optimizer.step()
    return mean


def _share(model: ValueModel, total: Tensor, sequences: int, worker: Worker) -> float:
    """Sum gradients, loss and counts over the workers and divide by the sequences of the whole batch.

    One reduction a step, after all micro-batches: the mean is over the batch, however it was split.
    """
    grads = [weight.grad for weight in model.parameters() if weight.grad is not None]
    count = torch.tensor(float(sequences), device=worker.device)
    if worker.world > 1:
        grads = [weight.grad if weight.grad is not None else torch.zeros_like(weight) for weight in model.parameters()]
        flat = torch.cat([grad.reshape(-1) for grad in grads] + [total.reshape(1), count.reshape(1)])
        dist.all_reduce(flat)
        parts = flat[:-2].split([grad.numel() for grad in grads])
        for weight, part in zip(model.parameters(), parts, strict=True):
            weight.grad = part.view_as(weight).clone()
        grads = [weight.grad for weight in model.parameters() if weight.grad is not None]
        total, count = flat[-2], flat[-1]
    for grad in grads:
        grad /= count.clamp(min=1)
    return float(total / count.clamp(min=1))
