"""Monte Carlo tree search on scripted engines: its invariants, and equal trees for equal seeds."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vgs_ray.config import Mcts, Sampling
from vgs_ray.engines.scripted import ScriptedPolicy, ScriptedValue, World
from vgs_ray.search.mcts import mcts, visits
from vgs_ray.search.tree import ROOT, Tree

WORLD = World(steps=24, slip=0.08)
PROMPT = (3,)
LONG = Sampling(max_tokens=40)
SHAPES = st.builds(
    Mcts,
    simulations=st.integers(1, 30),
    width=st.integers(1, 4),
    depth=st.integers(1, 8),
    block=st.integers(1, 30),
    c_puct=st.floats(0, 5),
    parallel=st.integers(1, 5),
)


def grow(shape: Mcts, seed: int = 0, sampling: Sampling = LONG, latency: int = 0, noise: float = 1.0) -> Tree:
    policy = ScriptedPolicy(WORLD, latency=latency, seed=latency)
    value = ScriptedValue(WORLD, noise=noise, latency=latency)
    return asyncio.run(mcts(policy, value, PROMPT, shape=shape, sampling=sampling, seed=seed))


@given(shape=SHAPES, max_tokens=st.integers(1, 40))
@settings(max_examples=80, deadline=None)
def test_visits_and_values_add_up(shape: Mcts, max_tokens: int) -> None:
    tree = grow(shape, sampling=Sampling(max_tokens=max_tokens))
    seen = visits(tree, shape)
    scored = {node.id: node.value or 0.0 for node in tree.nodes[1:]}
    for id, count in seen.count.items():
        node, children = tree.nodes[id], seen.children.get(id, [])
        # A prefix is visited once itself, and once for each visit of a child. An answer may be visited again.
        own = count - sum(seen.count[child] for child in children)
        is_answer = node.state in ("finished", "length")
        assert own >= 1 if is_answer else own == (id != ROOT)
        assert 0 <= seen.mean(id) <= 1
        total = own * scored.get(id, 0.0) + sum(seen.total[child] for child in children)
        assert seen.total[id] == pytest.approx(total, abs=1e-9)
        assert len(children) in (0, shape.width)
        assert math.isclose(seen.mean(id), seen.total[id] / count)
    assert shape.width <= seen.count[ROOT] <= shape.simulations * shape.width
    for node in tree.nodes[1:]:
        assert tree.end(node.id) <= max_tokens
        assert node.round <= shape.depth
        assert len(node.tokens) <= shape.block or node.index == -1
    assert tree.leaves()


@given(shape=SHAPES, seed=st.integers(0, 99), latency=st.integers(1, 9))
@settings(max_examples=20, deadline=None)
def test_order_of_arrival_does_not_matter(shape: Mcts, seed: int, latency: int) -> None:
    assert grow(shape, seed, latency=latency).to_json() == grow(shape, seed).to_json()


def test_parents_come_before_their_children_and_are_kept_prefixes() -> None:
    tree = grow(Mcts(simulations=40, width=3, depth=10, block=4))
    for node in tree.nodes[1:]:
        assert node.parent is not None
        assert node.parent < node.id
        assert tree.nodes[node.parent].state == "kept"
    assert len({node.place for node in tree.nodes}) == len(tree.nodes)


def test_descents_prefer_high_values() -> None:
    shape = Mcts(simulations=60, width=4, depth=12, block=6, c_puct=0.5)
    tree = grow(shape, noise=0.0)
    seen = visits(tree, shape)
    first = seen.children[ROOT]
    assert max(first, key=lambda id: seen.count[id]) in sorted(first, key=lambda id: -(tree.nodes[id].value or 0))[:2]


def test_exploration_spreads_visits() -> None:
    def share(c_puct: float) -> float:
        shape = Mcts(simulations=48, width=4, depth=12, block=4, c_puct=c_puct, parallel=1)
        seen = visits(grow(shape), shape)
        counts = [seen.count[id] for id in seen.children[ROOT]]
        return max(counts) / sum(counts)

    assert share(20.0) < share(0.1)


def test_one_descent_with_whole_answers_is_best_of_n() -> None:
    shape = Mcts(simulations=1, width=5, depth=1, block=99)
    tree = grow(shape)
    assert [leaf.state for leaf in tree.leaves()] == ["finished"] * 5
    assert visits(tree, shape).mean(ROOT) == pytest.approx(sum(leaf.value or 0 for leaf in tree.leaves()) / 5)


def test_a_search_without_an_answer_finishes_its_most_visited_path() -> None:
    tree = grow(Mcts(simulations=2, width=2, depth=20, block=2, parallel=1))
    assert [leaf.state for leaf in tree.leaves()] == ["finished"]
    assert len(tree.path(tree.leaves()[0].id)) == WORLD.steps + 1
    steps = Sampling(max_tokens=40, stop_token_ids=(0,))  # the continuation does not end with the step
    assert [leaf.state for leaf in grow(Mcts(simulations=2, width=2, depth=20), sampling=steps).leaves()] == [
        "finished"
    ]


def test_sizes_are_checked() -> None:
    with pytest.raises(ValueError, match="width is 0"):
        grow(replace(Mcts(), width=0))
