"""The training loop of the value model, on torch.distributed and without Ray.

In: a model, ordered training examples, held-out examples. Out: metrics through `report`, checkpoints, the trained model. A step
depends only on the configuration and its number, so a resumed run equals an uninterrupted one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from vgs_ray.config import Train
from vgs_ray.data.files import write_json
from vgs_ray.data.ids import stable_seed
from vgs_ray.data.storage import AnyPath, is_local
from vgs_ray.value.model import ValueModel
from vgs_ray.value.packing import Example
from vgs_ray.value.training.batches import Batches, Step
from vgs_ray.value.training.checkpoint import Checkpoints
from vgs_ray.value.training.feed import ahead
from vgs_ray.value.training.loader import Examples
from vgs_ray.value.training.loss import summed_loss
from vgs_ray.value.training.metrics import Predictions, summarize
from vgs_ray.value.training.optimizer import learning_rate, make_optimizer
from vgs_ray.value.training.parallel import Worker, accumulate, clip_gradients, prepare, sum_gradients
from vgs_ray.value.training.throughput import Throughput, training_flops
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
"""Fields of `Train` that decide what a step computes; a checkpoint written with other values is refused."""


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

    def write(self, file: AnyPath) -> None:
        """Write `details` as JSON, with the loss and the gradient norm as strings."""
        if is_local(file):
            file.parent.mkdir(parents=True, exist_ok=True)
        numbers = {name: str(self.details[name]) for name in ("loss", "grad_norm")}
        write_json(file, self.details | numbers)


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


def fit(
    model: ValueModel,
    config: Train,
    train: Examples,
    held_out: Sequence[Example],
    folder: AnyPath,
    seed: int,
    worker: Worker,
    report: Report,
    before_commit: Callable[[], None] | None = None,
) -> None:
    """Train `model` in place for `config.steps` steps; resumes from the newest checkpoint in `folder`.

    Args:
        model: whole, on this worker's device; it is sharded here.
        config: settings of the training, with its number of steps (`vgs_ray.value.training.batches.with_steps`).
        train: training examples; each worker reads its share of each batch.
        held_out: validation examples, divided among the workers.
        folder: folder of the checkpoints.
        seed: seed of the order and of dropout.
        worker: this process.
        report: called on rank 0 after each step with the fields of `StepResult`, `step`, `lr`, and what `Throughput.update`
            returns; after a validation also with the metrics of `summarize`, and with the predictions.
        before_commit: called on rank 0 immediately before a checkpoint counts, to store what was reported.

    Raises:
        LossDivergedError: the loss or the gradient is NaN or infinite; raised on all workers. `diverged.json` in `folder` lists
            the roll-outs.
        ValueError: there is nothing to train on, or the checkpoint was written with other settings.
    """
    batches = Batches(train, config, seed, worker, training_flops(model))  # counts weights, so before sharding
    prepare(model, config, worker)
    trainer = _Trainer(model, make_optimizer(model, config), config, worker, folder)
    identity = {"seed": seed, **{name: getattr(config, name) for name in ORDER_FIELDS}}
    background, kept = config.async_checkpoints, config.checkpoints_kept
    checkpoints = Checkpoints(folder, kept, worker, background, identity, before_commit)
    done = checkpoints.load_latest(model, trainer.optimizer)
    throughput = Throughput(done, config.steps, worker)
    model.train()
    steps = ahead(map(batches.prepare, range(done, config.steps)), worker.device)
    for step, prepared in enumerate(steps, done):
        torch.manual_seed(stable_seed(seed, "dropout", step, worker.rank))
        result = trainer.step(step, prepared)
        metrics = {"step": step + 1, **result._asdict(), "lr": learning_rate(config, step)}
        metrics |= throughput.update(step + 1, prepared.partition.tokens, prepared.flops)
        predictions = None
        if held_out and _is_due(step, config.validate_every, config):
            predictions = validate(model, held_out, config, worker)
        if worker.rank == 0:
            # Before the checkpoint is written: if the process dies between the two, the step is repeated and not missing.
            report(metrics | (summarize(predictions) if predictions else {}), predictions)
        checkpoints.poll()
        if _is_due(step, config.checkpoint_every, config):
            checkpoints.save(step + 1, (step + 1) * batches.size, model, trainer.optimizer)
    checkpoints.wait()


def _is_due(step: int, every: int, config: Train) -> bool:
    return step + 1 == config.steps or (step + 1) % every == 0


@dataclass(frozen=True, slots=True)
class _Trainer:
    """Optimizer steps on one worker; all workers run them together."""

    model: ValueModel
    optimizer: torch.optim.Optimizer
    config: Train
    worker: Worker
    folder: AnyPath

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
        sum_gradients(self.model, self.worker)
        norm = clip_gradients(self.model, self.config.clip_norm)
        loss, norm = torch.stack([self._total(losses), norm]).tolist()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise self._diverged(step, loss, norm, losses)
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

    def _diverged(self, step: int, loss: float, norm: float, losses: Sequence[MicroLoss]) -> LossDivergedError:
        """The error, after rank 0 has written its details."""
        error = LossDivergedError({"step": step, "loss": loss, "grad_norm": norm, **_suspects(losses, self.worker)})
        if self.worker.rank == 0:
            error.write(self.folder / DIVERGED)
        return error


def _suspects(losses: Sequence[MicroLoss], worker: Worker) -> dict[str, list[str]]:
    """Ids over all workers: `batch`, and `suspects` in micro-batches whose loss is not finite, or the whole batch if none is."""
    suspects = [name for each in losses for name in each.ids if not math.isfinite(each.loss)]
    shares = worker.gather((suspects, [name for each in losses for name in each.ids]))
    batch = [name for _, ids in shares for name in ids]
    return {"suspects": [name for ids, _ in shares for name in ids] or batch, "batch": batch}
