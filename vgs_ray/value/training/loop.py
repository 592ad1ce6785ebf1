"""The training loop of the value model, on torch.distributed and without Ray.

In: a model, ordered training examples, held-out examples. Out: metrics through `report`, checkpoints, the trained model. A step
depends only on the configuration and its number, so a resumed run equals an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from vgs_ray.config import Train
from vgs_ray.data.files import write_json
from vgs_ray.data.ids import stable_seed
from vgs_ray.data.storage import AnyPath, is_local
from vgs_ray.value.model import ValueModel
from vgs_ray.value.packing import Example
from vgs_ray.value.training.batches import Batches
from vgs_ray.value.training.checkpoint import Checkpoints
from vgs_ray.value.training.feed import ahead
from vgs_ray.value.training.loader import Examples
from vgs_ray.value.training.metrics import Predictions, summarize
from vgs_ray.value.training.optimizer import learning_rate, make_optimizer
from vgs_ray.value.training.parallel import Worker, prepare
from vgs_ray.value.training.step import LossDivergedError, Trainer
from vgs_ray.value.training.throughput import Throughput, training_flops
from vgs_ray.value.training.validation import validate

Report = Callable[[dict[str, float], Predictions | None], None]
DIVERGED = "diverged.json"
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
        config: settings of the training, with its number of steps (`vgs_ray.value.training.number_of_steps.with_steps`).
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
    trainer = Trainer(model, make_optimizer(model, config), config, worker)
    identity = {"seed": seed, **{name: getattr(config, name) for name in ORDER_FIELDS}}
    background, kept = config.async_checkpoints, config.checkpoints_kept
    checkpoints = Checkpoints(folder, kept, worker, background, identity, before_commit)
    done = checkpoints.load_latest(model, trainer.optimizer)
    throughput = Throughput(done, config.steps, worker)
    model.train()
    steps = ahead(map(batches.prepare, range(done, config.steps)), worker.device)
    for step, prepared in enumerate(steps, done):
        torch.manual_seed(stable_seed(seed, "dropout", step, worker.rank))
        try:
            result = trainer.step(step, prepared)
        except LossDivergedError as error:
            if worker.rank == 0:
                _write_details(error, folder / DIVERGED)
            raise
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


def _write_details(error: LossDivergedError, file: AnyPath) -> None:
    """Write the details as JSON, with the loss and the gradient norm as strings."""
    if is_local(file):
        file.parent.mkdir(parents=True, exist_ok=True)
    numbers = {name: str(error.details[name]) for name in ("loss", "grad_norm")}
    write_json(file, error.details | numbers)
