"""What each worker of Ray Train runs: the training loop, the log of rank 0, and the saved value model."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray.train
import ray.train.collective
import ray.train.torch
import torch

from pipelines.actors.replica import Replica
from pipelines.tables.token_store import open_tokens
from vgs_ray.config import Recipe, Train
from vgs_ray.data.mirror import Mirror, mirrored
from vgs_ray.models import model_path
from vgs_ray.value.attention import choose_attention, choose_layout
from vgs_ray.value.model import ValueModel
from vgs_ray.value.publish import model_card, save_value_model
from vgs_ray.value.shared import new_head, save_shared
from vgs_ray.value.training.loader import HELD_OUT, open_splits
from vgs_ray.value.training.loop import DIVERGED, Report, fit
from vgs_ray.value.training.metrics import Predictions
from vgs_ray.value.training.metrics_log import (
    METRICS_LOG,
    REPORTED,
    append_metrics,
    last_validation,
    read_metrics,
    repair_log,
)
from vgs_ray.value.training.number_of_steps import with_steps
from vgs_ray.value.training.parallel import Worker, whole_weights
from vgs_ray.value.training.step import LossDivergedError
from vgs_ray.value.training.trackers import open_trackers
from vgs_ray.value.training.validation_report import write_validation


def train_worker(config: dict[str, Any]) -> str:
    """Train on one worker; all workers validate and save checkpoints together.

    Args:
        config: `recipe`, the `store` of the tokens, and the token of the `tally`.

    Returns:
        Why the loss diverged, or an empty string. This is not an error, because Ray Train would retry, and diverge again.
    """
    recipe: Recipe = config["recipe"]
    Replica(config["tally"], recipe.train.gpus_per_worker)
    tokens = open_tokens(config["store"])
    ray.train.collective.barrier()  # copying may take longer than the limit of torch's collectives
    with mirrored(recipe.stage_folder("train"), existing=[METRICS_LOG]) as mirror:
        return _train(recipe, tokens, mirror)


def _train(recipe: Recipe, tokens: Path, mirror: Mirror) -> str:
    folder, device = recipe.stage_folder("train"), ray.train.torch.get_device()
    train, validation = open_splits(tokens, recipe.resolved_train)
    settings = with_steps(recipe.resolved_train, train)
    attention = choose_attention(settings.attention, device, settings.attention_dropout, settings.micro_tokens)
    worker = _worker(device, attention, settings.bf16)
    held_out = validation.held_out(HELD_OUT)
    model = ValueModel.from_backbone(
        model_path(settings.init), settings.num_labels, settings.dropout, recipe.seed, attn_implementation=attention,
        attention_dropout=settings.attention_dropout,
    ).to(device)  # fmt: skip
    try:
        examples = [validation.example(index) for index in held_out]
        report = _reporter(settings, mirror.folder, folder.parent.name, worker)
        checkpoints = folder / "checkpoints"
        fit(model, settings, train, examples, checkpoints, recipe.seed, worker, report, mirror.copy)
    except LossDivergedError as error:
        return f"{error}; {folder / 'checkpoints' / DIVERGED} lists all ids"
    weights = whole_weights(model)
    if worker.rank == 0:
        counts = {"train": train.counts(train.units()), "validation": validation.counts(held_out)}
        card = _card(settings, mirror.folder, folder.parent.name, counts)
        if settings.share_policy:
            save_shared(weights, new_head(settings), settings.init, card, folder / "value_model")
        else:
            save_value_model(model, weights, settings.init, card, folder / "value_model")
    return ""


def _worker(device: torch.device, attention: str, bf16: bool) -> Worker:
    """This process; on a CPU the workers of a node share its cores."""
    context = ray.train.get_context()
    if device.type == "cpu":
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // context.get_local_world_size()))
    rank, world = context.get_world_rank(), context.get_world_size()
    return Worker(rank, world, device, choose_layout(attention, device), bf16)


def _reporter(settings: Train, folder: Path, run_name: str, worker: Worker) -> Report:
    """A function that writes a step's metrics to the log and the trackers, and the files of a validation."""
    track = open_trackers(settings.trackers, folder, run_name, asdict(settings))
    if worker.rank == 0:
        repair_log(folder / METRICS_LOG)

    def report(metrics: dict[str, float], predictions: Predictions | None) -> None:
        append_metrics(folder / METRICS_LOG, {**metrics, "workers": worker.world})
        track(int(metrics["step"]), metrics)
        if predictions:
            write_validation(predictions, int(metrics["step"]), settings.position_bin, folder)

    return report


def _card(settings: Train, folder: Path, run_name: str, counts: dict[str, dict[str, int]]) -> str:
    """The model card, with the metrics of the last validation."""
    last = last_validation(read_metrics(folder / METRICS_LOG))
    metrics = {name: last[name] for name in REPORTED if name in last}
    return model_card(run_name, asdict(settings), int(last.get("step", 0)), metrics, counts)
