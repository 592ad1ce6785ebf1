"""Bad input: each error names the field and the remedy, and options without effect are accepted."""

from __future__ import annotations

import json
from typing import Any

import httpx
import openai
import pytest
from scripted_server import (
    LONG,
    Served,
    ask,
)

NEUTRAL = {"n": 1, "stream": False, "stop": None, "tools": [], "logprobs": False, "presence_penalty": 0.0, "user": "me"}


def test_options_without_effect_are_accepted(served: Served) -> None:
    assert served.post(**NEUTRAL, temperature=0, top_p=1).status_code == 200


BAD: list[tuple[dict[str, Any], str | None, str]] = [
    ({"stream": 1}, "stream", "boolean"),
    ({"search": {"deadline_s": 0}}, "search.deadline_s", "greater than 0"),
    ({"n": 0}, "n", "greater than or equal to 1"),
    ({"n": True}, "n", "true"),
    ({"tools": [{"type": "function"}]}, "tools", "not supported"),
    ({"top_logprobs": 3}, "top_logprobs", "send 0"),
    ({"stop": [""]}, "stop.0", "at least 1 character"),
    ({"stop": ["a"] * 5}, "stop", "at most 4"),
    ({"stop": "a" * 65}, "stop.0", "at most 64"),
    ({"response_format": {"type": "xml"}}, "response_format", "xml"),
    ({"presence_penalty": 0.5}, "presence_penalty", "0.5"),
    ({"colour": "red"}, "colour", "not a known field"),
    ({"temperature": 3}, "temperature", "less than or equal to 2"),
    ({"temperature": "hot"}, "temperature", '"hot"'),
    ({"top_p": 0}, "top_p", "greater than 0"),
    ({"seed": 2**70}, "seed", "less than"),
    ({"max_completion_tokens": 0}, "max_completion_tokens", "greater than or equal to 1"),
    ({"messages": []}, "messages", "at least 1"),
    ({"messages": "3"}, "messages", "list"),
    ({"messages": [{"role": "user", "content": " \n"}]}, "messages", "is empty"),
    ({"messages": [{"role": "user", "content": None}]}, "messages", "is empty"),
    ({"messages": [{"role": "system", "content": "3"}]}, "messages", "the last message is of the system"),
    ({"messages": [{"role": "tool", "content": "3"}]}, "messages.0.role", '"tool"'),
    ({"messages": [{"role": "user", "content": "x" * 101}]}, "messages", "at most 100"),
    ({"messages": [{"role": "user", "content": LONG}]}, "messages", "accepts 1 to 49"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages.0.content.0.type", "image_url"),
    ({"search": {"method": "mcts"}}, "search.method", '"mcts"'),
    ({"search": {"select": "vote"}}, "search.select", "'best'"),
    ({"search": {"budget": 33, "method": "sample"}}, "search.budget", "at most 32"),
    ({"search": {"budget": 36}}, "search.budget", "at most 32"),
    ({"search": {"groups": 9}}, "search", "at most 32"),
    ({"search": {"keep": 2**62}}, "search", "at most 32"),
    ({"search": {"budget": 6}}, "search.budget", "keep * branch (2 * 2)"),
    ({"search": {"budget": 8, "groups": 3}}, "search.budget", "(2 * 2 * 3)"),
    ({"search": {"budget": "8"}}, "search.budget", '"8"'),
    ({"search": {"budget": True}}, "search.budget", "true"),
    ({"search": {"block": 0}}, "search.block", "is 0"),
    ({"search": {"block": 41}}, "search.block", "at most 40"),
    ({"search": {"method": "sample", "keep": 2}}, "search.keep", "'beam'"),
    ({"search": {"max_tokens": 41}}, "search.max_tokens", "at most 40"),
    ({"search": {"depth": 3}}, "search.depth", "not a known field"),
    ({"search": {"confidence": 0.5}}, "search.confidence", "greater than 0.5"),
    ({"search": {"method": "sample", "align": True}}, "search.align", "'beam'"),
    ({"search": []}, "search", "search is []"),
]


@pytest.mark.parametrize(("body", "param", "said"), BAD, ids=lambda part: json.dumps(part)[:60])
def test_bad_input_is_named(served: Served, body: dict[str, Any], param: str | None, said: str) -> None:
    reply = served.post(**body)
    assert reply.status_code == 400
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert said in error["message"]
    assert ": " in error["message"], "the remedy follows a colon"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"3",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"model": "scripted", "messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"model": "scripted", "temperature": NaN, "messages": [{"role": "user", "content": "3"}]}',
        b'{"model": "scripted", "temperature": 1' + b"0" * 5000 + b"}",
        b'{"\\ud800": 1}',
    ],
    ids=lambda body: repr(body[:40]),
)
def test_invalid_bodies_get_an_error_in_openais_format(served: Served, body: bytes) -> None:
    url = f"{served.url}/v1/chat/completions"
    reply = httpx.post(url, content=body, headers={"content-type": "application/json"})
    assert reply.status_code == 400, reply.text
    assert reply.json()["error"]["message"]
    assert "None" not in reply.json()["error"]["message"]


def test_the_official_client_raises_its_own_errors(served: Served) -> None:
    with pytest.raises(openai.BadRequestError, match="top_logprobs"):
        ask(served, logprobs=True, top_logprobs=1)
    with pytest.raises(openai.NotFoundError, match="scripted, vgs"):
        served.client.chat.completions.create(model="gpt", messages=[{"role": "user", "content": "3"}])
    with pytest.raises(openai.NotFoundError):
        served.client.models.retrieve("gpt")
    with pytest.raises(openai.NotFoundError, match="/docs"):
        served.client.embeddings.create(model="scripted", input="3")
