"""Curves of a training run: TensorBoard, Weights & Biases, MLflow. Only what is asked for is imported."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

Track = Callable[[int, dict[str, float]], None]
PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb", "mlflow": "mlflow"}


def check_trackers(names: Sequence[str]) -> None:
    """Find out before training, not in it.

    Raises:
        ValueError: a tracker's package is not installed.
    """
    missing = [name for name in names if find_spec(PACKAGES[name]) is None]
    if missing:
        raise ValueError(
            f"train.trackers names {', '.join(missing)}, whose package is not installed: pip install '.[tracking]', or leave "
            "it out of train.trackers"
        )


def open_trackers(names: Sequence[str], folder: Path, run_name: str, config: dict[str, Any]) -> Track:
    """A function that sends a step's numbers to each tracker. A resumed run continues its curves.

    Args:
        names: of the trackers.
        folder: of the files of those that write files.
        run_name: what the run is called there.
        config: shown with the run.
    """
    opened: list[Track] = []

    def track(step: int, metrics: dict[str, float]) -> None:
        if not opened:  # only now is the first step known; what a killed run wrote from there on is replaced
            opened.extend(_OPEN[name](folder / name, run_name, config, step) for name in names)
        for each in opened:
            each(step, metrics)

    return track


def _tensorboard(folder: Path, run_name: str, config: dict[str, Any], first: int) -> Track:
    from tensorboardX import SummaryWriter

    writer = SummaryWriter(str(folder), purge_step=first, flush_secs=2)  # a killed worker loses what waits

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
    found = mlflow.search_runs(filter_string=f"run_name = '{run_name}'", output_format="list", max_results=1)
    mlflow.start_run(run_id=found[0].info.run_id if found else None, run_name=run_name)
    if not found:
        mlflow.log_params(config)
    return lambda step, metrics: mlflow.log_metrics(metrics, step=step)


_OPEN = {"tensorboard": _tensorboard, "wandb": _wandb, "mlflow": _mlflow}
