"""What each worker of Ray Train runs in stage tune: the training, the log of rank 0, and the saved model."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray.train
import torch

from vgs_ray.config import Recipe, Tune
from vgs_ray.value.policy_value import PolicyValueModel
from vgs_ray.value.training.metrics_log import METRICS_LOG, append_metrics, read_metrics, repair_log
from vgs_ray.value.training.trackers import open_trackers
from vgs_ray.value.tuning.diverged import TuneDivergedError
from vgs_ray.value.tuning.metrics import last_validation
from vgs_ray.value.tuning.pairs import count_pairs
from vgs_ray.value.tuning.publish import save_policy_value
from vgs_ray.value.tuning.run import tune
from vgs_ray.value.tuning.trainer import Report


def tune_worker(config: dict[str, Recipe]) -> str:
    """Train on one worker; rank 0 writes the model.

    Returns:
        Why the training diverged, or an empty string. This is not an error, because Ray Train would retry, and diverge again.
    """
    recipe = config["recipe"]
    settings, folder = recipe.resolved_tune, recipe.stage_folder("tune")
    context = ray.train.get_context()
    if not settings.gpus_per_worker:  # the workers of a node share its cores
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // context.get_local_world_size()))
    report = _reporter(recipe, settings, folder) if context.get_world_rank() == 0 else _ignore
    try:
        trainer = tune(
            settings, folder / "store", folder / "checkpoints", recipe.seed, context.get_world_size(), report
        )
    except TuneDivergedError as error:
        return str(error)
    weights = trainer.whole_weights()
    if context.get_world_rank() == 0:
        _save(trainer.policy_value, weights, recipe, settings, folder)
    return ""


def _ignore(metrics: dict[str, float]) -> None:
    """Only rank 0 reports."""


def _reporter(recipe: Recipe, settings: Tune, folder: Path) -> Report:
    """A function that writes a step's metrics to the log and the trackers."""
    track = open_trackers(settings.trackers, folder, recipe.folder.name, asdict(settings))
    repair_log(folder / METRICS_LOG)

    def report(metrics: dict[str, float]) -> None:
        append_metrics(folder / METRICS_LOG, metrics)
        track(int(metrics["step"]), metrics)

    return report


def _save(model: PolicyValueModel, weights: dict[str, Any], recipe: Recipe, settings: Tune, folder: Path) -> None:
    validation = last_validation(read_metrics(folder / METRICS_LOG))
    save_policy_value(
        model,
        weights,
        asdict(settings),
        recipe.folder.name,
        validation,
        count_pairs(folder / "store"),
        folder / "model",
    )
