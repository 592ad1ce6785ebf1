"""Streams, presets, deadlines, metrics and admission of the endpoint."""

from __future__ import annotations

import asyncio
import http.client
import json
from functools import partial
from typing import Any

import httpx
import openai
import pytest
from scripted_server import (
    DIE,
    HANG,
    LONG,
    SETTINGS,
    WORLD,
    HangsAfterTwoBlocks,
    Moody,
    Served,
    ask,
    decode,
    encode,
    scripted_client,
    scripted_searcher,
    tokenize,
    wait_until,
)  # fmt: skip

from vgs_ray.search.tree import Tree
from vgs_ray.serve.search_spec import SearchSpec

SEED: Any = {"search": {"seed": 5}}


def test_a_stream_has_the_content_of_the_reply(served: Served) -> None:
    whole = ask(served, extra_body=SEED)
    chunks = list(ask(served, stream=True, stream_options={"include_usage": True}, extra_body=SEED))
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert deltas[0].role == "assistant"
    assert "".join(delta.content or "" for delta in deltas) == whole.choices[0].message.content
    thought = "".join((delta.model_extra or {}).get("reasoning_content", "") for delta in deltas)
    assert thought == whole.choices[0].message.reasoning_content
    *_, last, usage = chunks
    assert last.choices[0].finish_reason == "stop"
    assert last.model_extra["vgs_ray"]["votes"] == whole.model_extra["vgs_ray"]["votes"]
    assert usage.choices == []
    assert usage.usage == whole.usage
    assert len({chunk.id for chunk in chunks}) == 1
    assert not any(chunk.usage for chunk in ask(served, stream=True))


def frames(served: Served, **body: Any) -> list[tuple[str, Any]]:
    """(event, data) of every frame."""
    found = []
    with httpx.stream("POST", f"{served.url}/v1/chat/completions", timeout=10, json={
        "model": "scripted", "messages": [{"role": "user", "content": "3"}], "stream": True, **body,
    }) as reply:  # fmt: skip
        assert reply.headers["content-type"].startswith("text/event-stream")
        for frame in "".join(reply.iter_text()).split("\n\n")[:-1]:
            lines = dict(line.split(": ", 1) for line in frame.splitlines())
            found.append((lines.get("event", ""), lines["data"]))
    return found


def test_events_are_the_tree(served: Served) -> None:
    found = frames(served, search={"seed": 5, "events": True})
    nodes = [json.loads(data) for event, data in found if event == "vgs_ray.node"]
    assert [node["id"] for node in nodes] == [str(at) for at in range(1, len(nodes) + 1)]  # as in OpenAI's chunks
    assert all(int(node["parent"]) < int(node["id"]) for node in nodes)
    leaves = [node for node in nodes if node["state"] in ("finished", "length")]
    last = json.loads(found[-2][1])
    assert sorted(leaf["value"] for leaf in leaves) == sorted(leaf["value"] for leaf in last["vgs_ray"]["leaves"])
    chosen = nodes[int(last["vgs_ray"]["node"]) - 1]
    assert (chosen["state"], chosen["value"]) == ("finished", last["vgs_ray"]["value"])
    assert sum(node["tokens"] for node in nodes) == ask(served, extra_body=SEED).usage.completion_tokens
    assert found[-1] == ("", "[DONE]")
    assert not any(event for event, _ in frames(served))
    assert all(len(node["token_ids"]) == node["tokens"] for node in nodes)
    assert nodes[0]["text"] == decode(tuple(nodes[0]["token_ids"]))
    times = [node["seconds"] for node in nodes]
    assert 0 < times[0] <= times[-1] < 10
    assert times == sorted(times)


def test_the_first_event_describes_the_search(served: Served) -> None:
    (event, data), *_ = frames(served, search={"events": True, "budget": 16})
    assert event == "vgs_ray.start"
    start = json.loads(data)
    assert start["prompt_token_ids"] == list(encode("3"))
    assert start["queue_position"] == 0
    seed = start["search"].pop("seed")
    assert start["search"] == {"method": "beam", "budget": 16, "keep": 2, "branch": 2, "block": 6, "groups": 4,
                               "align": False, "select": "weighted_majority", "confidence": None,
                               "min_confidence": None, "max_tokens": 40,
                               "deadline_s": None}  # fmt: skip
    again = ask(served, extra_body={"search": {"budget": 16, "seed": seed}}).model_extra["vgs_ray"]
    told = json.loads(frames(served, search={"events": True, "budget": 16, "seed": seed})[-2][1])["vgs_ray"]
    assert again["leaves"] == told["leaves"]
    sample = json.loads(frames(served, model="policy", search={"events": True})[0][1])["search"]
    assert (sample["method"], sample["budget"], "keep" in sample) == ("sample", 1, False)


def test_the_official_client_reads_a_stream_with_events(served: Served) -> None:
    body: Any = {"search": {"seed": 5, "events": True}}
    chunks = list(ask(served, stream=True, extra_body=body))
    said = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(said) == ask(served, extra_body=SEED).choices[0].message.content


def test_an_error_in_a_stream_is_an_event(served: Served) -> None:
    with pytest.raises(openai.APIError, match="an engine is unavailable"):
        list(ask(served, DIE, stream=True))
    with pytest.raises(openai.APIError, match="shorten the problem"):
        list(ask(served, LONG, stream=True))
    assert "secret" not in str(frames(served, messages=[{"role": "user", "content": DIE}]))


def test_a_client_that_stops_reading_ends_its_search(served: Served) -> None:
    host, port = served.url.removeprefix("http://").split(":")
    started, cancelled = served.policy.started, served.policy.cancelled
    connection = http.client.HTTPConnection(host, int(port))
    body = {"model": "scripted", "stream": True, "messages": [{"role": "user", "content": HANG}]}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"})
    wait_until(lambda: served.policy.started == started + 8)
    connection.close()
    wait_until(lambda: served.policy.cancelled == cancelled + 8)


@pytest.mark.parametrize(
    ("model", "leaves"), [("vgs", 4), ("vgs-fast", 2), ("best-of-n", 8), ("majority", 8), ("policy", 1)]
)
def test_model_names_are_presets(served: Served, model: str, leaves: int) -> None:
    messages: Any = [{"role": "user", "content": "3"}]
    reply = served.client.chat.completions.create(model=model, messages=messages)
    assert reply.model == model
    assert len(reply.model_extra["vgs_ray"]["leaves"]) == leaves


def test_a_request_overrides_its_preset(served: Served) -> None:
    messages: Any = [{"role": "user", "content": "3"}]
    for model, search, leaves in (
        ("vgs-fast", {"budget": 16}, 8), ("majority", {"budget": 3}, 3), ("policy", {"method": "beam"}, 4),
    ):  # fmt: skip
        body: Any = {"search": search}
        reply = served.client.chat.completions.create(model=model, messages=messages, extra_body=body)
        assert len(reply.model_extra["vgs_ray"]["leaves"]) == leaves


def test_completions_continue_the_prompt(served: Served) -> None:
    reply = served.client.completions.create(model="scripted", prompt="start", seed=1)
    assert reply.usage.prompt_tokens == len(tokenize("start"))
    assert reply.choices[0].text.startswith("<think>")
    assert reply.choices[0].finish_reason == "stop"
    chunks = list(served.client.completions.create(model="scripted", prompt="start", seed=1, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == reply.choices[0].text
    with pytest.raises(openai.BadRequestError, match="prompt is empty"):
        served.client.completions.create(model="scripted", prompt=" ")


def spec(**more: Any) -> SearchSpec:
    settings = SETTINGS
    return SearchSpec("3", "beam", "weighted_majority", settings.beam, 8, settings.sampling, 1, **more)


async def test_a_deadline_returns_the_best_answer_so_far() -> None:
    policy = HangsAfterTwoBlocks(WORLD)
    found = await scripted_searcher(policy).solve(spec(deadline_s=0.3))
    assert found.late
    assert found.finish_reason() == "length"
    assert 0.3 <= found.seconds < 5
    assert {leaf.tokens for leaf in found.leaves} == {12}
    assert policy.cancelled == policy.started == 8
    assert found.usage.generated == 2 * 8 * 6


async def test_a_deadline_that_is_not_met_changes_nothing() -> None:
    search = scripted_searcher()
    without, within = await search.solve(spec()), await search.solve(spec(deadline_s=60.0))
    assert within.leaves == without.leaves
    assert not within.late


def test_a_deadline_before_the_first_block_is_an_error(served: Served) -> None:
    with pytest.raises(openai.APIStatusError, match="deadline_s") as refused:
        ask(served, HANG, extra_body={"search": {"deadline_s": 0.2}})
    assert refused.value.status_code == 504


def test_a_tree_that_is_cut_ends_where_nothing_continued() -> None:
    tree = Tree((1,))
    first = tree.add(0, group=0, round=0, index=0, tokens=(2,), score=None, state="kept")
    tree.add(first.id, group=0, round=1, index=0, tokens=(3,), score=None, state="kept")
    tree.add(0, group=0, round=0, index=1, tokens=(4,), score=None, state="pruned")
    assert [tree.path(leaf.id) for leaf in tree.cut().leaves()] == [(2, 3)]
    assert not tree.leaves()


def test_metrics_count_searches_and_tokens(served: Served) -> None:
    def read() -> dict[str, float]:
        lines = httpx.get(f"{served.url}/metrics").text.splitlines()
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}

    before = read()
    usage = ask(served).usage
    after = read()
    assert after['vgs_ray_searches_total{end="done"}'] == before.get('vgs_ray_searches_total{end="done"}', 0) + 1
    generated = 'vgs_ray_tokens_total{kind="generated"}'
    assert after[generated] == before.get(generated, 0) + usage.completion_tokens
    assert after["vgs_ray_searches_running"] == 0
    assert httpx.get(f"{served.url}/readyz").json() == {"status": "ready"}


async def test_a_full_server_sends_retry_after() -> None:
    policy = Moody(WORLD)
    body: dict[str, Any] = {"model": "scripted", "messages": [{"role": "user", "content": HANG}]}
    async with scripted_client(scripted_searcher(policy), max_beams=20) as client:
        post = partial(client.post, "/v1/chat/completions")
        running = [asyncio.create_task(post(json=body)) for _ in range(2)]
        while policy.started < 16:
            await asyncio.sleep(0.01)
        for stream in (False, True):
            refused = await post(json={**body, "stream": stream})
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "5")
            assert "16 beams are running (at most 20)" in refused.json()["error"]["message"]
        small = {"model": "policy", "messages": [{"role": "user", "content": "3"}]}
        assert (await post(json=small)).status_code == 200
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        async with asyncio.timeout(5):  # the beams are released
            while (await post(json={**body, "messages": small["messages"]})).status_code != 200:
                await asyncio.sleep(0.01)
