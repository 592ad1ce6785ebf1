"""Explorers on scripted engines: equivalences between searches, invariants, and accuracy."""

from __future__ import annotations

import asyncio
import json
import math
import random
from collections import Counter
from dataclasses import replace
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vgs_ray.config import Beam, Sampling
from vgs_ray.data.ids import stable_seed
from vgs_ray.data.tokens import Tokens
from vgs_ray.engines.interface import Completion, Score, Usage
from vgs_ray.engines.scripted import END, ScriptedPolicy, ScriptedValue, World
from vgs_ray.search import select
from vgs_ray.search.blocks import aligned_length
from vgs_ray.search.explore import beam, sample
from vgs_ray.search.tree import Node, Tree

WORLD = World(steps=24, slip=0.08)
PROMPT = (3,)
LONG = Sampling(max_tokens=40)


def engines(latency: int = 0, seed: int = 0, noise: float = 1.0) -> tuple[ScriptedPolicy, ScriptedValue]:
    return (
        ScriptedPolicy(WORLD, latency=latency, seed=seed),
        ScriptedValue(WORLD, noise=noise, latency=latency),
    )


def answers(tree: Tree) -> list[tuple[Tokens, float | None]]:
    return [(tree.path(leaf.id), leaf.value) for leaf in tree.leaves()]


def contents(tree: Tree, group: int) -> list[tuple[int, int, Tokens, float | None, str]]:
    return [(n.round, n.index, n.tokens, n.value, n.state) for n in tree.nodes if n.group == group]


@pytest.mark.parametrize("shape", [Beam(keep=6, branch=1, block=99), Beam(keep=1, branch=1, block=99, groups=6)])
async def test_one_block_to_the_end_is_best_of_n(shape: Beam) -> None:
    samples = await sample(*engines(), PROMPT, count=6, sampling=LONG, seed=7)
    guided = await beam(*engines(), PROMPT, beam=shape, sampling=LONG, seed=7)
    assert answers(guided) == answers(samples)


async def test_one_block_with_branches_keeps_the_best_of_n() -> None:
    samples = answers(await sample(*engines(), PROMPT, count=8, sampling=LONG, seed=1))
    guided = answers(await beam(*engines(), PROMPT, beam=Beam(keep=2, branch=4, block=99), sampling=LONG, seed=1))
    top = sorted(range(8), key=lambda i: -(samples[i][1] or 0.0))[:2]
    assert guided == [samples[i] for i in sorted(top)]


async def test_more_groups_do_not_change_a_group() -> None:
    shape = Beam(keep=2, branch=2, block=5, groups=3)
    three = await beam(*engines(latency=4), PROMPT, beam=shape, sampling=LONG, seed=5)
    for groups in (1, 2):
        fewer = await beam(*engines(), PROMPT, beam=replace(shape, groups=groups), sampling=LONG, seed=5)
        assert [contents(fewer, group) for group in range(groups)] == [
            contents(three, group) for group in range(groups)
        ]
    assert contents(three, 0) != contents(three, 1)


@given(latency=st.integers(0, 9), seed=st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_order_of_arrival_does_not_matter(latency: int, seed: int) -> None:
    shape = Beam(keep=2, branch=2, block=6, groups=3)

    async def grow(latency: int, seed: int) -> list[Tree]:
        policy, value = engines(latency, seed)
        return [
            await beam(policy, value, PROMPT, beam=shape, sampling=LONG, seed=2),
            await sample(policy, value, PROMPT, count=5, sampling=LONG, seed=2),
        ]

    for late, prompt in zip(asyncio.run(grow(latency, seed)), asyncio.run(grow(0, 0)), strict=True):
        assert answers(late) == answers(prompt)
        assert late.canonical().to_json() == prompt.canonical().to_json()


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


@given(start=st.integers(0, 10_000), block=st.integers(1, 5_000), cache_block=st.sampled_from([1, 16, 32, 96]))
def test_an_aligned_block_ends_one_token_after_a_cache_block(start: int, block: int, cache_block: int) -> None:
    length = aligned_length(start, block, cache_block)
    part = max(size for size in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 96) if size <= block and cache_block % size == 0)
    assert (start + length - 1) % part == 0
    assert abs(length - block) <= part / 2 <= block / 2
    assert length > 0
    assert part == cache_block or block < cache_block


@given(
    prompt=st.integers(1, 70),
    shape=st.builds(Beam, st.integers(1, 2), st.integers(1, 3), st.integers(1, 99), st.integers(1, 3)),
    max_tokens=st.integers(1, 60),
    delimiter=st.booleans(),
)
@settings(max_examples=80, deadline=None)
def test_aligned_blocks_end_with_cache_blocks(prompt: int, shape: Beam, max_tokens: int, delimiter: bool) -> None:
    world = World(steps=50, slip=0.08)
    policy, value = ScriptedPolicy(world, prompt), ScriptedValue(world, prompt)
    limits = Sampling(max_tokens=max_tokens, stop_token_ids=(1,) if delimiter else ())

    def grow(beam_: Beam, cache_block: int) -> Tree:
        search = beam(policy, value, (3,) * prompt, beam=beam_, sampling=limits, seed=0, cache_block=cache_block)
        return asyncio.run(search)

    tree = grow(replace(shape, align=True), 16)
    assert len(tree.leaves()) == shape.keep * shape.groups
    for node in tree.nodes[1:]:
        assert tree.end(node.id) <= max_tokens
        cut_short = node.tokens[-1] in (1, END) or tree.end(node.id) == max_tokens
        assert cut_short or shape.block < 16 or (prompt + tree.end(node.id) - 1) % 16 == 0
    assert grow(replace(shape, align=True), 1).nodes == grow(shape, 16).nodes == grow(shape, 1).nodes


async def test_one_aligned_block_to_the_end_is_best_of_n() -> None:
    shape = Beam(keep=1, branch=1, block=LONG.max_tokens, groups=6, align=True)
    samples = await sample(*engines(), PROMPT, count=6, sampling=LONG, seed=7)
    guided = await beam(*engines(), PROMPT, beam=shape, sampling=LONG, seed=7, cache_block=32)
    assert answers(guided) == answers(samples)


class Recorded:
    """Engines whose blocks and values are functions of the prefix. Values tie often."""

    def __init__(self, seed: int) -> None:
        self.seed, self.usage, self.calls = seed, Usage(), Counter[Tokens]()

    def block(self, prefix: Tokens, number: int) -> tuple[Tokens, bool]:
        draw = random.Random(stable_seed(self.seed, *prefix, "block", number))
        return tuple(draw.randrange(1, 50) for _ in range(draw.randint(1, 3))), draw.random() < 0.2

    def value(self, tokens: Tokens) -> float:
        return random.Random(stable_seed(self.seed, *tokens, "value")).choice([0.1, 0.3, 0.3, 0.7, 0.9])

    async def extend(self, prefix: Tokens, sampling: Sampling, seed: int) -> Completion:
        self.calls[prefix] += 1
        tokens, ended = self.block(prefix, self.calls[prefix])
        tokens = tokens[: sampling.max_tokens]
        return Completion(tokens, ended, "stop", 0.0)

    async def score(self, tokens: Tokens) -> Score:
        return Score(self.value(tokens))


def published(recorded: Recorded, keep: int, branch: int, longest: int) -> Counter[Tokens]:
    """Algorithm 1 of arXiv 2505.17373, written from its description: lockstep, with one slot for each beam.

    Ties go to the first candidate in the order of the slots; the authors' `torch.topk` defines no order of ties.
    """
    beams: list[Tokens] = [()] * keep
    alive = list(range(keep))
    calls: Counter[Tokens] = Counter()
    while alive:
        candidates = []
        for slot in alive:
            for _ in range(branch):
                prefix = PROMPT + beams[slot]
                calls[prefix] += 1
                block, ended = recorded.block(prefix, calls[prefix])
                text = beams[slot] + block[: longest - len(beams[slot])]
                candidates.append((recorded.value(PROMPT + text), text, ended or len(text) >= longest))
        best = sorted(candidates, key=lambda candidate: -candidate[0])[: len(alive)]
        for slot, (_, text, _) in zip(alive, best, strict=True):
            beams[slot] = text
        alive = [slot for slot, (_, _, ended) in zip(alive, best, strict=True) if not ended]
    return Counter(beams)


@given(seed=st.integers(0, 10_000), keep=st.integers(1, 5), branch=st.integers(1, 4), longest=st.integers(1, 12))
@settings(max_examples=200, deadline=None)
def test_the_published_algorithm_keeps_the_same_beams(seed: int, keep: int, branch: int, longest: int) -> None:
    recorded = Recorded(seed)
    search = beam(
        recorded, recorded, PROMPT, beam=Beam(keep, branch, block=99), sampling=Sampling(max_tokens=longest), seed=0
    )
    tree = asyncio.run(search)
    assert Counter(tree.path(leaf.id) for leaf in tree.leaves()) == published(Recorded(seed), keep, branch, longest)


def alphamath(recorded: Recorded, keep: int, branch: int, longest: int) -> list[tuple[float, Tokens]]:
    """Step-level beam search of AlphaMath (arXiv 2405.03553), written from its description: the last pool, best first.

    The pool starts with copies of the prompt. Finished paths stay in it and are compared with new blocks.
    """
    pool: list[tuple[float, Tokens, bool]] = [(0.0, (), False)] * keep
    calls: Counter[Tokens] = Counter()
    while not all(ended for _, _, ended in pool):
        candidates = []
        for _, text, ended in pool:
            if ended:
                continue
            for _ in range(branch):
                prefix = PROMPT + text
                calls[prefix] += 1
                block, stopped = recorded.block(prefix, calls[prefix])
                longer = text + block[: longest - len(text)]
                candidates.append((recorded.value(PROMPT + longer), longer, stopped or len(longer) >= longest))
        pool = sorted([*candidates, *(each for each in pool if each[2])], key=lambda each: -each[0])[:keep]
    return [(value, text) for value, text, _ in pool]


@given(seed=st.integers(0, 10_000), keep=st.integers(1, 5), branch=st.integers(1, 4), longest=st.integers(1, 12))
@settings(max_examples=200, deadline=None)
def test_finished_answers_that_compete_are_those_of_alphamath(seed: int, keep: int, branch: int, longest: int) -> None:
    class Distinct(Recorded):
        """Values without ties, whose order AlphaMath leaves open."""

        def value(self, tokens: Tokens) -> float:
            return random.Random(stable_seed(self.seed, *tokens, "value")).random()

    def grow(finished: Literal["retire", "compete"]) -> Tree:
        shape, recorded = Beam(keep, branch, block=99, finished=finished), Distinct(seed)
        limits = Sampling(max_tokens=longest)
        return asyncio.run(beam(recorded, recorded, PROMPT, beam=shape, sampling=limits, seed=0))

    tree, expected = grow("compete"), alphamath(Distinct(seed), keep, branch, longest)
    assert sorted([(leaf.value, tree.path(leaf.id)) for leaf in tree.leaves()], reverse=True) == expected
    assert tree.canonical().usage() == tree.usage()
    if keep == 1:
        assert tree.canonical().to_json() == grow("retire").canonical().to_json()


async def test_a_deadline_keeps_the_answers_that_compete() -> None:
    class Slow(Canned):
        async def extend(self, prefix: Tokens, sampling: Sampling, seed: int) -> Completion:
            return await asyncio.Event().wait() if self.calls == 2 else await super().extend(prefix, sampling, seed)  # type: ignore[return-value]

    slow, received = Slow({1: 0.5, 2: 0.9}, ends=frozenset({1})), []
    shape = Beam(keep=2, branch=1, block=1, finished="compete")
    search = beam(slow, slow, (0,), beam=shape, sampling=LONG, seed=0, listen=received.append)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(search, 0.1)
    assert [(node.tokens, node.state) for node in received] == [((2,), "kept"), ((1,), "finished")]


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


async def test_blocks_end_at_a_delimiter() -> None:
    steps = replace(LONG, stop_token_ids=(1,))
    tree = await beam(*engines(), PROMPT, beam=Beam(keep=2, branch=2, block=40), sampling=steps, seed=0)
    for node in tree.nodes[1:]:
        assert set(node.tokens[:-1]) <= {0}
        assert node.tokens[-1] in (1, END)
    whole = await sample(*engines(), PROMPT, count=3, sampling=steps, seed=0)
    assert all(leaf.state == "finished" for leaf in whole.leaves())


class Canned:
    """Writes 1, 2, 3, ..., one token in each call, and ends at the tokens in `ends`. The value depends on the last token."""

    def __init__(self, values: dict[int, float], ends: frozenset[int] = frozenset()) -> None:
        self.values, self.ends, self.usage, self.calls = values, ends, Usage(), 0

    async def extend(self, prefix: Tokens, sampling: Sampling, seed: int) -> Completion:
        self.calls += 1
        token = self.calls
        return Completion((token,), token in self.ends, "stop" if token in self.ends else "length", 0.0)

    async def score(self, tokens: Tokens) -> Score:
        return Score(self.values.get(tokens[-1], 0.1))


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


async def test_an_error_cancels_the_other_calls_and_is_raised_unchanged() -> None:
    cancelled = []

    class Fails(Canned):
        async def extend(self, prefix: Tokens, sampling: Sampling, seed: int) -> Completion:
            self.calls += 1
            if self.calls == 3:
                raise RuntimeError("engine 3 died")
            try:
                return await asyncio.Event().wait()  # type: ignore[return-value]
            except asyncio.CancelledError:
                cancelled.append(seed)
                raise

    fails = Fails({})
    with pytest.raises(RuntimeError, match="engine 3 died"):
        await beam(fails, fails, (0,), beam=Beam(keep=2, branch=2, groups=2), sampling=LONG, seed=0)
    await asyncio.sleep(0.01)
    assert len(cancelled) == fails.calls - 1


async def test_cancelling_a_search_cancels_its_calls() -> None:
    policy, value = engines(latency=10**9)
    search = asyncio.ensure_future(sample(policy, value, PROMPT, count=4, sampling=LONG, seed=0))
    await asyncio.sleep(0.01)
    search.cancel()
    with pytest.raises(asyncio.CancelledError):
        await search
    await asyncio.sleep(0.01)
    assert len(asyncio.all_tasks()) == 1
    assert policy.usage.generated == 0


async def test_the_listener_gets_every_node_in_order() -> None:
    received: list[Node] = []
    shape = Beam(keep=2, branch=2, block=6, groups=2)
    tree = await beam(*engines(latency=5), PROMPT, beam=shape, sampling=LONG, seed=0, listen=received.append)
    assert received == tree.nodes[1:]


async def test_usage_is_what_the_engines_counted() -> None:
    prompt = (3, 3, 3)
    policy, value = ScriptedPolicy(WORLD, prompt_length=3), ScriptedValue(WORLD, prompt_length=3)
    tree = await beam(policy, value, prompt, beam=Beam(2, 2, 10, 2), sampling=LONG, seed=0)
    usage = tree.usage()
    assert usage.generated == sum(len(node.tokens) for node in tree.nodes) == policy.usage.generated
    assert (usage.prefilled, usage.scored, usage.cached) == (policy.usage.prefilled, value.usage.scored, 0)
    parts = [tree.usage({group}) for group in (0, 1)]
    assert sum(part.generated for part in parts) == usage.generated
    assert sum(part.scored for part in parts) == usage.scored
    unscored = await sample(policy, None, prompt, count=2, sampling=LONG, seed=0)
    assert unscored.usage().scored == 0
    assert Tree((1, 2)).usage() == Usage()


def test_cached_tokens_are_those_that_were_not_forwarded() -> None:
    tree = Tree((1, 2, 3))
    kept = tree.add(0, group=0, round=0, index=0, tokens=(4, 5), score=Score(0.5, (), 5), state="kept", prefilled=3)
    tree.add(kept.id, group=0, round=1, index=0, tokens=(6,), score=Score(0.6, (), 2), state="finished", prefilled=1)
    assert tree.usage() == Usage(generated=3, prefilled=4, cached=4 + 4, scored=7)


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
