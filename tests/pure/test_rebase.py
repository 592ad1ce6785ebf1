"""Reward-balanced search on scripted engines: allocation of blocks, and special cases."""

from __future__ import annotations

import asyncio
import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vgs_ray.config import Rebase, Sampling
from vgs_ray.engines.scripted import ScriptedPolicy, ScriptedValue, World
from vgs_ray.search.explore import sample
from vgs_ray.search.rebase import allocate_blocks, rebase
from vgs_ray.search.tree import ROOT, Tree

WORLD = World(steps=24, slip=0.08)
PROMPT = (3,)
LONG = Sampling(max_tokens=40)


def grow(shape: Rebase, sampling: Sampling = LONG, latency: int = 0, seed: int = 0) -> Tree:
    policy, value = ScriptedPolicy(WORLD, latency=latency, seed=latency), ScriptedValue(WORLD, latency=latency)
    return asyncio.run(rebase(policy, value, PROMPT, shape=shape, sampling=sampling, seed=seed))


@given(values=st.lists(st.floats(0, 1), min_size=1), blocks=st.integers(0, 64), temperature=st.floats(0.01, 10))
def test_shares_add_up_and_follow_the_values(values: list[float], blocks: int, temperature: float) -> None:
    shares = allocate_blocks(values, blocks, temperature)
    assert sum(shares) == blocks
    weights = [math.exp((value - max(values)) / temperature) for value in values]
    for share, weight in zip(shares, weights, strict=True):
        assert abs(share - blocks * weight / sum(weights)) < 1 + 1e-9
    assert all(
        a >= b for a, v in zip(shares, values, strict=True) for b, w in zip(shares, values, strict=True) if v > w + 1e-9
    )


def test_equal_values_get_equal_shares_and_a_low_temperature_takes_the_best() -> None:
    assert allocate_blocks([0.5] * 3, 8, 0.2) == [3, 3, 2]
    assert allocate_blocks([0.2, 0.9, 0.4], 8, 0.001) == [0, 8, 0]
    assert allocate_blocks([], 8, 0.2) == []


@given(
    shape=st.builds(Rebase, width=st.integers(1, 9), block=st.integers(1, 30), temperature=st.floats(0.01, 5)),
    max_tokens=st.integers(1, 40),
)
@settings(max_examples=60, deadline=None)
def test_each_ended_answer_lowers_the_width_by_one(shape: Rebase, max_tokens: int) -> None:
    tree = grow(shape, Sampling(max_tokens=max_tokens))
    blocks, width = Counter(node.round for node in tree.nodes[1:]), shape.width
    for round in sorted(blocks):
        assert blocks[round] == width
        width -= sum(node.round == round and node.state in ("finished", "length") for node in tree.nodes[1:])
    assert width == 0
    assert len(tree.leaves()) == shape.width
    parents = {node.parent for node in tree.nodes[1:]}
    for node in tree.nodes[1:]:
        assert (node.id in parents) == (node.state == "kept")
        assert tree.end(node.id) <= max_tokens
    assert all(tree.nodes[parent or ROOT].state == "kept" for parent in parents)


def test_one_block_to_the_end_is_best_of_n() -> None:
    engines = ScriptedPolicy(WORLD), ScriptedValue(WORLD)
    samples = asyncio.run(sample(*engines, PROMPT, count=6, sampling=LONG, seed=0))
    assert [samples.path(leaf.id) for leaf in samples.leaves()] == [
        tree.path(leaf.id) for tree in [grow(Rebase(width=6, block=99))] for leaf in tree.leaves()
    ]


def test_order_of_arrival_does_not_matter() -> None:
    shape = Rebase(width=7, block=5)
    first, *others = [grow(shape, latency=latency).canonical().to_json() for latency in range(5)]
    assert all(other == first for other in others)


def test_a_low_temperature_follows_the_values() -> None:
    correct = Counter()
    for seed in range(60):
        for name, temperature in (("high", 100.0), ("low", 0.1)):
            tree = grow(Rebase(width=4, block=4, temperature=temperature), seed=seed)
            correct[name] += sum(WORLD.outcome(PROMPT, tree.path(leaf.id)) == "correct" for leaf in tree.leaves())
    assert correct["low"] > 1.5 * correct["high"]


@pytest.mark.parametrize("shape", [Rebase(width=0), Rebase(block=0), Rebase(temperature=0.0)])
def test_bad_sizes_are_refused(shape: Rebase) -> None:
    with pytest.raises(ValueError, match="raise it"):
        grow(shape)
