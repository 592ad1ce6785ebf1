"""Partitions and layouts lose no sequence, fill the budget without exceeding it, and weight all sequences equally."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vgs_ray.value.packing import Example, lay_out
from vgs_ray.value.training.partition import Partition, balance, best_fit, partition_batch

LAYOUTS = ["packed", "bucketed"]
lengths = st.lists(st.integers(1, 40), min_size=1, max_size=30)


def examples_of(sizes: list[int]) -> list[Example]:
    return [
        Example(str(index), np.full(size, index + 1, np.int32), size // 3, index % 3)
        for index, size in enumerate(sizes)
    ]


def make_partition(sizes: list[int], world: int, budget: int, layout, width: int = 1) -> Partition:
    table = np.array(sizes).reshape(-1, width)
    return partition_batch(table, table - table // 3, world, budget, layout, attention=0.01)


def draw_lengths(count: int, longest: int, mean: float, sigma: float) -> np.ndarray:
    """Log-normal, clipped at the longest."""
    drawn = np.random.default_rng(0).lognormal(np.log(mean * longest) - sigma**2 / 2, sigma, count)
    return np.clip(drawn, 1, longest).astype(np.int64)


@pytest.mark.parametrize("layout", LAYOUTS)
@given(sizes=lengths, budget=st.integers(1, 200), world=st.integers(1, 4))
def test_each_sequence_is_on_one_worker_within_the_budget(layout, sizes, budget: int, world: int) -> None:
    partition = make_partition(sizes, world, budget, layout)
    assert sorted(place for own in partition.packs for pack in own for place in pack) == list(range(len(sizes)))
    assert len({len(own) for own in partition.packs}) == 1
    area = 0
    for own in partition.packs:
        for pack in own:
            batch = lay_out([examples_of(sizes)[place] for place in pack], layout)
            area += batch.input_ids.size
            assert batch.input_ids.size <= budget or len(pack) <= 1
    assert (partition.tokens, partition.padded) == (sum(sizes), area)


@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=10), layout=st.sampled_from(LAYOUTS))
def test_pairs_stay_together(sizes: list[int], layout) -> None:
    sizes = sizes + sizes[::-1]
    partition = make_partition(sizes, 2, 100, layout, width=2)
    assert sorted(place for own in partition.packs for pack in own for place in pack) == list(range(len(sizes) // 2))
    assert partition.units == len(sizes) // 2


@pytest.mark.parametrize("layout", LAYOUTS)
@given(sizes=lengths)
def test_each_sequence_has_weight_one(layout, sizes: list[int]) -> None:
    batch = lay_out(examples_of(sizes), layout)
    assert batch.weights.sum() == pytest.approx(len(sizes), abs=1e-4)
    for index, size in enumerate(sizes):
        here = batch.input_ids == index + 1
        assert here.sum() == size
        assert (here & (batch.weights > 0)).sum() == size - size // 3
        assert (batch.labels[here] == index % 3).all()
        assert (batch.position_ids[here] == np.arange(size)).all()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_values_are_at_their_tokens_and_a_ranking_uses_the_last_token(layout) -> None:
    first = Example("a", np.array([1, 1, 1], np.int32), 1, 1, np.array([0.25, 0.5], np.float32))
    second = Example("b", np.array([2, 2], np.int32), 1, 0)
    batch = lay_out([first, second], layout)
    assert batch.values[batch.weights > 0].tolist() == [0.25, 0.5, 0]
    ranked = lay_out([first, second], layout, last_only=True)
    assert ranked.weights.sum() == 2
    assert ranked.input_ids[ranked.weights > 0].tolist() == [1, 2]
    assert ranked.position_ids[ranked.weights > 0].tolist() == [2, 1]


@pytest.mark.parametrize("layout", LAYOUTS)
@given(sizes=lengths, data=st.data())
def test_tokens_without_a_value_have_no_weight(layout, sizes: list[int], data: st.DataObject) -> None:
    examples = []
    for each in examples_of(sizes):
        count = len(each.tokens) - each.target_start
        values = data.draw(st.lists(st.sampled_from([0.25, np.nan]), min_size=count, max_size=count))
        examples.append(each._replace(values=np.array(values, np.float32)))
    batch = lay_out(examples, layout)
    assert np.isfinite(batch.values).all()
    for index, each in enumerate(examples):
        here = batch.input_ids == index + 1
        targets = np.append(np.zeros(each.target_start, bool), ~np.isnan(each.values))
        assert ((batch.weights[here] > 0) == targets).all()
        assert (batch.values[here][targets] == 0.25).all()
        assert batch.weights[here].sum() == pytest.approx(float(targets.any()), abs=1e-5)


def test_an_idle_worker_runs_one_token_without_a_target() -> None:
    partition = make_partition([30], 2, 40, "packed")
    assert partition.packs == [[[0]], [[]]]
    idle = lay_out([], "packed")
    assert idle.input_ids.shape == (1, 1)
    assert not idle.weights.any()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_sequence_without_target_is_not_forwarded_and_counts_in_the_mean(layout) -> None:
    partition = partition_batch(np.array([[4], [6]]), np.array([[0], [6]]), 1, 100, layout)
    assert (partition.packs, partition.units, partition.tokens) == ([[[1]]], 2, 6)


@pytest.mark.parametrize(("mean", "sigma"), [(0.7, 0.5), (0.4, 0.7)])
def test_packs_are_full(mean: float, sigma: float) -> None:
    sizes = draw_lengths(1024, 16384, mean, sigma)
    packs = best_fit(sizes, 4 * 16384)
    assert sizes.sum() / (len(packs) * 4 * 16384) >= 0.97
    assert max(sizes[pack].sum() for pack in packs) <= 4 * 16384


def test_the_bench_runs_with_only_torch_and_transformers() -> None:
    others = ("annotated_types", "pydantic")
    blocked = ("ray", "vllm", "pyarrow", "sklearn", "scipy", "matplotlib", "datasets", "tyro", "tensorboardX", *others)
    arguments = ["bench/train.py", "--rounds", "1", "--sequences", "8", "--longest", "64"]
    code = (
        f"import sys, runpy; sys.modules.update(dict.fromkeys({blocked!r})); sys.argv = {arguments!r}; "
        "runpy.run_path('bench/train.py', run_name='__main__')"
    )
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{root}:{root / 'bench'}", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    assert not done.returncode, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()[2:]]
    assert [row[:2] for row in rows] == [["0.7", "0.5"], ["0.4", "0.7"]]
    assert all(float(row[2].rstrip("%")) >= 97 and float(row[6]) > 0 for row in rows)


def test_workers_get_equal_shares() -> None:
    costs = draw_lengths(1024, 16384, 0.7, 0.5).astype(float)
    loads = [costs[mine].sum() for mine in balance(costs, 16)]
    assert max(loads) / np.mean(loads) < 1.02
