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
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from vgs_ray.config import Train
from vgs_ray.ids import stable_seed
from vgs_ray.value import checkpoint
from vgs_ray.value.loader import Examples, Order
from vgs_ray.value.loss import outcome_loss
from vgs_ray.value.metrics import check_held_out, validate
from vgs_ray.value.model import ValueModel
from vgs_ray.value.packing import Example, Layout, micro_batches, overlong

Report = Callable[[dict[str, float]], None]
SHOWN_IDS = 64


class LossDivergedError(RuntimeError):
    """The loss or its gradient is not a number."""


@dataclass(frozen=True)
class Worker:
    """This process among all of them."""

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def layout(self) -> Layout:
        return "packed" if self.device.type == "cuda" else "bucketed"


class StepResult(NamedTuple):
    """One optimizer step over all workers: mean loss (nats), norm of the gradient before clipping, tokens in the forward
    passes without padding, and sequences that lost their label because they are longer than `max_length`."""

    loss: float
    grad_norm: float
    tokens: int
    overlong: int


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
        report: called on rank 0 after each step with the fields of `StepResult`, `step`, `lr`, `tokens_per_s` and
            `seconds_left`, and with the metrics of `validate` when it ran.

    Raises:
        LossDivergedError: loss or gradient is NaN or infinite, on all workers alike; the message has the roll-outs' ids.
        ValueError: there is nothing to train on or, within `max_length`, nothing to validate on.
    """
    if held_out:
        check_held_out(held_out, config.max_length)
    optimizer = make_optimizer(model, config)
    done = checkpoint.load_latest(folder, model, optimizer, worker.device)
    order = Order(train.groups(config.group_size), seed)
    model.train()
    started, tokens = time.monotonic(), 0
    for step in range(done, config.steps):
        torch.manual_seed(stable_seed(seed, "dropout", step, worker.rank))
        batch = [train.example(index) for index in order.batch(step, config.batch_size, worker.rank, worker.world)]
        result = _step(model, optimizer, config, step, batch, worker)
        tokens += result.tokens
        if worker.rank == 0:
            elapsed = time.monotonic() - started
            metrics = {
                "step": step + 1,
                **result._asdict(),
                "lr": learning_rate(config, step),
                "tokens_per_s": tokens / elapsed,
                "seconds_left": elapsed / (step + 1 - done) * (config.steps - step - 1),
            }
            last = step + 1 == config.steps
            if held_out and (last or (step + 1) % config.validate_every == 0):
                metrics |= validate(model, held_out, config.micro_tokens, config.max_length, worker.layout)
            report(metrics)  # before the checkpoint: after a kill between the two the step is redone, not missing
            if last or (step + 1) % config.checkpoint_every == 0:
                checkpoint.save(folder, step + 1, model, optimizer)


def _step(
    model: ValueModel, optimizer: torch.optim.Optimizer, config: Train, step: int, batch: list[Example], worker: Worker
) -> StepResult:
    """One optimizer step on this worker's share of the batch."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(config, step)
    optimizer.zero_grad()
    losses: list[tuple[Tensor, tuple[str, ...]]] = []
    sequences = 0
    for micro in micro_batches(batch, config.micro_tokens, config.max_length, worker.layout):
        loss = outcome_loss(model, micro, worker.device)
        loss.backward()
        losses.append((loss.detach(), micro.ids))
        sequences += micro.sequences
    fitting = [len(example.tokens) for example in batch if not overlong(example, config.max_length)]
    total = sum((loss for loss, _ in losses), torch.zeros((), device=worker.device))
    counts = torch.tensor([sequences, sum(fitting), len(batch) - len(fitting)], device=worker.device)
    mean, tokens, dropped = _share(model, total, counts, worker)
    norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm))
    if not (math.isfinite(mean) and math.isfinite(norm)):
        raise LossDivergedError(
            f"loss is {mean} at step {step} (norm of its gradient: {norm}); both must be finite: look at these "
            f"roll-outs or lower train.lr: {_suspects(losses, worker)}"
        )
    optimizer.step()
    return StepResult(mean, norm, tokens, dropped)


def _share(model: ValueModel, total: Tensor, counts: Tensor, worker: Worker) -> tuple[float, int, int]:
    """Sum gradients, loss and counts over the workers and divide by the sequences of the whole batch.

    One reduction a step, after all micro-batches: the mean is over the batch, however it was split.

    Args:
        total: () summed loss of this worker's sequences.
        counts: (3,) sequences with a target, tokens, overlong sequences.

    Returns:
        Mean loss, tokens and overlong sequences of the whole batch.
    """
    if worker.world > 1:
        weights = list(model.parameters())
        grads = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in weights]
        flat = torch.cat([grad.reshape(-1) for grad in grads] + [total.reshape(1)])
        dist.all_reduce(flat)
        dist.all_reduce(counts)
        parts = flat[:-1].split([weight.numel() for weight in weights])
        for weight, part in zip(weights, parts, strict=True):
            weight.grad = part.view_as(weight)
        total = flat[-1]
    sequences, tokens, dropped = counts.tolist()
    for weight in model.parameters():
        if weight.grad is not None:
            weight.grad /= max(1, sequences)
    return float(total) / max(1, sequences), tokens, dropped


def _suspects(losses: Sequence[tuple[Tensor, tuple[str, ...]]], worker: Worker) -> str:
    """Ids of the micro-batches, of all workers, whose own loss is not finite; of the whole batch when each one's is."""
    bad = [name for loss, ids in losses for name in ids if not math.isfinite(loss)]
    every = [name for _, ids in losses for name in ids]
    shares = [(bad, every)]
    if worker.world > 1:
        shares = [([], [])] * worker.world
        dist.all_gather_object(shares, (bad, every))
    ids = [name for share, _ in shares for name in share] or [name for _, share in shares for name in share]
    more = f" and {len(ids) - SHOWN_IDS:,} more" if len(ids) > SHOWN_IDS else ""
    return ", ".join(ids[:SHOWN_IDS]) + more
