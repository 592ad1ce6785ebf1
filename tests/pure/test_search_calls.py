"""Calls of a search to its engines: errors, cancellation, the nodes that a listener gets, and the counted tokens."""

from __future__ import annotations

import asyncio

import pytest
from search_engines import LONG, PROMPT, WORLD, Canned, engines

from vgs_ray.config import Beam, Sampling
from vgs_ray.data.tokens import Tokens
from vgs_ray.engines.interface import Completion, Score, Usage
from vgs_ray.engines.scripted import ScriptedPolicy, ScriptedValue
from vgs_ray.search.explore import beam, sample
from vgs_ray.search.tree import Node, Tree


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
