"""What each worker of Ray Train runs in stage tune: the training, the log of rank 0, and the saved model."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray.train
import ray.train.collective
import torch

from pipelines.actors.replica import Replica
from pipelines.tables.pair_store import open_pair_store
from vgs_ray.config import Recipe, Tune
from vgs_ray.data.mirror import Mirror, mirrored
from vgs_ray.value.training.metrics_log import METRICS_LOG, append_metrics, read_metrics, repair_log
from vgs_ray.value.training.trackers import open_trackers
from vgs_ray.value.tuning.checkpoints import open_checkpoints
from vgs_ray.value.tuning.diverged import TuneDivergedError
from vgs_ray.value.tuning.metrics import last_validation
from vgs_ray.value.tuning.pairs import count_pairs
from vgs_ray.value.tuning.publish import save_policy_value
from vgs_ray.value.tuning.run import tune
from vgs_ray.value.tuning.stored_paths import count_paths
from vgs_ray.value.tuning.trainer import Report


def tune_worker(config: dict[str, Any]) -> str:
    """Train on one worker; rank 0 writes the model.

    Args:
        config: `recipe`, the `store` of the pairs and paths, and the token of the `tally`.

    Returns:
        Why the training diverged, or an empty string. This is not an error, because Ray Train would retry, and diverge again.
    """
    recipe: Recipe = config["recipe"]
    Replica(config["tally"], recipe.tune.gpus_per_worker)
    store = open_pair_store(recipe, config["store"])
    ray.train.collective.barrier()  # copying may take longer than the limit of torch's collectives
    with mirrored(recipe.stage_folder("tune"), existing=[METRICS_LOG]) as mirror:
        return _tune(recipe, store, mirror)


def _tune(recipe: Recipe, store: Path, mirror: Mirror) -> str:
    settings, folder = recipe.resolved_tune, recipe.stage_folder("tune")
    context = ray.train.get_context()
    rank, workers = context.get_world_rank(), context.get_world_size()
    if not settings.gpus_per_worker:  # the workers of a node share its cores
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // context.get_local_world_size()))
    report = _ignore if rank else _reporter(settings, recipe.folder.name, mirror.folder)
    with open_checkpoints(folder / "checkpoints", mirror.copy) as checkpoints:
        try:
            trainer = tune(settings, store, checkpoints, recipe.seed, workers, report)
        except TuneDivergedError as error:
            return str(error)
    weights = trainer.whole_weights()
    if rank == 0:
        validation = last_validation(read_metrics(mirror.folder / METRICS_LOG))
        counts = {"pairs": count_pairs(store), "paths": count_paths(store)}
        model, name = trainer.policy_value, recipe.folder.name
        save_policy_value(model, weights, asdict(settings), name, validation, counts, folder / "model")
    return ""


def _ignore(metrics: dict[str, float]) -> None:
    """Only rank 0 reports."""


def _reporter(settings: Tune, run_name: str, folder: Path) -> Report:
    """A function that writes a step's metrics to the log and the trackers."""
    track = open_trackers(settings.trackers, folder, run_name, asdict(settings))
    repair_log(folder / METRICS_LOG)

    def report(metrics: dict[str, float]) -> None:
        append_metrics(folder / METRICS_LOG, metrics)
        track(int(metrics["step"]), metrics)

    return report
