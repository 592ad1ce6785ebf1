"""Policy and value in one process: the room in their caches, what they forward, and how the policy is scheduled."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny import TINY_ENGINE

from vgs_ray.config import Beam, Sampling
from vgs_ray.engines import build_engines, build_policy
from vgs_ray.engines.facts import cache_block, cache_tokens, sampled_so_far
from vgs_ray.engines.interface import Interrupted
from vgs_ray.engines.random_value import RandomValue
from vgs_ray.models import RANDOM
from vgs_ray.search.explore import beam
from vgs_ray.search.tree import Node


def test_tokens_that_both_caches_hold(policy: Any, value: Any) -> None:
    token = 2 * 2 * 2 * 32 * 4  # bytes of keys and values: layers, heads, head size, float32
    held = TINY_ENGINE.kv_cache_gib * 2**30 / token
    assert held - 32 < cache_tokens(policy, value) <= held
    assert cache_tokens(policy, RandomValue()) == cache_tokens(policy, value)
    assert cache_tokens(RandomValue()) == math.inf


def test_a_policy_beside_another_engine_does_not_return_before_the_gpu_is_done(
    policy_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`loop.step_lock` says why. vLLM on CPU never schedules asynchronously, so the arguments are all that can be seen here."""

    class NotStarted(Exception):
        """Ends the start of an engine once its arguments are known."""

    def stop(args: dict[str, Any], *_: Any) -> None:
        raise NotStarted(args.get("async_scheduling", "vLLM's default"))

    monkeypatch.setattr("vgs_ray.engines.vllm._start", stop)
    folder = str(policy_folder)
    with pytest.raises(NotStarted, match="False"):
        build_engines(folder, folder, TINY_ENGINE, TINY_ENGINE)
    with pytest.raises(NotStarted, match="default"):
        build_engines(folder, RANDOM, TINY_ENGINE, TINY_ENGINE)
    with pytest.raises(NotStarted, match="default"):
        build_policy(folder, TINY_ENGINE)


async def test_aligned_blocks_are_forwarded_once(policy: Any, value: Any) -> None:
    """After the first round, the policy forwards one token of a prefix, and the value model a block and one token before it."""
    prompt = tuple(range(2, 47))
    shape = Beam(keep=1, branch=2, block=40, groups=2)
    sampling = Sampling(temperature=1.0, top_p=1.0, max_tokens=130)

    async def blocks(align: bool) -> list[Node]:
        tree = await beam(
            policy, value, prompt, beam=replace(shape, align=align), sampling=sampling, seed=3,
            cache_block=cache_block(policy, value),
        )  # fmt: skip
        return [node for node in tree.nodes if node.round > 0]

    aligned = await blocks(True)
    assert {node.round for node in aligned} >= {1, 2}
    assert {node.prefilled for node in aligned} == {1}
    assert all(node.scored <= len(node.tokens) + 1 for node in aligned)
    assert max(node.prefilled for node in await blocks(False)) > 1


async def test_a_cancelled_block_says_what_it_has_sampled(policy: Any) -> None:
    prefix, sampling = tuple(range(2, 60)), Sampling(temperature=0.0, top_p=1.0, max_tokens=120)
    before = policy.usage.generated
    call = asyncio.ensure_future(policy.extend(prefix, sampling, 0))
    while not sampled_so_far(policy.loop.engine, next(iter(policy.loop._running), "")).tokens:
        await asyncio.sleep(0.001)
    call.cancel()
    with pytest.raises(Interrupted) as caught:
        await call
    partial = caught.value.completion
    assert policy.usage.generated - before == len(partial.tokens)
    whole = await policy.extend(prefix, sampling, 0)
    assert 0 < len(partial.tokens) < len(whole.tokens)
    assert partial.tokens == whole.tokens[: len(partial.tokens)]
