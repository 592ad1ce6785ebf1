"""Paths as targets of the value in stage tune: their loss, their order, and bad input."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_tune import CONFIG, ignore, run
from toy_pairs import LONGEST, VOCABULARY, make_policy, path_rows, write_store

from vgs_ray.errors import UserError
from vgs_ray.value.tuning.diverged import TuneDivergedError
from vgs_ray.value.tuning.losses import PairLosses, path_errors
from vgs_ray.value.tuning.metrics import NodeValues, summarize_nodes
from vgs_ray.value.tuning.paths import PathOrder, ValuePaths
from vgs_ray.value.tuning.stored_paths import count_paths

number = st.floats(-1, 1, width=32)


@given(st.lists(st.lists(st.tuples(number, number), min_size=1, max_size=4), min_size=1, max_size=5))
def test_the_error_of_a_path_is_the_mean_over_its_nodes(paths: list[list[tuple[float, float]]]) -> None:
    rows = torch.tensor([row for row, path in enumerate(paths) for _ in path])
    values, q = torch.tensor([node for path in paths for node in path], dtype=torch.float64).T
    expected = [sum((v - w) ** 2 for v, w in path) / len(path) for path in paths]
    assert path_errors(values, q, rows, len(paths)).tolist() == pytest.approx(expected)


def test_the_squared_error_is_the_mean_over_sides_and_paths() -> None:
    losses = PairLosses(torch.zeros(2), torch.tensor([1.0, 2.0]), torch.zeros(2))
    assert losses.total(0.0, 1.0, 0.0, torch.tensor([9.0])).item() == pytest.approx((1 + 1 + 2 + 2 + 9) / 5)


def test_each_path_is_once_in_an_epoch_with_any_number_of_workers(tmp_path: Path) -> None:
    paths = ValuePaths(write_store(tmp_path, paths=path_rows(24, 0)[::-1]), "train")

    def ids(workers: int, per_pass: int, first: int = 0) -> list[list[str]]:
        """The ids of each step from `first`."""
        orders = [PathOrder(paths, 8, per_pass, 3, rank, workers) for rank in range(workers)]
        passes = range(8 // (workers * per_pass))
        return [[id for _ in passes for order in orders for id in order.next(step).ids] for step in range(first, 6)]

    one = ids(1, 8)
    assert ids(1, 2) == ids(2, 2) == ids(4, 1) == one
    assert ids(2, 4, first=2) == one[2:]
    epochs = [id for step in one[:3] for id in step], [id for step in one[3:] for id in step]
    assert sorted(epochs[0]) == sorted(epochs[1]) == [row["path_id"] for row in path_rows(24, 0)]
    assert epochs[0] != epochs[1]


def test_a_batch_has_the_targets_of_its_paths(tmp_path: Path) -> None:
    rows = path_rows()
    rows[1]["outcome"] = None
    batch = ValuePaths(write_store(tmp_path, paths=rows), "train").batch([2, 1])
    ends = batch.attention_mask.sum(1).tolist()
    assert [ids[:end] for ids, end in zip(batch.input_ids.tolist(), ends, strict=True)] == [
        rows[2]["tokens"], rows[1]["tokens"],
    ]  # fmt: skip
    assert batch.columns.tolist() == rows[2]["positions"] + rows[1]["positions"]
    assert batch.q.tolist() == pytest.approx(rows[2]["q"] + rows[1]["q"])
    assert batch.correct.tolist() == pytest.approx([1.0, math.nan], nan_ok=True)


def test_long_paths_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = path_rows()
    rows[3]["tokens"] = [5] * (LONGEST + 1)
    assert count_paths(write_store(tmp_path, paths=rows)) == {"train": 7, "validation": 4, "left_out": 1}


def test_a_path_that_the_policy_cannot_read_is_refused(tmp_path: Path) -> None:
    rows = path_rows()
    rows[4]["tokens"] = [5, VOCABULARY]
    with pytest.raises(UserError, match=f"^path p04/tree/0/9 has the token id {VOCABULARY} in tokens"):
        write_store(tmp_path, paths=rows)


def test_a_path_without_a_finite_loss_is_named(tmp_path: Path) -> None:
    rows = path_rows()
    rows[5]["q"][0] = math.nan
    config = replace(CONFIG, init=make_policy(tmp_path / "policy"))
    with pytest.raises(TuneDivergedError, match=r"^the loss of step \d is NaN or infinite.*: p05/tree/0/9$"):
        run(config, write_store(tmp_path, paths=rows), tmp_path / "checkpoints", ignore)


def test_metrics_of_nodes_are_their_definitions() -> None:
    parts = [
        NodeValues(
            np.array([0.5, -0.5, 0.1]), np.array([1.0, -1.0, -0.5]), np.array([0.5, 0.1]), np.array([1.0, np.nan])
        ),
        NodeValues(np.array([0.2]), np.array([0.4]), np.array([0.2]), np.array([0.0])),
    ]
    metrics = summarize_nodes(parts)
    assert metrics["eval_node_mse"] == pytest.approx((0.25 + 0.25 + 0.36 + 0.04) / 4)
    assert metrics["eval_node_auc"] == metrics["eval_answer_auc"] == 1.0
    assert summarize_nodes([]) == {}
