"""The early stop: what votes, what is cancelled, and what it saves."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vgs_ray.config import Beam, Sampling
from vgs_ray.data.tokens import Tokens
from vgs_ray.engines.interface import Completion, Interrupted
from vgs_ray.engines.scripted import ScriptedPolicy, ScriptedValue, World
from vgs_ray.search.adaptive import answers_needed, is_decided
from vgs_ray.search.early_stop import EarlyStop
from vgs_ray.search.explore import beam, sample
from vgs_ray.search.tree import Node, Tree

WORLD = World(steps=24, slip=0.05)
PROMPT = (3,)
LONG = Sampling(max_tokens=40)
SHAPE = Beam(keep=1, branch=2, block=6, groups=16)


def answer(tree: Tree, leaf: Node) -> str:
    """The number of slips, so that wrong answers differ from each other."""
    return str(sum(tree.path(leaf.id)[:-1]))


def early(confidence: float, selector: str = "weighted_majority") -> EarlyStop:
    return EarlyStop(confidence, answer, str.__eq__, selector)  # type: ignore[arg-type]


async def grow(method: str, seed: int, stop: EarlyStop | None, latency: int = 0, order: int = 0) -> Tree:
    engines = ScriptedPolicy(WORLD, latency=latency, seed=order), ScriptedValue(WORLD, latency=latency, seed=0)
    if method == "sample":
        return await sample(*engines, PROMPT, count=16, sampling=LONG, seed=seed, stop=stop)
    return await beam(*engines, PROMPT, beam=SHAPE, sampling=LONG, seed=seed, stop=stop)


@given(
    method=st.sampled_from(["sample", "beam"]),
    selector=st.sampled_from(["best", "majority", "weighted_majority"]),
    confidence=st.floats(0.6, 1.0),
    seed=st.integers(0, 999),
    latency=st.integers(0, 9),
    order=st.integers(0, 9),
)
@settings(max_examples=40, deadline=None)
def test_the_first_groups_that_decide_are_those_of_the_whole_search(
    method: str, selector: str, confidence: float, seed: int, latency: int, order: int
) -> None:
    whole = asyncio.run(grow(method, seed, None))
    rule = early(confidence, selector)
    first = next((k for k in range(1, 16) if rule.is_decided(rule.weights(whole, k), 16 - k)), None)
    stop = early(confidence, selector)
    stopped = asyncio.run(grow(method, seed, stop, latency, order))

    assert stop.groups == first
    voting = [leaf for leaf in whole.leaves() if leaf.group < (first or 16)]
    assert [(stopped.path(leaf.id), leaf.value) for leaf in stopped.leaves()] == [
        (whole.path(leaf.id), leaf.value) for leaf in voting
    ]
    assert stopped.usage().generated <= whole.usage().generated


async def test_a_decided_vote_saves_tokens_and_waits_for_no_more_answers_than_it_needs() -> None:
    spent = {
        confidence: (await grow("beam", 5, early(confidence) if confidence else None)).usage().generated
        for confidence in (0.0, 0.99, 0.8)
    }
    assert spent[0.8] < spent[0.99] < spent[0.0]


@given(confidence=st.floats(0.51, 1.0), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_best_stops_at_the_first_answer_whose_value_reaches_the_confidence(confidence: float, seed: int) -> None:
    whole = asyncio.run(grow("beam", seed, None))
    first = next((group for group in range(15) if highest(whole, group) >= confidence), None)
    stop = early(confidence, "best")
    stopped = asyncio.run(grow("beam", seed, stop))
    assert stop.groups == (None if first is None else first + 1)
    if first is not None and first < 4:  # the first waves have one group each
        assert max(node.group for node in stopped.nodes) == first


def highest(tree: Tree, group: int) -> float:
    """The highest value of the finished answers of a group."""
    return max(
        (leaf.value or 0.0 for leaf in tree.leaves() if (leaf.group, leaf.state) == (group, "finished")), default=0.0
    )


class SlowPolicy(ScriptedPolicy):
    """Answers the first calls. Holds the others until they are cancelled, with three sampled tokens."""

    def __init__(self, world: World, fast: int) -> None:
        super().__init__(world)
        self.fast, self.calls, self.cancelled = fast, 0, 0

    async def extend(self, prefix: Tokens, sampling: Sampling, seed: int) -> Completion:
        self.calls += 1
        if self.calls <= self.fast:
            return await super().extend(prefix, sampling, seed)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise Interrupted(Completion((0, 0, 0), False, "length", 0.0, len(prefix))) from None
        raise AssertionError


async def test_the_first_wave_has_the_answers_that_can_decide() -> None:
    """At a confidence of 0.9, three equal answers decide a majority."""
    policy, stop = SlowPolicy(World(24, 0.0), fast=3), early(0.9, "majority")
    tree = await asyncio.wait_for(sample(policy, None, PROMPT, count=9, sampling=LONG, seed=0, stop=stop), 5)
    assert stop.groups == 3 == len(tree.leaves()) == policy.calls


async def test_cancelled_groups_do_not_vote_and_what_they_spent_is_counted() -> None:
    """Two groups of 3 answers are the first wave. The first group decides, because its vote counts more than is possible."""
    shape = Beam(keep=3, branch=1, block=99, groups=4)
    policy, stop = SlowPolicy(World(24, 0.0), fast=3), early(0.95, "majority")
    stop.weights = lambda tree, groups: [4.0]  # type: ignore[method-assign]
    tree = await asyncio.wait_for(
        beam(policy, ScriptedValue(WORLD), PROMPT, beam=shape, sampling=LONG, seed=0, stop=stop), 5
    )
    assert stop.groups == 1
    assert (policy.calls, policy.cancelled) == (6, 3)
    assert [leaf.group for leaf in tree.leaves()] == [0, 0, 0]
    assert [node.tokens for node in tree.nodes if node.group == 1] == [(0, 0, 0)] * 3
    assert {node.state for node in tree.nodes if node.group == 1} == {"pruned"}
    assert tree.usage().generated == 3 * 25 + 3 * 3
    assert Tree.from_json(tree.to_json()).nodes == tree.nodes


async def test_an_error_in_a_wave_ends_the_search() -> None:
    class Failing(ScriptedPolicy):
        async def extend(self, prefix: Tokens, sampling: Sampling, seed: int) -> Completion:
            raise RuntimeError("no engine")

    with pytest.raises(RuntimeError, match="no engine"):
        await sample(Failing(WORLD), None, PROMPT, count=9, sampling=LONG, seed=0, stop=early(0.9))


@given(weights=st.lists(st.floats(0, 8), max_size=4), remaining=st.integers(1, 20), confidence=st.floats(0.6, 1.0))
def test_answers_needed_is_the_smallest_number_that_decides(
    weights: list[float], remaining: int, confidence: float
) -> None:
    needed = answers_needed(weights, remaining, confidence)
    first, second = sorted([*weights, 0.0, 0.0])[:-3:-1]
    decides = [is_decided([first + more, second], remaining - more, confidence) for more in range(needed + 1)]
    assert not any(decides[:needed])
    assert decides[needed] or needed == remaining
