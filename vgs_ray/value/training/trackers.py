"""Experiment trackers: TensorBoard, Weights & Biases, MLflow. Only the configured ones are imported."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

Track = Callable[[int, dict[str, float]], None]
PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb", "mlflow": "mlflow"}


def check_trackers(names: Sequence[str], stage: str = "train") -> None:
    """Check before training that the packages of the trackers are installed.

    Args:
        names: names of the trackers.
        stage: stage whose field `trackers` names them.

    Raises:
        ValueError: a package is not installed.
    """
    missing = [name for name in names if find_spec(PACKAGES[name]) is None]
    if missing:
        raise ValueError(
            f"{stage}.trackers names {', '.join(missing)}, whose package is not installed: run pip install '.[tracking]', or "
            f"remove it from {stage}.trackers"
        )


def open_trackers(names: Sequence[str], folder: Path, run_name: str, config: dict[str, Any]) -> Track:
    """A function that sends a step's metrics to each tracker. A resumed run continues its curves.

    Args:
        names: names of the trackers.
        folder: folder for the files of trackers that write files.
        run_name: name of the run.
        config: settings shown with the run.
    """
    opened: list[Track] = []

    def track(step: int, metrics: dict[str, float]) -> None:
        if not opened:  # at the first step, from which on the metrics of a killed run are replaced
            opened.extend(_OPEN[name](folder / name, run_name, config, step) for name in names)
        for each in opened:
            each(step, metrics)

    return track


def _tensorboard(folder: Path, run_name: str, config: dict[str, Any], first: int) -> Track:
    from tensorboardX import SummaryWriter

    writer = SummaryWriter(str(folder), purge_step=first, flush_secs=2)  # a killed worker loses what is not flushed

    def track(step: int, metrics: dict[str, float]) -> None:
        for name, value in metrics.items():
            writer.add_scalar(name, value, step)

    return track


def _wandb(folder: Path, run_name: str, config: dict[str, Any], first: int) -> Track:
    import wandb

    folder.mkdir(parents=True, exist_ok=True)
    run = wandb.init(project="vgs-ray", id=run_name, name=run_name, dir=str(folder), config=config, resume="allow")
    return lambda step, metrics: run.log(metrics, step=step)


def _mlflow(folder: Path, run_name: str, config: dict[str, Any], first: int) -> Track:
    import mlflow

    mlflow.set_experiment("vgs-ray")
    runs = mlflow.search_runs(filter_string=f"run_name = '{run_name}'", output_format="list", max_results=1)
    mlflow.start_run(run_id=runs[0].info.run_id if runs else None, run_name=run_name)
    if not runs:
        mlflow.log_params(config)
    return lambda step, metrics: mlflow.log_metrics(metrics, step=step)


_OPEN = {"tensorboard": _tensorboard, "wandb": _wandb, "mlflow": _mlflow}
