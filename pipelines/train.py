"""train: `labels` -> a value model (Hugging Face folder) by Ray Train; goes on from its last checkpoint after a kill, and
with fewer workers after the loss of a node."""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
import ray.train
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from tqdm import tqdm

from pipelines.cli import cli
from pipelines.session import progress, ray_session
from pipelines.tables.stage import open_stage
from pipelines.tables.stage_table import stage_table
from vgs_ray.config import Recipe, Train
from vgs_ray.errors import UserError
from vgs_ray.models import model_path
from vgs_ray.value.training.metrics_log import (
    append_metrics,
    last_step,
    progress_text,
    read_metrics,
    repair_log,
    summarize_run,
)

if TYPE_CHECKING:
    from vgs_ray.value.training.loader import Examples

HELD_OUT = 1024
LINE = "{desc}{percentage:3.0f}% {n_fmt}/{total_fmt}{postfix}"


def train_worker(config: dict[str, Recipe]) -> str:
    """One process of the trainer; all validate and save together, and rank 0 reports.

    Returns:
        Why training cannot go on, or nothing. A loss that diverged would diverge again, so Ray Train must not retry it.
    """
    import torch

    from vgs_ray.value.attention import choose_attention, choose_layout
    from vgs_ray.value.model import ValueModel
    from vgs_ray.value.publish import model_card, save_value_model
    from vgs_ray.value.training.loop import DIVERGED, LossDivergedError, fit
    from vgs_ray.value.training.metrics import Predictions
    from vgs_ray.value.training.parallel import Worker, whole_weights
    from vgs_ray.value.training.trackers import open_trackers
    from vgs_ray.value.training.validation_report import write_validation

    recipe, context = config["recipe"], ray.train.get_context()
    settings, folder = recipe.resolved_train, recipe.folder / "train"
    device = ray.train.torch.get_device()
    attention = choose_attention(settings.attention, device, settings.attention_dropout)
    worker = Worker(context.get_world_rank(), context.get_world_size(), device, choose_layout(attention, device))
    if worker.device.type == "cpu":
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // context.get_local_world_size()))
    train, validation = open_examples(folder / "store", settings)
    held_out = validation.held_out(HELD_OUT)
    model = ValueModel.from_backbone(
        model_path(settings.init), settings.num_labels, settings.dropout, recipe.seed, attn_implementation=attention,
        attention_dropout=settings.attention_dropout,
    ).to(worker.device)  # fmt: skip
    log, run_name = folder / "metrics.jsonl", recipe.folder.name
    track = open_trackers(settings.trackers, folder, run_name, asdict(settings))
    if worker.rank == 0:
        repair_log(log)

    def report(metrics: dict[str, float], predictions: Predictions | None) -> None:
        append_metrics(log, {**metrics, "workers": worker.world})
        track(int(metrics["step"]), metrics)
        if predictions:
            write_validation(predictions, int(metrics["step"]), settings.position_bin, folder)

    try:
        examples = [validation.example(index) for index in held_out]
        fit(model, settings, train, examples, folder / "checkpoints", recipe.seed, worker, report)
    except LossDivergedError as error:
        return f"{error}; {folder / 'checkpoints' / DIVERGED} has all ids"
    weights = whole_weights(model)
    if worker.rank == 0:
        validated = [row for row in read_metrics(log) if "auc" in row]
        data = {"train": train.counts(train.units()), "validation": validation.counts(held_out)}
        card = model_card(run_name, asdict(settings), (validated or [{}])[-1], data)
        save_value_model(model, weights, settings.init, card, folder / "value_model")
    return ""


def open_examples(store: Path, config: Train) -> tuple[Examples, Examples]:
    """Those of the train and of the validation split."""
    from vgs_ray.value.training.loader import Examples

    train, validation = (Examples(store, split, config.loss, config.max_length) for split in ("train", "validation"))
    return train, validation


def build_store(recipe: Recipe, folder: Path) -> dict[str, dict[str, int]]:
    """Tables to the memory-mapped store, a task for each part; then check what would stop the first step.

    Returns:
        `classes`: the sequences that are trained on, by class. `too_long`: those of both splits that are longer than
        `max_length`, by what becomes of them; a line says so where there are any.

    Raises:
        UserError: there is nothing to train on, or nothing to validate on within the longest length.
    """
    from vgs_ray.value.training.store import Sources, copy_part, part_copies, write_indexes

    sources = Sources(*(stage_table(recipe, stage).part_files() for stage in ("label", "roll_in", "roll_out")))
    if not (folder / "index-validation.arrow").exists():
        copy = ray.remote(num_cpus=0.5)(copy_part)
        ray.get([copy.remote(job) for job in part_copies(sources, folder)])
        ray.get(ray.remote(num_cpus=0.5)(write_indexes).remote(sources, folder))
    config = recipe.resolved_train
    both = train, validation = open_examples(folder, config)
    try:
        classes = train.counts(train.units())
        validation.held_out(HELD_OUT)
    except ValueError as error:
        raise UserError(str(error)) from None
    too_long = {name: int(sum(getattr(split, name).sum() for split in both)) for name in ("cut", "left_out")}
    if any(too_long.values()):
        tqdm.write(
            f"warning: {sum(too_long.values()):,} sequences are longer than {config.max_length:,} tokens (train.max_length): "
            f"{too_long['cut']:,} are cut there, {too_long['left_out']:,} are left out; raise train.max_length to take them whole"
        )
    return {"classes": classes, "too_long": too_long}


def run(recipe: Recipe) -> None:
    from vgs_ray.value.publish import check_hub_token, push_to_hub
    from vgs_ray.value.training.trackers import check_trackers

    config = recipe.train
    stage = open_stage(recipe, "train", inputs=("roll_in", "roll_out", "label"))
    if stage is None:
        return
    try:
        check_trackers(config.trackers)
        check_hub_token(config.push_to)
    except ValueError as error:
        raise UserError(str(error)) from None
    log = stage.folder / "metrics.jsonl"
    with (
        ray_session(folder=stage.folder),
        progress("train", config.steps, lambda: last_step(log), "step", lambda: progress_text(log), LINE),
    ):
        data = build_store(recipe, stage.folder / "store")
        diverged = trainer(recipe).fit().return_value
    if diverged:
        raise UserError(diverged)
    if config.push_to:
        push_to_hub(stage.folder / "value_model", config.push_to)
    shutil.rmtree(stage.folder / "store")
    stage.close(classes=data["classes"], **summarize_run(read_metrics(log)), too_long=data["too_long"])


def trainer(recipe: Recipe) -> TorchTrainer:
    """Ray Train on the store; a worker group that fails is started anew, with as many workers as there is room for."""
    config = recipe.train
    resources = {"CPU": config.cpus_per_worker}
    if config.gpus_per_worker:
        resources["GPU"] = config.gpus_per_worker
    return TorchTrainer(
        train_worker,
        train_loop_config={"recipe": recipe},
        torch_config=TorchConfig(timeout_s=config.timeout_s),
        scaling_config=ScalingConfig(
            num_workers=workers(config), use_gpu=config.gpus_per_worker > 0, resources_per_worker=resources
        ),
        run_config=RunConfig(
            name="ray",
            storage_path=str(recipe.folder / "train"),
            failure_config=FailureConfig(max_failures=config.max_failures),
        ),
    )


def workers(config: Train) -> Any:
    """A number, or the least and the most."""
    return (config.min_workers, config.workers) if config.min_workers else config.workers


if __name__ == "__main__":
    cli(run, "pipelines.train")
