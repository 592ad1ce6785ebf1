"""Training on pairs and paths in two processes, with and without sharding: equal to one process, also if it is resumed."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_tune import CONFIG, Row, stop_at, weights_of
from torch.distributed.tensor import DTensor
from toy import in_processes
from toy_pairs import make_policy, write_store

from vgs_ray.value.training.parallel import Worker
from vgs_ray.value.tuning.checkpoints import open_checkpoints
from vgs_ray.value.tuning.run import tune

PLAIN = replace(CONFIG, dropout=0.0)
VARIANTS = {
    "sharded": PLAIN,
    "gathered": replace(PLAIN, reshard=False, activations="checkpoint"),
    "copies": replace(PLAIN, shard_size=1),
    "frozen": replace(PLAIN, loss="none"),
}
METRICS = ("loss", "grad_norm", "path_mse", "value_mse", "validation_loss", "validation_node_mse")


def train(worker: Worker, folder: Path, init: str, store: Path, names: list[str], stop: int = 0) -> None:
    """Rank 0 writes the metrics and the weights of each variant, or stops at a step."""
    if worker.world > 1:
        rank, world = str(worker.rank), str(worker.world)
        os.environ.update(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=world, LOCAL_WORLD_SIZE=world)
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="0")  # the group exists already
    for name in names:
        rows: list[Row] = []
        config = replace(VARIANTS[name], init=init, workers=worker.world)
        with open_checkpoints(folder / name, lambda: None) as checkpoints, suppress(InterruptedError):
            trainer = tune(config, store, checkpoints, 0, worker.world, stop_at(stop, rows))
            weights = weights_of(trainer)
            models = [trainer.policy_value.policy, *([trainer.ref_model] if trainer.ref_model else [])]
            local = [sum(local_size(weight) for weight in model.parameters()) for model in models]
            if worker.rank == 0:
                torch.save((rows, weights, local), folder / f"{name}.pt")


def local_size(weight: torch.Tensor) -> int:
    """Numbers of a weight that this process holds."""
    return (weight.to_local() if isinstance(weight, DTensor) else weight).numel()


def check_equal(file: Path, expected: Path) -> None:
    """The metrics of the steps that `file` has, and the weights."""
    (rows, weights, _), (all_rows, whole, _) = torch.load(file), torch.load(expected)
    for row, one in zip(rows, all_rows[-len(rows) :], strict=True):
        assert row["step"] == one["step"]
        assert [row.get(name, 0) for name in METRICS] == pytest.approx([one.get(name, 0) for name in METRICS], abs=1e-4)
    for name, weight in whole.items():
        torch.testing.assert_close(weights[name], weight, atol=1e-4, rtol=1e-3)


def test_two_workers_train_as_one_and_resume_as_one(tmp_path: Path) -> None:
    init, store = make_policy(tmp_path / "policy"), write_store(tmp_path)
    assert in_processes(2, train, tmp_path / "two", init, store, list(VARIANTS)) == [0, 0]
    in_processes(2, train, tmp_path / "resumed", init, store, ["sharded"], 5)  # after the checkpoint of step 3
    assert in_processes(1, train, tmp_path / "one", init, store, ["sharded", "frozen"]) == [0]
    assert in_processes(1, train, tmp_path / "resumed", init, store, ["sharded"]) == [0]
    for name in VARIANTS:
        check_equal(tmp_path / f"two/{name}.pt", tmp_path / f"one/{'frozen' if name == 'frozen' else 'sharded'}.pt")
    check_equal(tmp_path / "resumed/sharded.pt", tmp_path / "one/sharded.pt")
    assert torch.load(tmp_path / "resumed/sharded.pt")[0][0]["step"] == 4
    halves, wholes = torch.load(tmp_path / "two/sharded.pt")[2], torch.load(tmp_path / "one/sharded.pt")[2]
    assert halves[0] == pytest.approx(wholes[0] / 2, rel=0.01)
    assert halves[1] < 0.65 * wholes[1]  # the embeddings of the reference stay gathered
