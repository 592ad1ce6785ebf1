"""Beam searches on scripted engines: the shape of a tree, which blocks are kept, refused sizes, and accuracy."""

from __future__ import annotations

import asyncio
import json
import math
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from search_engines import LONG, PROMPT, WORLD, Canned, Recorded, answers, engines

from vgs_ray.config import Beam, Sampling
from vgs_ray.data.tokens import Tokens
from vgs_ray.engines.interface import Completion
from vgs_ray.search import select
from vgs_ray.search.explore import beam, sample
from vgs_ray.search.tree import Tree


@given(
    keep=st.integers(1, 3),
    branch=st.integers(1, 3),
    block=st.integers(1, 50),
    groups=st.integers(1, 3),
    max_tokens=st.integers(1, 40),
    rank=st.sampled_from(["tree", "parent"]),
    finished=st.sampled_from(["retire", "reinvest", "compete"]),
    choose=st.sampled_from(["value", "random"]),
)
@settings(max_examples=100, deadline=None)
def test_shape_of_a_beam(keep, branch, block, groups, max_tokens, rank, finished, choose) -> None:
    policy, value = engines()
    shape = Beam(keep, branch, block, groups, rank=rank, finished=finished, choose=choose)
    limits = Sampling(max_tokens=max_tokens)
    tree = asyncio.run(beam(policy, value, PROMPT, beam=shape, sampling=limits, seed=0))
    assert len(tree.leaves()) == keep * groups
    assert {leaf.state for leaf in tree.leaves()} == ({"length"} if max_tokens < 25 else {"finished"})
    for leaf in tree.leaves():
        path = tree.path(leaf.id)
        assert len(path) == min(max_tokens, 25) == tree.end(leaf.id)
        assert leaf.value == asyncio.run(value.score(PROMPT + path)).value
    assert all(len(node.tokens) <= block for node in tree.nodes)
    parents = {node.parent for node in tree.nodes}
    assert all((node.id in parents) == (node.state == "kept") for node in tree.nodes)
    assert policy.usage.generated == tree.usage().generated
    assert Tree.from_json(json.loads(json.dumps(tree.to_json()))).nodes == tree.nodes


def test_reinvested_blocks_go_to_the_live_prefixes() -> None:
    async def grow(finished: str) -> Tree:
        recorded = Recorded(3)
        shape = Beam(keep=4, branch=2, block=99, finished=finished)  # type: ignore[arg-type]
        return await beam(recorded, recorded, PROMPT, beam=shape, sampling=Sampling(max_tokens=30), seed=0)

    def widths(tree: Tree) -> list[int]:
        return [count for _, count in sorted(Counter(node.round for node in tree.nodes[1:]).items())]

    retired, reinvested = (asyncio.run(grow(finished)) for finished in ("retire", "reinvest"))
    assert widths(retired)[-1] < 8
    assert set(widths(reinvested)) == {8}
    assert len(retired.leaves()) == len(reinvested.leaves()) == 4


async def test_random_choice_ignores_the_values() -> None:
    shape = Beam(keep=1, branch=4, block=4, choose="random")
    trees = [await beam(*engines(noise=0.0), PROMPT, beam=shape, sampling=LONG, seed=seed) for seed in range(30)]
    chosen = [next(node.index for node in tree.nodes if node.round == 0 and node.state == "kept") for tree in trees]
    assert set(chosen) == {0, 1, 2, 3}
    again = await beam(*engines(noise=0.0), PROMPT, beam=shape, sampling=LONG, seed=0)
    assert again.to_json() == trees[0].to_json()


async def test_survivors_are_the_best_of_all_candidates() -> None:
    tree = await beam(*engines(), PROMPT, beam=Beam(keep=3, branch=2, block=4), sampling=LONG, seed=0)
    for round in range(7):
        candidates = [node for node in tree.nodes if node.round == round]
        kept = [node.value or 0.0 for node in candidates if node.state != "pruned"]
        pruned = [node.value or 0.0 for node in candidates if node.state == "pruned"]
        assert len(kept) == 3
        assert len(pruned) == 3
        assert min(kept) >= max(pruned)


async def test_rank_by_parent_keeps_one_child_of_each() -> None:
    shape = Beam(keep=3, branch=2, block=4, rank="parent")
    tree = await beam(*engines(), PROMPT, beam=shape, sampling=LONG, seed=0)
    for node in tree.nodes[1:]:
        twin = next(n for n in tree.nodes if n.round == node.round and n.index == node.index ^ 1)
        assert (node.state == "pruned") != (twin.state == "pruned")


async def test_a_finished_prefix_keeps_its_slot_and_is_not_compared_again() -> None:
    canned = Canned({1: 0.5, 2: 0.4, 3: 0.9, 4: 0.8}, ends=frozenset({1}))
    tree = await beam(
        canned, canned, (0,), beam=Beam(keep=2, branch=1, block=1), sampling=Sampling(max_tokens=3), seed=0
    )
    assert [tree.path(leaf.id) for leaf in tree.leaves()] == [(1,), (2, 3, 4)]
    assert canned.calls == 4


async def test_ties_go_to_the_first_block_and_nan_ranks_last() -> None:
    canned = Canned({1: math.nan, 2: 0.5, 3: 0.5, 4: 0.5})
    tree = await beam(
        canned, canned, (0,), beam=Beam(keep=2, branch=2, block=1), sampling=Sampling(max_tokens=1), seed=0
    )
    assert [leaf.tokens for leaf in tree.leaves()] == [(2,), (3,)]
    assert tree.nodes[1].value is None
    json.dumps(tree.to_json(), allow_nan=False)


async def test_a_policy_that_writes_nothing_ends_the_search() -> None:
    class Mute(Canned):
        async def extend(self, prefix: Tokens, sampling: Sampling, seed: int) -> Completion:
            return Completion((), False, "length", 0.0)

    mute = Mute({})
    tree = await beam(mute, mute, (0,), beam=Beam(), sampling=LONG, seed=0)
    assert [leaf.state for leaf in tree.leaves()] == ["length"] * 2


async def test_guided_search_beats_the_votes_of_samples() -> None:
    policy, value = engines(noise=1.5)
    correct = {"majority": 0, "weighted_majority": 0, "guided": 0}
    for problem in range(30):
        prompt, gold = (problem,), WORLD.gold((problem,))
        samples = await sample(policy, value, prompt, count=8, sampling=LONG, seed=problem)
        guided = await beam(policy, value, prompt, beam=Beam(2, 2, 6, 2), sampling=LONG, seed=problem)
        assert guided.usage().generated == samples.usage().generated
        pools = {"majority": samples, "weighted_majority": samples, "guided": guided}
        for name, tree in pools.items():
            texts = [WORLD.answer(prompt, path) for path, _ in answers(tree)]
            vote = select.majority if name == "majority" else select.weighted_majority
            answer = vote(texts, [value for _, value in answers(tree)], equivalent=str.__eq__)
            correct[name] += answer == gold
    assert correct["guided"] > correct["weighted_majority"] + 5
    assert correct["weighted_majority"] > correct["majority"] + 5


@pytest.mark.parametrize("size", ["keep", "branch", "block", "groups"])
async def test_sizes_below_one_are_refused(size: str) -> None:
    with pytest.raises(ValueError, match=f"{size} is 0"):
        await beam(*engines(), PROMPT, beam=replace(Beam(), **{size: 0}), sampling=LONG, seed=0)


async def test_a_sample_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="count is 0"):
        await sample(*engines(), PROMPT, count=0, sampling=LONG, seed=0)


def test_a_node_needs_its_parent() -> None:
    with pytest.raises(ValueError, match="parent 4"):
        Tree((1,)).add(4, group=0, round=0, index=0, tokens=(1,), score=None, state="kept")
