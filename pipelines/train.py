"""train: train a value model on the table `labels` with Ray Train, and save it as a Hugging Face folder.

Training resumes from its last checkpoint after a failure, and with fewer workers after the loss of a node.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from tqdm import tqdm
from upath import UPath

from pipelines.cli import cli
from pipelines.placement import check_worker_nodes, worker_options
from pipelines.progress import Watched, progress
from pipelines.session import ray_session
from pipelines.tables.node_store import NodeStore
from pipelines.tables.stage import Stage, open_stage
from pipelines.tables.token_store import open_tokens, token_store
from vgs_ray.config import Recipe, Train, Tune
from vgs_ray.config.node_labels import selector
from vgs_ray.data.parquet import arrow_file
from vgs_ray.errors import UserError
from vgs_ray.fast_imports import fast_imports
from vgs_ray.value.publish import check_hub_token, push_to_hub
from vgs_ray.value.shared import new_head
from vgs_ray.value.training.loader import HELD_OUT, open_splits
from vgs_ray.value.training.metrics_log import METRICS_LOG, last_step, progress_text, read_metrics, summarize_run
from vgs_ray.value.training.number_of_steps import with_steps
from vgs_ray.value.training.trackers import check_trackers

if TYPE_CHECKING:
    from ray.train.torch import TorchTrainer

BAR_FORMAT = "{desc}{percentage:3.0f}% {n_fmt}/{total_fmt}{postfix}"


def run(recipe: Recipe) -> None:
    config = recipe.train
    stage = open_stage(recipe, "train", inputs=("roll_in", "roll_out", "label"), earlier=("roll_in", "roll_out"))
    try:
        check_hub_token(config.push_to)
        if stage is not None:
            check_trackers(config.trackers)
    except ValueError as error:
        raise UserError(str(error)) from None
    if stage is not None:
        train_value_model(recipe, stage)
    if config.push_to:  # also for a model that was finished earlier
        push_to_hub(recipe.stage_folder("train") / "value_model", config.push_to)


def train_value_model(recipe: Recipe, stage: Stage) -> None:
    """Train and complete the stage.

    Raises:
        UserError: the data can't be trained on, or the loss diverged.
    """
    log = stage.folder / METRICS_LOG
    with ray_session(folder=stage.folder, nodes=stage.nodes):
        store = token_store(recipe)
        with progress("train", None, lambda: 0, note=lambda: "copying the tables", watch=Watched(stage.folder)):
            data = prepare(recipe, store)
        watch = Watched(stage.folder, uuid4().hex)
        with (
            progress(
                "train", data.steps, lambda: last_step(log), "step", lambda: progress_text(log), BAR_FORMAT, watch
            ),
            interruptible(),
        ):
            diverged = trainer(recipe, store, watch.token).fit().return_value
        if diverged:
            raise UserError(diverged)
        store.remove()
    stage.close(classes=data.classes, **summarize_run(read_metrics(log)), too_long=data.too_long)


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise KeyboardInterrupt on Ctrl-C. Ray Train aborts the run, but exits with status 0, and keeps its signal handler."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as stop:
        raise KeyboardInterrupt from stop
    finally:
        signal.signal(signal.SIGINT, handler)


class TrainingData(NamedTuple):
    """What the tables give for training.

    Attributes:
        classes: number of training sequences by class.
        too_long: number of sequences of both splits that are longer than `max_length`: `cut` there, or `left_out`.
        steps: number of optimizer steps.
    """

    classes: dict[str, int]
    too_long: dict[str, int]
    steps: int


def prepare(recipe: Recipe, store: NodeStore) -> TrainingData:
    """Copy the tables to one node, and check there that training can start. A warning is printed if sequences are too long.

    Raises:
        UserError: there is nothing to train on, or nothing to validate on within `max_length`.
    """
    config = recipe.resolved_train
    check_worker_nodes("train", config)
    # With the resources of a worker, so that the copy is on a node that is likely to train.
    task = ray.remote(**worker_options(config))(training_data)
    data: TrainingData = ray.get(task.remote(recipe, store))
    cut, left_out = data.too_long["cut"], data.too_long["left_out"]
    if cut or left_out:
        tqdm.write(
            f"warning: {cut + left_out:,} sequences are longer than train.max_length={config.max_length:,} tokens: {cut:,} are "
            f"truncated, {left_out:,} are left out; raise train.max_length to use them whole"
        )
    return data


def training_data(recipe: Recipe, store: NodeStore) -> TrainingData:
    """Counts of a store, after building it.

    Raises:
        UserError: there is nothing to train on, nothing to validate on within `max_length`, or layers can't be shared.
    """
    config = recipe.resolved_train
    train, validation = open_splits(open_tokens(store), config)
    try:
        classes, steps = train.counts(train.units()), with_steps(config, train).steps
        validation.held_out(HELD_OUT)
        if config.share_policy:
            new_head(config)
    except ValueError as error:
        raise UserError(str(error)) from None
    cut, left_out = (
        sum(int(getattr(split, mask).sum()) for split in (train, validation)) for mask in ("truncated", "left_out")
    )
    return TrainingData(classes, {"cut": cut, "left_out": left_out}, steps)


def trainer(recipe: Recipe, store: NodeStore, tally: str = "") -> TorchTrainer:
    """Ray Train on the store. A failed worker group is restarted, with fewer workers if the cluster has become smaller.

    Workers report to the tally with this token, if it is given.
    """
    with fast_imports():
        from ray.train.torch import TorchConfig, TorchTrainer  # loads torch, which skipped stages do not need

    config = recipe.train
    return TorchTrainer(
        _train_worker,
        train_loop_config={"recipe": recipe, "store": store, "tally": tally},
        torch_config=TorchConfig(timeout_s=config.timeout_s),
        scaling_config=scaling_config(config, num_workers(config)),
        run_config=run_config(recipe.stage_folder("train"), config.max_failures),
    )


def _train_worker(config: dict[str, Any]) -> str:
    with fast_imports():
        from pipelines.actors.training import train_worker  # loads transformers, which only the workers need

    return train_worker(config)


def scaling_config(config: Train | Tune, workers: int | tuple[int, int]) -> ScalingConfig:
    """The workers of a stage, each with its CPUs, GPUs and nodes."""
    resources = {"CPU": config.cpus_per_worker}
    if config.gpus_per_worker:
        resources["GPU"] = config.gpus_per_worker
    return ScalingConfig(
        num_workers=workers,
        use_gpu=config.gpus_per_worker > 0,
        resources_per_worker=resources,
        label_selector=selector(config.nodes) or None,
    )


def run_config(stage: UPath, max_failures: int) -> RunConfig:
    """Ray Train's state in the folder of a stage."""
    system, path = arrow_file(stage)
    failures = FailureConfig(max_failures=max_failures)
    return RunConfig(name="ray", storage_path=path, storage_filesystem=system, failure_config=failures)


def num_workers(config: Train) -> int | tuple[int, int]:
    """A fixed number, or the minimum and the maximum."""
    return (config.min_workers, config.workers) if config.min_workers else config.workers


if __name__ == "__main__":
    cli(run, "pipelines.train")
