"""train: train a value model on the table `labels` with Ray Train, and save it as a Hugging Face folder.

Training resumes from its last checkpoint after a failure, and with fewer workers after the loss of a node.
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from tqdm import tqdm

from pipelines.cli import cli
from pipelines.session import progress, ray_session
from pipelines.tables.stage import Stage, open_stage
from pipelines.tables.stage_table import all_rows, stage_table
from vgs_ray.config import Recipe, Train
from vgs_ray.errors import UserError
from vgs_ray.value.publish import check_hub_token, push_to_hub
from vgs_ray.value.training.batches import with_steps
from vgs_ray.value.training.loader import HELD_OUT, open_splits
from vgs_ray.value.training.metrics_log import METRICS_LOG, last_step, progress_text, read_metrics, summarize_run
from vgs_ray.value.training.store import Sources, copy_part, part_copies, write_indexes
from vgs_ray.value.training.trackers import check_trackers

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
    with ray_session(folder=stage.folder):
        with progress("train", None, lambda: 0, note=lambda: "copying the tables"):
            data = build_store(recipe, stage.folder / "store")
        with (
            progress("train", data["steps"], lambda: last_step(log), "step", lambda: progress_text(log), BAR_FORMAT),
            interruptible(),
        ):
            diverged = trainer(recipe).fit().return_value
    if diverged:
        raise UserError(diverged)
    shutil.rmtree(stage.folder / "store")
    stage.close(classes=data["classes"], **summarize_run(read_metrics(log)), too_long=data["too_long"])


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


def build_store(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Copy the tables into the training store, one task per part, and check that training can start.

    Returns:
        `classes`: number of training sequences by class. `too_long`: number of sequences of both splits that are longer than
        `max_length`: `cut` there, or `left_out`. A warning is printed if there are any. `steps`: number of optimizer steps.

    Raises:
        UserError: there is nothing to train on, or nothing to validate on within `max_length`.
    """
    labels, *tokens = stage_table(recipe, "label"), all_rows(recipe, "roll_in"), all_rows(recipe, "roll_out")
    sources = Sources(*(table.files() for table in (labels, *tokens)))
    if not (folder / "index-validation.arrow").exists():
        copy = ray.remote(num_cpus=0.5)(copy_part)
        ray.get([copy.remote(job) for job in part_copies(sources, folder)])
        ray.get(ray.remote(num_cpus=0.5)(write_indexes).remote(sources, folder))
    config = recipe.resolved_train
    train, validation = open_splits(folder, config)
    try:
        classes, steps = train.counts(train.units()), with_steps(config, train).steps
        validation.held_out(HELD_OUT)
    except ValueError as error:
        raise UserError(str(error)) from None
    cut, left_out = (
        sum(int(getattr(split, mask).sum()) for split in (train, validation)) for mask in ("truncated", "left_out")
    )
    if cut or left_out:
        tqdm.write(
            f"warning: {cut + left_out:,} sequences are longer than train.max_length={config.max_length:,} tokens: {cut:,} are "
            f"truncated, {left_out:,} are left out; raise train.max_length to use them whole"
        )
    return {"classes": classes, "too_long": {"cut": cut, "left_out": left_out}, "steps": steps}


def trainer(recipe: Recipe) -> TorchTrainer:
    """Ray Train on the store. A failed worker group is restarted, with fewer workers if the cluster has become smaller."""
    from pipelines.actors.training import train_worker  # loads transformers, which only the workers need

    config = recipe.train
    resources = {"CPU": config.cpus_per_worker}
    if config.gpus_per_worker:
        resources["GPU"] = config.gpus_per_worker
    return TorchTrainer(
        train_worker,
        train_loop_config={"recipe": recipe},
        torch_config=TorchConfig(timeout_s=config.timeout_s),
        scaling_config=ScalingConfig(
            num_workers=num_workers(config), use_gpu=config.gpus_per_worker > 0, resources_per_worker=resources
        ),
        run_config=RunConfig(
            name="ray",
            storage_path=str(recipe.stage_folder("train")),
            failure_config=FailureConfig(max_failures=config.max_failures),
        ),
    )


def num_workers(config: Train) -> Any:
    """A fixed number, or the minimum and the maximum."""
    return (config.min_workers, config.workers) if config.min_workers else config.workers


if __name__ == "__main__":
    cli(run, "pipelines.train")
