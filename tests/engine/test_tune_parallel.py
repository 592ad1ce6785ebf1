"""Training on pairs and paths in two processes: equal to one process."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_tune import CONFIG, Row, weights_of
from toy import in_processes
from toy_pairs import make_policy, write_store

from vgs_ray.config import Tune
from vgs_ray.value.training.parallel import Worker
from vgs_ray.value.tuning.checkpoints import open_checkpoints
from vgs_ray.value.tuning.run import tune

PLAIN = replace(CONFIG, dropout=0.0, epochs=1)


def train(worker: Worker, folder: Path, config: Tune, store: Path) -> None:
    """Rank 0 writes the loss of each step and the weights."""
    if worker.world > 1:
        rank, world = str(worker.rank), str(worker.world)
        os.environ.update(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=world, LOCAL_WORLD_SIZE=world)
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="0")  # the group exists already
    rows: list[Row] = []
    with open_checkpoints(folder / "checkpoints", lambda: None) as checkpoints:
        trainer = tune(replace(config, workers=worker.world), store, checkpoints, 0, worker.world, rows.append)
    weights = weights_of(trainer)
    if worker.rank == 0:
        torch.save((rows, weights), folder / "result.pt")


def result(folder: Path) -> tuple[list[Row], dict[str, torch.Tensor]]:
    return torch.load(folder / "result.pt")


def test_two_workers_train_as_one(tmp_path: Path) -> None:
    config, store = replace(PLAIN, init=make_policy(tmp_path / "policy")), write_store(tmp_path)
    assert in_processes(1, train, tmp_path / "one", config, store) == [0]
    assert in_processes(2, train, tmp_path / "two", config, store) == [0, 0]
    (rows, weights), (expected, whole) = result(tmp_path / "two"), result(tmp_path / "one")
    names = ("loss", "path_mse", "value_mse", "validation_loss", "validation_node_mse")
    for row, one in zip(rows, expected, strict=True):
        assert [row.get(name, 0) for name in names] == pytest.approx([one.get(name, 0) for name in names], abs=1e-5)
    for name, weight in whole.items():
        torch.testing.assert_close(weights[name], weight, atol=1e-5, rtol=1e-4)
