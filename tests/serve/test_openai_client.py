"""The `openai` package with the endpoint: errors, retries, timeouts, streams, and the asynchronous client."""

from __future__ import annotations

import asyncio
import threading
import time
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
    Served,
    ask,
    serving,
    wait_until,
)

from vgs_ray.serve.access import KEYS
from vgs_ray.serve.admission import DEFAULT_RETRY_S

AT_ONCE = 50


def problem(text: str) -> Any:
    return [{"role": "user", "content": text}]


async def test_fifty_at_once_get_what_each_gets_alone(served: Served) -> None:
    async with openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0, timeout=60) as client:
        replies = await asyncio.gather(
            *(client.chat.completions.create(model="vgs", messages=problem("3"), seed=at) for at in range(AT_ONCE))
        )
    alone = [ask(served, seed=at) for at in range(AT_ONCE)]
    assert [reply.choices[0].message.content for reply in replies] == [
        reply.choices[0].message.content for reply in alone
    ]
    assert len({reply.id for reply in replies}) == AT_ONCE
    for together, single in zip(replies, alone, strict=True):
        assert together.usage.completion_tokens == single.usage.completion_tokens
        assert together.model_extra["vgs_ray"]["votes"] == single.model_extra["vgs_ray"]["votes"]


async def test_an_asynchronous_stream_adds_up(served: Served) -> None:
    async with openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="none", timeout=10) as client:
        stream = await client.chat.completions.create(
            model="vgs", messages=problem("3"), seed=4, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    whole = ask(served, seed=4)
    assert (
        "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        == whole.choices[0].message.content
    )
    usage = chunks[-1].usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"


def test_a_client_timeout_cancels_the_search(served: Served) -> None:
    started, cancelled = served.policy.started, served.policy.cancelled
    with pytest.raises(openai.APITimeoutError):
        served.client.with_options(timeout=0.5).chat.completions.create(model="vgs", messages=problem(HANG))
    begun = served.policy.started - started
    assert begun > 0
    wait_until(lambda: served.policy.cancelled - cancelled == begun, seconds=1.0)


def test_closing_a_stream_ends_its_search(served: Served) -> None:
    started, cancelled = served.policy.started, served.policy.cancelled
    stream = ask(served, HANG, stream=True)
    next(iter(stream))
    wait_until(lambda: served.policy.started > started)
    begun = served.policy.started - started
    stream.close()
    wait_until(lambda: served.policy.cancelled - cancelled == begun, seconds=1.0)


def test_a_refused_client_retries() -> None:
    with serving(replace(SETTINGS, max_beams=8)) as server:
        stream = ask(server, HANG, stream=True)  # occupies all beams
        next(iter(stream))
        wait_until(lambda: server.policy.started > 0)
        with pytest.raises(openai.RateLimitError, match="8 beams are running") as refused:
            ask(server)
        assert refused.value.response.headers["retry-after"] == str(int(DEFAULT_RETRY_S))
        threading.Timer(0.5, stream.close).start()
        began = time.monotonic()
        reply = server.client.with_options(max_retries=2, timeout=30).chat.completions.create(
            model="vgs", messages=problem("3")
        )
        assert reply.choices[0].message.content
        assert time.monotonic() - began >= DEFAULT_RETRY_S - 1  # the client waited as long as Retry-After requires


@pytest.mark.parametrize("stream", [False, True])
async def test_many_clients_never_exceed_max_beams(stream: bool) -> None:
    with serving(replace(SETTINGS, max_beams=20)) as server:  # two searches of 8 beams
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=1) as client:

            async def hang() -> None:
                reply: Any = await client.chat.completions.create(model="vgs", messages=problem(HANG), stream=stream)
                async for _ in reply:
                    pass

            ends = await asyncio.gather(*(hang() for _ in range(AT_ONCE)), return_exceptions=True)
        assert server.policy.started == 16
        assert sum(isinstance(end, openai.RateLimitError) for end in ends) == AT_ONCE - 2
        wait_until(lambda: server.policy.cancelled == 16, seconds=1.0)
        for _ in range(3):  # the beams are released
            assert ask(server).choices[0].finish_reason == "stop"


@pytest.mark.parametrize(
    ("more", "raised", "param"),
    [
        ({"model": "gpt-4"}, openai.NotFoundError, "model"),
        ({"n": 129}, openai.BadRequestError, "n"),
        ({"stop": [""]}, openai.BadRequestError, "stop.0"),
        ({"logprobs": True, "top_logprobs": 5}, openai.BadRequestError, "top_logprobs"),
        ({"extra_body": {"search": {"budget": 10**6}}}, openai.BadRequestError, "search.budget"),
        ({"extra_body": {"search": {"depth": 1}}}, openai.BadRequestError, "search.depth"),
    ],
)
def test_errors_are_of_the_clients_classes(
    served: Served, more: Any, raised: type[openai.APIStatusError], param: str
) -> None:
    with pytest.raises(raised) as error:
        served.client.chat.completions.create(**{"model": "vgs", "messages": problem("3"), **more})
    assert error.value.param == param
    assert error.value.body["message"]


def test_an_api_key_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEYS, "right")
    with serving() as server:
        with pytest.raises(openai.AuthenticationError, match="API key"):
            ask(server)
        assert server.client.with_options(api_key="right").models.list().data[0].id == "scripted"


def test_raw_replies_and_completions(served: Served) -> None:
    raw = served.client.chat.completions.with_raw_response.create(model="vgs", messages=problem("3"), seed=1)
    assert raw.http_response.headers["content-type"] == "application/json"
    assert raw.parse().choices[0].message.content == ask(served, seed=1).choices[0].message.content
    told = served.client.completions.create(model="vgs", prompt="300", seed=1, max_tokens=30)
    assert told.object == "text_completion"
    assert told.usage.completion_tokens > 0


@pytest.mark.parametrize(
    ("asked", "search", "status"), [(DIE, {}, 503), (BREAK, {}, 500), (HANG, {"deadline_s": 0.1}, 504)]
)
def test_failures_are_internal_server_errors(served: Served, asked: str, search: Any, status: int) -> None:
    with pytest.raises(openai.InternalServerError) as error:
        ask(served, asked, extra_body={"search": search})
    assert error.value.status_code == status
    assert error.value.type == "server_error"


def running(server: Served) -> float:
    """Running calls and beams in the server's metrics."""
    lines = httpx.get(f"{server.url}/metrics").text.splitlines()
    names = ("vgs_ray_calls_running", "vgs_ray_beams_running")
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(names))


@pytest.mark.parametrize("stream", [False, True])
async def test_an_asynchronous_client_that_is_cancelled_leaves_empty_engines(served: Served, stream: bool) -> None:
    async with openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0, timeout=10) as client:

        async def hang() -> None:
            async for _ in await client.chat.completions.create(
                model="vgs", messages=problem(HANG), stream=stream, extra_body={"search": {"events": stream}}
            ):
                pass

        task = asyncio.create_task(hang())
        async with asyncio.timeout(5):
            while await asyncio.to_thread(running, served) < 16:  # 8 beams, each with a call
                await asyncio.sleep(0.01)
        task.cancel()
        async with asyncio.timeout(1):
            while await asyncio.to_thread(running, served):
                await asyncio.sleep(0.01)


def test_completions_stream_and_add_up(served: Served) -> None:
    asked: Any = {"model": "vgs", "prompt": "300", "seed": 1}
    whole = served.client.completions.create(**asked)
    *chunks, last = served.client.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text
    assert [chunk.choices[0].finish_reason for chunk in chunks][-1] == whole.choices[0].finish_reason
    assert (last.choices, last.usage) == ([], whole.usage)
    assert whole.usage.prompt_tokens + whole.usage.completion_tokens == whole.usage.total_tokens
    assert not any(chunk.usage for chunk in served.client.completions.create(**asked, stream=True))


def test_the_clients_own_helpers(served: Served) -> None:
    asked: Any = {"model": "vgs", "messages": problem("3"), "seed": 1}
    whole = served.client.chat.completions.create(**asked)
    with served.client.chat.completions.stream(**asked, stream_options={"include_usage": True}) as stream:
        said = [event.content for event in stream if event.type == "content.done"]
        gathered = stream.get_final_completion()
    assert said == [whole.choices[0].message.content] == [gathered.choices[0].message.content]
    assert gathered.usage == whole.usage
    assert served.client.chat.completions.parse(**asked).choices[0].message.content == said[0]
    with served.client.chat.completions.with_streaming_response.create(**asked, stream=True) as raw:
        assert raw.headers["content-type"].startswith("text/event-stream")
        assert [line for line in raw.iter_lines() if line][-1] == "data: [DONE]"


def test_events_of_blocks_are_chunks_without_choices(served: Served) -> None:
    chunks = list(ask(served, stream=True, seed=1, extra_body={"search": {"events": True}}))
    plain = list(ask(served, stream=True, seed=1))
    assert [chunk.choices[0].delta for chunk in chunks if chunk.choices] == [one.choices[0].delta for one in plain]
    assert any("parent" in (chunk.model_extra or {}) for chunk in chunks if not chunk.choices)


def test_fields_that_front_ends_send_along(served: Served) -> None:
    told = {"user": "me", "prompt_cache_key": "a", "safety_identifier": "b"}
    assert ask(served, metadata={"page": "1"}, store=False, **told).choices
    assert served.client.completions.create(model="vgs", prompt="3", best_of=1, echo=False, suffix=None).choices
    for name, asked in (("best_of", 2), ("echo", True), ("suffix", "end")):
        more: Any = {name: asked}
        with pytest.raises(openai.BadRequestError, match=f"leave {name} out"):
            served.client.completions.create(model="vgs", prompt="3", **more)
