"""The training loop of the value model: knows torch.distributed, not Ray.

In: a model, training examples in their order, held-out examples. Out: metrics through `report`, checkpoints, the trained
model. What a step does is a function of the configuration and the step alone, so a restart goes on exactly.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from vgs_ray.config import Train
from vgs_ray.data.ids import stable_seed
from vgs_ray.value.model import ValueModel
from vgs_ray.value.packing import Example, MicroBatch, lay_out
from vgs_ray.value.training.checkpoint import Checkpoints
from vgs_ray.value.training.loader import Examples, Order
from vgs_ray.value.training.loss import summed_loss
from vgs_ray.value.training.metrics import Predictions, summarize
from vgs_ray.value.training.optimizer import learning_rate, make_optimizer
from vgs_ray.value.training.parallel import Worker, accumulate, clip_gradients, prepare, sum_gradients
from vgs_ray.value.training.partition import Ints, Partition, partition_batch
from vgs_ray.value.training.throughput import peak_flops, training_flops
from vgs_ray.value.training.validation import validate

Report = Callable[[dict[str, float], Predictions | None], None]
SHOWN_IDS, DIVERGED = 8, "diverged.json"
ORDER_FIELDS = (
    "loss",
    "max_length",
    "batch_size",
    "group_size",
    "steps",
    "lr",
    "min_lr_share",
    "warmup_share",
    "min_warmup_steps",
    "dropout",
    "attention_dropout",
)
"""What decides which samples a step sees and what it does with them; a checkpoint of other values is refused."""


class LossDivergedError(RuntimeError):
    """The loss or its gradient is not a number.

    Attributes:
        found: step, loss, norm of the gradient, ids of the suspected roll-outs and of the whole batch.
    """

    def __init__(self, found: dict[str, Any]) -> None:
        self.found, suspects = found, found["suspects"]
        more = f" and {len(suspects) - SHOWN_IDS:,} more" if len(suspects) > SHOWN_IDS else ""
        super().__init__(
            f"loss is {found['loss']} at step {found['step']} (norm of its gradient: {found['grad_norm']}); both must be "
            f"finite: look at these roll-outs or lower train.lr: {', '.join(suspects[:SHOWN_IDS])}{more}"
        )

    def write(self, file: Path) -> None:
        """All of `found` as JSON; numbers that are not finite are strings."""
        file.parent.mkdir(parents=True, exist_ok=True)  # nothing may have been saved yet
        file.write_text(json.dumps(self.found | {name: str(self.found[name]) for name in ("loss", "grad_norm")}))


class StepResult(NamedTuple):
    """One optimizer step over all workers: mean loss, norm of the gradient before clipping, tokens in the forward passes
    without padding, and share of padding."""

    loss: float
    grad_norm: float
    tokens: int
    padding: float


class Batches:
    """What each step computes: the same plan on every worker, the tokens of this worker's share only."""

    def __init__(self, examples: Examples, config: Train, seed: int, worker: Worker, attention: float) -> None:
        self._examples, self._config, self._worker, self._attention = examples, config, worker, attention
        self._units = examples.units()
        self._order = Order(examples.group_bounds(self._units, config.group_size), seed)
        self.size = max(1, config.batch_size // self._units.shape[1])  # in units

    def plan(self, step: int) -> tuple[Ints, Partition]:
        """The step's units (units, sequences of a unit) and who computes which."""
        units = self._units[self._order.batch(step, self.size)]
        lengths = self._examples.lengths[units].astype(np.int64)
        config, worker = self._config, self._worker
        targets = lengths - self._examples.starts[units]
        return units, partition_batch(
            lengths, targets, worker.world, config.micro_tokens, worker.layout, self._attention
        )

    def micro_batches(self, units: Ints, plan: Partition) -> Iterator[MicroBatch]:
        """This worker's; as many as every other worker has."""
        for pack in plan.packs[self._worker.rank]:
            examples = [self._examples.example(int(index)) for index in units[pack].reshape(-1)]
            yield lay_out(examples, self._worker.layout, last_only=self._config.loss == "bradley_terry")

    def flops(self, units: Ints, plan: Partition, cost: Any) -> float:
        """Of the step, over all workers."""
        kept = [place for own in plan.packs for pack in own for place in pack]
        return cost.flops(self._examples.lengths[units[kept]])


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
        held_out: all workers validate on them together.
        folder: of the checkpoints.
        seed: of order and dropout.
        report: called on rank 0 after each step with the fields of `StepResult`, `step`, `lr`, `tokens_per_s`,
            `seconds_left` and, on a known GPU, `mfu`; with the metrics of `summarize` and the predictions when it validated.

    Raises:
        LossDivergedError: loss or gradient is NaN or infinite, on all workers alike; the message has the first ids of
            the roll-outs, `diverged.json` in `folder` all of them.
        ValueError: there is nothing to train on.
    """
    cost = training_flops(model)  # before its weights are sharded
    batches = Batches(train, config, seed, worker, cost.ratio)
    prepare(model, config, worker)
    optimizer = make_optimizer(model, config)
    identity = {"seed": seed, **{name: getattr(config, name) for name in ORDER_FIELDS}}
    checkpoints = Checkpoints(folder, config.checkpoints_kept, worker, config.async_checkpoints, identity)
    done = checkpoints.load_latest(model, optimizer)
    clock = _Clock(done, config.steps, worker)
    model.train()
    for step in range(done, config.steps):
        torch.manual_seed(stable_seed(seed, "dropout", step, worker.rank))
        units, plan = batches.plan(step)
        try:
            result = _step(model, optimizer, config, step, plan, batches.micro_batches(units, plan), worker)
        except LossDivergedError as error:
            if worker.rank == 0:
                error.write(folder / DIVERGED)
            raise
        speed = clock.read(step + 1, plan.tokens, batches.flops(units, plan, cost))
        metrics = {"step": step + 1, **result._asdict(), "lr": learning_rate(config, step), **speed}
        last, predictions = step + 1 == config.steps, None
        if held_out and (last or (step + 1) % config.validate_every == 0):
            predictions = validate(model, held_out, config, worker)
        if worker.rank == 0:
            # Before the checkpoint: after a kill between the two the step is redone, not missing.
            report(metrics | (summarize(predictions) if predictions else {}), predictions)
        checkpoints.poll()
        if last or (step + 1) % config.checkpoint_every == 0:
            checkpoints.save(step + 1, (step + 1) * batches.size, model, optimizer)
    checkpoints.wait()


def _step(
    model: ValueModel,
    optimizer: torch.optim.Optimizer,
    config: Train,
    step: int,
    plan: Partition,
    micros: Iterator[MicroBatch],
    worker: Worker,
) -> StepResult:
    """One optimizer step: the mean over the sequences of the whole batch, however it was split."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(config, step)
    optimizer.zero_grad()
    losses: list[tuple[Tensor, tuple[str, ...]]] = []
    count = len(plan.packs[worker.rank])
    for index, micro in enumerate(micros):
        accumulate(model, index + 1 == count, config)
        loss = summed_loss(model, micro, config.loss, worker.device) / max(1, plan.units)
        loss.backward()
        losses.append((loss.detach(), micro.ids))
    if not count:  # nothing in the whole batch has a target
        return StepResult(0.0, 0.0, 0, 0.0)
    sum_gradients(model, worker)
    total = sum((loss for loss, _ in losses), torch.zeros((), device=worker.device))
    if worker.world > 1:
        dist.all_reduce(total)
    mean, norm = float(total), clip_gradients(model, config.clip_norm)
    if not (math.isfinite(mean) and math.isfinite(norm)):
        raise LossDivergedError({"step": step, "loss": mean, "grad_norm": norm, **_suspects(losses, worker)})
    optimizer.step()
    return StepResult(mean, norm, plan.tokens, plan.padding)


class _Clock:
    """Speed since this process began to train."""

    def __init__(self, done: int, steps: int, worker: Worker) -> None:
        self._done, self._steps, self._began = done, steps, time.monotonic()
        peak = peak_flops(worker.device)
        self._peak = peak * worker.world if peak else None
        self._tokens, self._flops = 0, 0.0

    def read(self, step: int, tokens: int, flops: float) -> dict[str, float]:
        elapsed = time.monotonic() - self._began
        self._tokens += tokens
        self._flops += flops
        speed = {
            "tokens_per_s": self._tokens / elapsed,
            "seconds_left": elapsed / (step - self._done) * (self._steps - step),
        }
        return speed | ({"mfu": self._flops / elapsed / self._peak} if self._peak else {})


def _suspects(losses: Sequence[tuple[Tensor, tuple[str, ...]]], worker: Worker) -> dict[str, list[str]]:
    """Ids of the batch, and of the micro-batches whose own loss is not finite (all of them when none is): of all workers."""
    bad = [name for loss, ids in losses for name in ids if not math.isfinite(loss)]
    every = [name for _, ids in losses for name in ids]
    shares = worker.gather((bad, every))
    batch = [name for _, share in shares for name in share]
    return {"suspects": [name for share, _ in shares for name in share] or batch, "batch": batch}
