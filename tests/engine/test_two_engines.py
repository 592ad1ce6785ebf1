"""Policy and value in one process: the room in their caches, and how the policy is scheduled."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from tiny import TINY_ENGINE

from vgs_ray.engines import build_engines, build_policy
from vgs_ray.engines.facts import cache_tokens
from vgs_ray.engines.random_value import RandomValue
from vgs_ray.models import RANDOM


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
