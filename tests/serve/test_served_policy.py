"""A policy on running servers: equal completions, other servers for those that fail, and why a server is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest
from policy_server import PolicyServer
from scripted_server import WORLD, running, wait_until

from vgs_ray.config import Engine, Sampling
from vgs_ray.engines import build_policy
from vgs_ray.engines.interface import (
    SEARCH_CONTEXT,
    EngineDied,
    Grammar,
    SamplingWithGrammar,
    SamplingWithLogprobs,
    SearchContext,
)
from vgs_ray.engines.scripted import ScriptedPolicy
from vgs_ray.engines.served import KEY
from vgs_ray.sandbox import policy_path

MODEL = str(policy_path("ref"))
SAMPLING = Sampling(temperature=0.7, top_p=0.9, top_k=5, max_tokens=12, stop_token_ids=(7,))
PREFIX = (3, 0, 0, 1)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def served(stack: ExitStack, *servers: PolicyServer, **engine: Any) -> Any:
    """The policy on these servers."""
    urls = tuple(stack.enter_context(running(server.app())) for server in servers)
    return build_policy(MODEL, Engine(**{"max_model_len": 512, "step_timeout_s": 5.0, "urls": urls} | engine))


def server(**more: Any) -> PolicyServer:
    return PolicyServer(ScriptedPolicy(WORLD), MODEL, **more)


async def test_completions_are_those_of_the_engine_of_the_server(stack: ExitStack) -> None:
    one = server()
    policy = served(stack, one)
    for seed in range(5):
        expected = await ScriptedPolicy(WORLD).extend(PREFIX, SAMPLING, seed)
        found = await policy.extend(PREFIX, SAMPLING, seed)
        assert (found.tokens, found.finish_reason) == (expected.tokens, expected.finish_reason)
        assert (found.mean_logprob, found.prefilled) == (-0.5, 2)
    each = await policy.extend(PREFIX, SamplingWithLogprobs(**vars(SAMPLING)), 4)
    assert (each.tokens, each.logprobs, found.logprobs) == (found.tokens, (-0.5,) * 12, None)
    assert policy.usage.generated == 6 * 12
    assert (policy.usage.prefilled, policy.usage.cached) == (12, 12)
    sent = one.sampling[-1]
    assert sent == sent | {"model": "served", "temperature": 0.7, "top_p": 0.9, "top_k": 5, "seed": 4, "max_tokens": 12}
    assert 7 in sent["stop_token_ids"]


async def test_a_grammar_is_sent_to_the_server(stack: ExitStack) -> None:
    one = server()
    sampling = SamplingWithGrammar(**vars(SAMPLING), grammar=Grammar("regex", "[0-9]+"))
    await served(stack, one).extend(PREFIX, sampling, 1)
    assert one.sampling[-1]["structured_outputs"] == {"regex": "[0-9]+"}
    assert one.sampling[-1]["regex"] == "[0-9]+", "SGLang's field"


async def test_all_tokens_are_minus_one_which_sglang_demands(stack: ExitStack) -> None:
    one = server()
    await served(stack, one).extend(PREFIX, replace(SAMPLING, top_k=0), 1)
    assert one.sampling[-1]["top_k"] == -1


@pytest.mark.parametrize("fault", ["429", "503", "cut"])
async def test_a_call_is_repeated_on_the_next_server(stack: ExitStack, fault: str) -> None:
    servers = [server(), server()]
    policy = served(stack, *servers)
    for each in servers:
        each.faults = [fault]
    assert (await policy.extend(PREFIX, SAMPLING, 1)).tokens
    checks, faults = 2, 1
    assert sorted(each.calls["begun"] - checks for each in servers) == [faults, faults + 1]


async def test_the_calls_of_a_search_go_to_one_server_and_searches_to_all(stack: ExitStack) -> None:
    servers = [server(), server(), server()]
    policy = served(stack, *servers)
    before = [each.calls["done"] for each in servers]
    for search in range(60):  # fewer may all miss one of the servers, whose ports differ from run to run
        SEARCH_CONTEXT.set(SearchContext(f"search {search}"))
        await asyncio.gather(*(policy.extend((*PREFIX, last), SAMPLING, last) for last in (0, 1, 2)))
        after = [each.calls["done"] for each in servers]
        assert sorted(now - then for now, then in zip(after, before, strict=True)) == [0, 0, 3]
        before = after
    SEARCH_CONTEXT.set(None)
    assert min(before) > 2 + 3


async def test_a_server_that_dies_costs_no_call(stack: ExitStack) -> None:
    with ExitStack() as dying:
        url = dying.enter_context(running(server().app()))
        other = stack.enter_context(running(server().app()))
        policy = build_policy(MODEL, Engine(max_model_len=512, step_timeout_s=10.0, urls=(url, other)))
        await policy.extend(PREFIX, SAMPLING, 1)
    found = await asyncio.gather(*(policy.extend((*PREFIX, last), SAMPLING, last) for last in (0, 1) * 10))
    assert len(found) == 20


async def test_cancelling_a_call_ends_it_on_the_server(stack: ExitStack) -> None:
    one = server()
    policy = served(stack, one)
    one.faults = ["hang"]
    call = asyncio.create_task(policy.extend(PREFIX, SAMPLING, 1))
    await asyncio.sleep(0.3)
    call.cancel()
    await asyncio.to_thread(wait_until, lambda: one.calls["cancelled"] == 1)


async def test_no_answer_within_the_limit(stack: ExitStack) -> None:
    one = server()
    policy = served(stack, one, step_timeout_s=0.5)
    one.faults = ["hang"]
    with pytest.raises(EngineDied, match=r"within 0\.5 s"):
        await policy.extend(PREFIX, SAMPLING, 1)
    one.faults = ["503"] * 20
    with pytest.raises(EngineDied, match="answered 503"):
        await policy.extend(PREFIX, SAMPLING, 1)


async def test_a_call_that_is_refused_for_good_is_not_repeated(stack: ExitStack) -> None:
    one = server()
    policy = served(stack, one)
    one.faults, before = ["400"], one.calls["begun"]
    with pytest.raises(ValueError, match="fault 400"):
        await policy.extend(PREFIX, SAMPLING, 1)
    assert one.calls["begun"] == before + 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"without_ids": True}, "returns no token ids"),
        ({"shift": 1}, "reads a text as other tokens"),
        ({"max_model_len": 100}, "has a max_model_len of 100"),
        ({"key": "secret"}, "answered 401"),
    ],
)
def test_a_server_that_can_not_be_used_is_refused_with_the_reason(
    stack: ExitStack, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        served(stack, server(**options))


def test_the_key_is_read_from_the_environment(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, "secret")
    served(stack, server(key="secret"))


def test_a_server_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="can't be reached"):
        build_policy(MODEL, Engine(urls=("http://127.0.0.1:9",)))
