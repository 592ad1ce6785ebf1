"""Searches, failures and disconnects, with scripted engines, a server and clients."""

from __future__ import annotations

import asyncio
import http.client
import json
from dataclasses import replace
from typing import Any

import httpx
import openai
import pytest
from scripted_server import (
    BREAK,
    DIE,
    HANG,
    SETTINGS,
    WORLD,
    Moody,
    Served,
    ask,
    scripted_client,
    scripted_searcher,
    wait_until,
)

from vgs_ray.data.tokens import Tokens
from vgs_ray.engines.interface import EngineDied
from vgs_ray.engines.scripted import END, ScriptedValue
from vgs_ray.search.flops import ModelSizes
from vgs_ray.search.model_size import NO_MODEL, ModelSize
from vgs_ray.search.tree import Node
from vgs_ray.serve.search_result import split_thought
from vgs_ray.serve.search_spec import SearchSpec


def test_the_official_client_gets_an_answer(served: Served) -> None:
    reply = ask(served, seed=7)
    choice, found = reply.choices[0], reply.model_extra["vgs_ray"]
    assert choice.finish_reason == "stop"
    assert choice.message.content == f"So \\boxed{{{found['answer']}}}"
    assert set(choice.message.reasoning_content.split()) <= {"0", "1"}
    assert found["answer"] == found["votes"][0]["answer"]
    assert len(found["leaves"]) == 4
    assert sum(vote["leaves"] for vote in found["votes"]) == 4
    winners = [leaf["value"] for leaf in found["leaves"] if leaf["answer"] == found["answer"]]
    assert found["value"] == max(winners)
    assert sum(winners) == pytest.approx(found["votes"][0]["weight"])


def test_usage_counts_what_the_engines_did(served: Served) -> None:
    before, prefilled, scored = (
        served.policy.usage.generated,
        served.policy.usage.prefilled,
        served.value.usage.scored,
    )
    reply = ask(served)
    assert reply.usage.completion_tokens == served.policy.usage.generated - before
    assert reply.usage.prompt_tokens == 1
    assert reply.usage.total_tokens == 1 + reply.usage.completion_tokens
    used = reply.model_extra["vgs_ray"]["usage"]
    assert used["scored"] == served.value.usage.scored - scored
    assert used["generated"] == reply.usage.completion_tokens
    assert reply.usage.scored_tokens == used["scored"] > 0
    assert used["prefilled"] == served.policy.usage.prefilled - prefilled
    assert reply.model_extra["vgs_ray"]["flops"] is None, "nobody knows the size of a script"


async def test_flops_are_counted_from_the_tokens() -> None:
    # One weight and no attention: 2 FLOPs for each forwarded token.
    one = ModelSize(params=1, layers=0, hidden=0)
    for sizes, of_policy, of_value in ((ModelSizes(one, one), 2, 2), (ModelSizes(one, NO_MODEL), 2, 0)):
        policy, value = Moody(WORLD), ScriptedValue(WORLD)
        searcher = scripted_searcher(policy, value, sizes=sizes)
        beam = await searcher.solve(SearchSpec("3", "beam", "majority", SETTINGS.beam, 8, SETTINGS.sampling, 1))
        forwarded = policy.usage.generated + policy.usage.prefilled
        assert beam.flops == of_policy * forwarded + of_value * value.usage.scored > 0


async def test_a_block_ends_at_a_token_of_the_delimiter() -> None:
    nodes: list[Node] = []
    shape = replace(SETTINGS.beam, block=40)
    spec = SearchSpec("3", "beam", "majority", shape, shape.budget, SETTINGS.sampling, 1)
    await scripted_searcher(block_ends=(1,)).solve(spec, nodes.append)
    assert {node.tokens[-1] for node in nodes} == {1, END}
    assert {token for node in nodes for token in node.tokens[:-1]} == {0}
    await scripted_searcher(block_ends=(1,)).solve(replace(spec, method="sample"), nodes.append)
    assert 1 in {token for node in nodes for token in node.tokens[:-1]}, "samples are whole answers"


def test_a_seed_repeats_a_search(served: Served) -> None:
    many: Any = {"method": "sample", "budget": 32}  # so many that two seeds never agree
    drawn = ask(served, extra_body={"search": many}).model_extra["vgs_ray"]
    again = ask(served, seed=drawn["seed"], extra_body={"search": many}).model_extra["vgs_ray"]
    assert again["leaves"] == drawn["leaves"]
    negative = ask(served, extra_body={"search": {**many, "seed": -5}}).model_extra["vgs_ray"]
    assert negative["seed"] == -5
    assert negative["leaves"] != drawn["leaves"]


@pytest.mark.parametrize("select", ["best", "majority", "weighted_majority"])
@pytest.mark.parametrize(
    ("search", "leaves"),
    [
        ({"method": "sample", "budget": 5}, 5),
        ({"method": "sample"}, 8),
        ({"budget": 12}, 6),
        ({"keep": 1, "branch": 3, "groups": 4, "budget": 12}, 4),
        ({"keep": 3, "block": 40}, 6),
    ],
)
def test_search_options(served: Served, select: str, search: dict[str, Any], leaves: int) -> None:
    found = ask(served, extra_body={"search": {"select": select, **search}}).model_extra["vgs_ray"]
    assert len(found["leaves"]) == leaves
    weights = [vote["weight"] for vote in found["votes"]]
    assert weights == sorted(weights, reverse=True)
    if select == "best":
        assert found["value"] == max(leaf["value"] for leaf in found["leaves"])


@pytest.mark.parametrize("shape", [{"method": "sample", "budget": 32}, {"keep": 1, "branch": 2, "groups": 16}])
def test_a_decided_vote_ends_the_search(served: Served, shape: dict[str, Any]) -> None:
    def vote(**search: Any) -> dict[str, Any]:
        return ask(served, extra_body={"search": {"seed": 4, **shape, **search}}).model_extra["vgs_ray"]

    whole, again = vote(), vote(confidence=1.0)
    assert whole["decided_after"] is None
    assert whole["answer"] == again["answer"]  # at a confidence of 1, only what cannot change the winner is left out
    early = vote(confidence=0.8)
    groups = early["decided_after"]
    assert early["leaves"] == [leaf for leaf in whole["leaves"] if leaf["group"] < groups]
    assert early["usage"]["generated"] < whole["usage"]["generated"]
    assert vote(confidence=0.8)["leaves"] == early["leaves"]


def test_a_high_value_ends_a_search_for_the_best_answer(served: Served) -> None:
    def best(**search: Any) -> dict[str, Any]:
        asked = {"seed": 4, "select": "best", "keep": 1, "branch": 2, "groups": 16, **search}
        return ask(served, extra_body={"search": asked}).model_extra["vgs_ray"]

    whole, early = best(), best(confidence=0.7)
    first = next(leaf for leaf in whole["leaves"] if leaf["answer"] and leaf["value"] >= 0.7)
    assert early["decided_after"] == first["group"] + 1 < 16
    assert (early["answer"], early["value"]) == (first["answer"], first["value"])
    assert early["usage"]["generated"] < whole["usage"]["generated"]


def test_an_answer_that_is_cut_off(served: Served) -> None:
    reply = ask(served, max_tokens=10)
    assert reply.choices[0].finish_reason == "length"
    assert reply.choices[0].message.content == ""
    assert len(reply.choices[0].message.reasoning_content.split()) == 10
    found = reply.model_extra["vgs_ray"]
    assert (found["answer"], found["votes"]) == (None, [])
    assert found["value"] == max(leaf["value"] for leaf in found["leaves"])


def test_models_and_health(served: Served) -> None:
    presets = ["scripted", "vgs", "vgs-fast", "best-of-n", "majority", "policy"]
    assert [model.id for model in served.client.models.list()] == presets
    assert served.client.models.retrieve("scripted").owned_by == "vgs_ray"
    health = httpx.get(f"{served.url}/healthz")
    assert (health.status_code, health.json()["engines"]) == (200, {"policy": "ok", "value": "ok"})
    assert (
        "search" in httpx.get(f"{served.url}/openapi.json").json()["components"]["schemas"]["ChatRequest"]["properties"]
    )


@pytest.mark.parametrize(("problem", "status"), [(DIE, 503), (BREAK, 500)])
def test_failures_reveal_only_an_error_id(served: Served, problem: str, status: int, caplog: Any) -> None:
    reply = served.post(messages=[{"role": "user", "content": problem}])
    assert reply.status_code == status
    message = reply.json()["error"]["message"]
    assert "secret" not in message
    assert "Traceback" not in reply.text
    assert message.split("err-")[1][:12] in caplog.text
    assert "secret" in caplog.text
    assert served.post().status_code == 200


async def test_concurrent_searches(served: Served) -> None:
    async with openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0, timeout=20) as client:
        messages: Any = [{"role": "user", "content": "3"}]
        calls = [client.chat.completions.create(model="scripted", messages=messages, seed=i % 4) for i in range(20)]
        replies = await asyncio.gather(*calls)
    leaves = [reply.model_extra["vgs_ray"]["leaves"] for reply in replies]  # type: ignore[index]
    assert all(leaves[i] == leaves[i % 4] for i in range(20))


def test_a_disconnect_cancels_the_search(served: Served) -> None:
    host, port = served.url.removeprefix("http://").split(":")
    started, cancelled = served.policy.started, served.policy.cancelled
    connection = http.client.HTTPConnection(host, int(port))
    body = {"model": "scripted", "messages": [{"role": "user", "content": HANG}]}
    headers = {"content-type": "application/json"}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    wait_until(lambda: served.policy.started == started + 8)
    connection.close()
    wait_until(lambda: served.policy.cancelled == cancelled + 8)


async def test_health_names_the_unavailable_engine() -> None:
    class Gone(ScriptedValue):
        async def score(self, tokens: Tokens) -> Any:
            raise EngineDied("gone")

    async with scripted_client(scripted_searcher(value=Gone(WORLD))) as client:
        reply = await client.get("/healthz")
    assert reply.status_code == 503
    assert reply.json()["engines"] == {"policy": "ok", "value": "failed (EngineDied)"}


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("<think>\na</think>\nb</think>c", ("a", "b</think>c")),
        ("a</think>", ("a", "")),
        ("unfinished", ("unfinished", "")),
    ],
)
def test_split_thought(text: str, parts: tuple[str, str]) -> None:
    assert split_thought(text) == parts
