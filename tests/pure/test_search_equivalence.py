"""Searches that must find the same: best of N, groups alone and together, any order of arrival, published algorithms."""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from dataclasses import replace
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from search_engines import LONG, PROMPT, Recorded, answers, engines

from vgs_ray.config import Beam, Sampling
from vgs_ray.data.ids import stable_seed
from vgs_ray.data.tokens import Tokens
from vgs_ray.engines.interface import Completion
from vgs_ray.search.explore import beam, sample
from vgs_ray.search.tree import Tree


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


def published(recorded: Recorded, shape: Beam, longest: int) -> Counter[Tokens]:
    """Algorithm 1 of arXiv 2505.17373, written from its description: lockstep, with one slot for each beam.

    Ties go to the first candidate in the order of the slots; the authors' `torch.topk` defines no order of ties. With a
    likelihood, values are multiplied by that power of the geometric mean of the probabilities of a beam's tokens. `start` and
    `branch_entropy` change the number of candidates of a slot.
    """
    beams: list[Tokens] = [()] * shape.keep
    likelihoods = [0.0] * shape.keep  # of the last block
    alive = list(range(shape.keep))
    calls: Counter[Tokens] = Counter()
    while alive:
        candidates = []
        for slot in alive:
            unsure = not beams[slot] or -likelihoods[slot] >= shape.branch_entropy
            branch = shape.branch if unsure else 1
            if not beams[slot] and shape.start:
                branch = shape.start // shape.keep
            for _ in range(branch):
                prefix = PROMPT + beams[slot]
                calls[prefix] += 1
                block, ended = recorded.block(prefix, calls[prefix])
                block = block[: longest - len(beams[slot])]
                text = beams[slot] + block
                key = recorded.value(PROMPT + text) * math.exp(recorded.mean_logprob(text)) ** shape.likelihood
                candidates.append((key, text, ended or len(text) >= longest, recorded.mean_logprob(block)))
        best = sorted(candidates, key=lambda candidate: -candidate[0])[: len(alive)]
        for slot, (_, text, _, likelihood) in zip(alive, best, strict=True):
            beams[slot], likelihoods[slot] = text, likelihood
        alive = [slot for slot, (_, _, ended, _) in zip(alive, best, strict=True) if not ended]
    return Counter(beams)


def kept_beams(recorded: Recorded, shape: Beam, longest: int) -> Counter[Tokens]:
    limits = Sampling(max_tokens=longest)
    tree = asyncio.run(beam(recorded, recorded, PROMPT, beam=shape, sampling=limits, seed=0))
    return Counter(tree.path(leaf.id) for leaf in tree.leaves())


@given(seed=st.integers(0, 10_000), keep=st.integers(1, 5), branch=st.integers(1, 4), longest=st.integers(1, 12))
@settings(max_examples=200, deadline=None)
def test_the_published_algorithm_keeps_the_same_beams(seed: int, keep: int, branch: int, longest: int) -> None:
    shape = Beam(keep, branch, block=99)
    assert kept_beams(Recorded(seed), shape, longest) == published(Recorded(seed), shape, longest)


class WithoutTies(Recorded):
    """Values without ties. Products of values and likelihoods that tie could differ by rounding."""

    def value(self, tokens: Tokens) -> float:
        return random.Random(stable_seed(self.seed, *tokens, "value")).random()


@given(
    seed=st.integers(0, 10_000),
    keep=st.integers(1, 5),
    branch=st.integers(1, 4),
    longest=st.integers(1, 12),
    likelihood=st.sampled_from([0.5, 8.0]),
)
@settings(max_examples=200, deadline=None)
def test_a_likelihood_multiplies_the_values_of_the_published_algorithm(
    seed: int, keep: int, branch: int, longest: int, likelihood: float
) -> None:
    shape = Beam(keep, branch, block=99, likelihood=likelihood)
    assert kept_beams(WithoutTies(seed), shape, longest) == published(WithoutTies(seed), shape, longest)


@given(seed=st.integers(0, 10_000), keep=st.integers(1, 4), starts=st.integers(2, 5), longest=st.integers(1, 12))
@settings(max_examples=100, deadline=None)
def test_a_search_that_prunes_once_finishes_the_best_first_blocks(
    seed: int, keep: int, starts: int, longest: int
) -> None:
    shape = Beam(keep, branch=1, block=99, start=keep * starts)
    assert shape.budget == keep * starts
    found = kept_beams(WithoutTies(seed), shape, longest)
    assert found == published(WithoutTies(seed), shape, longest)
    assert found.total() == keep


@given(
    seed=st.integers(0, 10_000),
    keep=st.integers(1, 4),
    branch=st.integers(2, 4),
    longest=st.integers(1, 12),
    entropy=st.floats(0.1, 3.0),
)
@settings(max_examples=100, deadline=None)
def test_blocks_of_low_entropy_are_followed_by_one_block(
    seed: int, keep: int, branch: int, longest: int, entropy: float
) -> None:
    shape = Beam(keep, branch, block=99, branch_entropy=entropy)
    assert kept_beams(WithoutTies(seed), shape, longest) == published(WithoutTies(seed), shape, longest)


async def test_a_likelihood_needs_a_policy_with_log_probabilities() -> None:
    class Without(Recorded):
        async def extend(self, prefix: Tokens, sampling: Sampling, seed: int) -> Completion:
            return (await super().extend(prefix, sampling, seed))._replace(mean_logprob=math.nan)

    engine, shape = Without(0), Beam(keep=1, branch=2, block=99, likelihood=1.0)
    with pytest.raises(ValueError, match=r"has no log-probability, .*: use a policy engine that computes them"):
        await beam(engine, engine, PROMPT, beam=shape, sampling=LONG, seed=0)


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
    """AlphaMath leaves the order of tied values open."""

    def grow(finished: Literal["retire", "compete"]) -> Tree:
        shape, recorded = Beam(keep, branch, block=99, finished=finished), WithoutTies(seed)
        limits = Sampling(max_tokens=longest)
        return asyncio.run(beam(recorded, recorded, PROMPT, beam=shape, sampling=limits, seed=0))

    tree, expected = grow("compete"), alphamath(WithoutTies(seed), keep, branch, longest)
    assert sorted([(leaf.value, tree.path(leaf.id)) for leaf in tree.leaves()], reverse=True) == expected
    assert tree.canonical().usage() == tree.usage()
    if keep == 1:
        assert tree.canonical().to_json() == grow("retire").canonical().to_json()
