"""train: `labels` -> a value model (Hugging Face folder) by Ray Train; goes on from its last checkpoint after a kill."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import ray.train
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from pipelines.recipes import cli
from pipelines.session import progress, ray_session
from pipelines.stage import UserError, open_stage
from pipelines.tables import parts_of
from vgs_ray.config import Recipe
from vgs_ray.prompts import load_tokenizer
from vgs_ray.sandbox import model_path

REPORTED = ("auc", "brier", "cross_entropy", "auc_start", "auc_end")
HELD_OUT = 1024
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json")


def train_worker(config: dict[str, Recipe]) -> str:
    """One process of the trainer; rank 0 validates, saves and reports.

    Returns:
        Why training cannot go on, or nothing. A loss that diverged would diverge again, so Ray Train must not retry it.
    """
    import torch

    from vgs_ray.value.loader import Examples
    from vgs_ray.value.model import ValueModel
    from vgs_ray.value.train import LossDivergedError, Worker, fit

    recipe, context = config["recipe"], ray.train.get_context()
    settings, folder = recipe.train, recipe.folder / "train"
    worker = Worker(context.get_world_rank(), context.get_world_size(), ray.train.torch.get_device())
    if worker.device.type == "cpu":
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // context.get_local_world_size()))
    labels, roll_ins, roll_outs = (parts_of(recipe, stage).folder for stage in ("label", "roll_in", "roll_out"))
    train, validation = (Examples(labels, roll_ins, roll_outs, split) for split in ("train", "validation"))
    held_out = [validation.example(index) for index in spread(len(validation), HELD_OUT)]
    attention = "flash_attention_2" if worker.device.type == "cuda" else "sdpa"
    model = ValueModel.from_backbone(
        model_path(settings.init), dropout=settings.dropout, seed=recipe.seed, attn_implementation=attention
    ).to(worker.device)
    log = folder / "metrics.jsonl"
    if worker.rank == 0:
        mend(log)

    def report(metrics: dict[str, float]) -> None:
        with log.open("a") as file:
            file.write(json.dumps(metrics) + "\n")

    try:
        fit(model, settings, train, held_out, folder / "checkpoints", recipe.seed, worker, report)
    except LossDivergedError as error:
        return str(error)
    if worker.rank == 0:
        export(model, settings.init, folder / "value_model")
    return ""


def spread(total: int, most: int) -> list[int]:
    """At most `most` positions, evenly over `total`: neighbours belong to one problem, and many problems say more."""
    return [index * total // min(total, most) for index in range(min(total, most))]


def export(model: Any, init: str, folder: Path) -> None:
    """A Hugging Face folder in the layout of the released value model, with its tokenizer; whole or absent."""
    beside = folder.with_name(f".{folder.name}")
    shutil.rmtree(beside, ignore_errors=True)
    model.save_pretrained(beside)
    source = Path(model_path(init))
    if source.is_dir():
        for name in TOKENIZER_FILES:
            if (source / name).exists():
                shutil.copy(source / name, beside / name)
    else:
        load_tokenizer(init).save_pretrained(beside)
    shutil.rmtree(folder, ignore_errors=True)
    beside.rename(folder)


def read_metrics(log: Path) -> list[dict[str, float]]:
    """Rows of metrics.jsonl that are whole; steps that were redone after a kill occur once, as they were redone."""
    by_step: dict[float, dict[str, float]] = {}
    for line in log.read_text().splitlines() if log.exists() else []:
        try:
            row = json.loads(line)
        except json.JSONDecodeError:  # torn by a kill
            continue
        by_step[row["step"]] = row
    return [by_step[step] for step in sorted(by_step)]


def mend(log: Path) -> None:
    """End the line that a kill tore, so that the next row does not become a part of it."""
    if log.exists() and not log.read_bytes().endswith(b"\n"):
        with log.open("a") as file:
            file.write("\n")


def run(recipe: Recipe) -> None:
    config = recipe.train
    stage = open_stage(recipe, "train", inputs=("roll_in", "roll_out", "label"))
    if stage is None:
        return
    log = stage.folder / "metrics.jsonl"
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"recipe": recipe},
        scaling_config=ScalingConfig(
            num_workers=config.workers,
            use_gpu=config.gpus_per_worker > 0,
            resources_per_worker={"CPU": config.cpus_per_worker}
            | ({"GPU": config.gpus_per_worker} if config.gpus_per_worker else {}),
        ),
        run_config=RunConfig(name="ray", storage_path=str(stage.folder), failure_config=FailureConfig(max_failures=2)),
    )
    with ray_session(), progress("train", config.steps, lambda: last_step(log), "step", lambda: shown(log)):
        diverged = trainer.fit().return_value
    if diverged:
        raise UserError(diverged)
    stage.close(**summary(read_metrics(log)))


def summary(rows: list[dict[str, float]]) -> dict[str, Any]:
    """What the manifest says of the whole training: steps, tokens, sequences too long for a label, last validation."""
    validated = [row for row in rows if "auc" in row][-1:]
    return {
        "steps": len(rows),
        "validation": {name: round(row[name], 4) for row in validated for name in REPORTED},
        **{name: int(sum(row.get(name, 0) for row in rows)) for name in ("tokens", "overlong")},
    }


def last_step(log: Path) -> int:
    rows = read_metrics(log)[-1:]
    return int(rows[0]["step"]) if rows else 0


def shown(log: Path) -> str:
    """What the progress line says beside the bar."""
    rows = read_metrics(log)
    if not rows:
        return "starting workers"
    validated = [row for row in rows if "auc" in row][-1:]
    text = f"loss {rows[-1]['loss']:.3f}, {rows[-1]['tokens_per_s']:,.0f} tok/s"
    return text + (f", AUC {validated[0]['auc']:.3f}" if validated else "")


if __name__ == "__main__":
    cli(run, "pipelines.train")
