"""Requests of clients for other servers: lists of one prompt, token ids, large limits, vLLM's fields, headers."""

from __future__ import annotations

import json
from typing import Any

import httpx
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_server import SETTINGS, VOCABULARY, Served, ask, decode, tokenize

from vgs_ray.config import Sampling
from vgs_ray.engines.interface import UnknownToken, check_tokens
from vgs_ray.serve.requests import ChatRequest, CompletionRequest
from vgs_ray.serve.search_spec import resolve_search

CHAT, COMPLETIONS, SCORE = "chat/completions", "completions", "score"
HALF = "\ud83e"
"""An unpaired surrogate."""


def post(served: Served, route: str, body: dict[str, Any], **more: Any) -> httpx.Response:
    needed: dict[str, Any] = {"messages": [{"role": "user", "content": "3"}]} if route == CHAT else {}
    content = json.dumps({"model": "scripted", **needed, **body})
    headers = {"content-type": "application/json", **more.pop("headers", {})}
    return httpx.post(f"{served.url}/v1/{route}", content=content, headers=headers, timeout=20, **more)


def refused(reply: httpx.Response, param: str | None, said: str) -> None:
    assert reply.status_code == 400, reply.text
    error = reply.json()["error"]
    assert (error["param"], said in error["message"]) == (param, True), error


@pytest.mark.parametrize("prompt", ["start", ["start"], list(tokenize("start")), [list(tokenize("start"))]])
def test_a_prompt_may_be_a_text_or_token_ids_and_a_list_of_one(served: Served, prompt: Any) -> None:
    wanted = served.client.completions.create(model="scripted", prompt="start", seed=1)
    reply = served.client.completions.create(model="scripted", prompt=prompt, seed=1)
    assert (reply.choices[0].text, reply.usage) == (wanted.choices[0].text, wanted.usage)
    chunks = served.client.completions.create(model="scripted", prompt=prompt, seed=1, stream=True)
    assert "".join(chunk.choices[0].text for chunk in chunks) == wanted.choices[0].text


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("prompt", "param", "said"),
    [
        (["a", "b"], "prompt", "a list of 2 prompts"),
        ([[4], [4]], "prompt", "a list of 2 prompts"),
        (["a", 4], "prompt", "a list of 2 prompts"),
        ([], "prompt", "0 tokens"),
        ([[]], "prompt", "0 tokens"),
        ([""], "prompt", "prompt is empty"),
        ([" "], "prompt", "prompt is empty"),
        ([4, "a"], "prompt.1", "integer"),
        ([4, -1], "prompt.1", "greater than or equal to 0"),
        ([[4, 1.5]], "prompt.1", "integer"),
        ([[4, True]], "prompt.1", "integer"),
        ([4, VOCABULARY], "prompt", f"token 1 has the id {VOCABULARY}; ids are 0 to {VOCABULARY - 1}"),
        ([2**31 - 1], "prompt", "ids are 0 to"),
        ([2**31], "prompt.0", "less than"),
        ([[[4]]], "prompt.0", "integer"),
        ([4] * 50, "prompt", "accepts 1 to 49"),
        (4, "prompt", "string"),
        ({}, "prompt", "string"),
        (None, "prompt", "string"),
    ],
)
def test_other_prompts_are_refused_by_name(served: Served, prompt: Any, param: str, said: str, stream: bool) -> None:
    refused(post(served, COMPLETIONS, {"prompt": prompt, "stream": stream}), param, said)


@pytest.mark.parametrize("every", [False, True])
@pytest.mark.parametrize(
    "ids",
    [
        [VOCABULARY],
        [3, 256],
        [236],
        [2**31 - 1],
        [2**31],
        [2**63],
        [10**400],
        [-1],
        [True],
        [1.0],
        ["1"],
        [None],
        [[3]],
        [],
    ],
)
def test_ids_that_the_models_do_not_have_never_reach_an_engine(served: Served, ids: list[Any], every: bool) -> None:
    scored = served.value.usage.scored
    reply = post(served, SCORE, {"input": [[3], ids], "every_token": every})
    assert reply.status_code == 400, reply.text
    assert served.value.usage.scored == scored


@settings(max_examples=200, deadline=None)
@given(ids=st.lists(st.integers() | st.integers(-2, VOCABULARY + 1), max_size=20))
def test_ids_are_checked_like_one_by_one(ids: list[int]) -> None:
    wrong = [at for at, id in enumerate(ids) if not 0 <= id < VOCABULARY]
    if not wrong:
        check_tokens(tuple(ids), VOCABULARY)
        return
    with pytest.raises(UnknownToken, match=f"token {wrong[0]} has the id {ids[wrong[0]]};"):
        check_tokens(tuple(ids), VOCABULARY)


@pytest.mark.parametrize("wrong", [1.0, "1", None, (1,), float("nan")])
def test_ids_must_be_integers(wrong: Any) -> None:
    with pytest.raises(UnknownToken, match="token 1 has"):
        check_tokens((1, wrong), VOCABULARY)


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("size", [SETTINGS.sampling.max_tokens + 1, 2**31, 2**62])
def test_a_limit_above_the_servers_is_lowered_with_a_warning(served: Served, field: str, size: int) -> None:
    body: Any = {field: size, "seed": 1}
    reply = ask(served, **body)
    plain = ask(served, seed=1)
    [warning] = reply.vgs_ray["warnings"]
    assert warning == f"{field} is {size}; this server allows at most 40 tokens per answer: it was reduced to 40"
    assert plain.vgs_ray["warnings"] == ask(served, seed=1, **{field: 40}).vgs_ray["warnings"] == []
    assert reply.choices[0].message.content == plain.choices[0].message.content
    *_, last = ask(served, stream=True, **body)
    assert last.model_extra["vgs_ray"]["warnings"] == [warning]


def test_completions_are_lowered_too(served: Served) -> None:
    reply = served.client.completions.create(model="scripted", prompt=["start"], max_tokens=4096)
    assert len(reply.vgs_ray["warnings"]) == 1
    refused(post(served, CHAT, {"max_tokens": 0}), "max_tokens", "greater than or equal to 1")
    refused(post(served, CHAT, {"search": {"max_tokens": 41}}), "search.max_tokens", "at most 40")


@pytest.mark.parametrize(
    "options", [{}, {"include_obfuscation": False}, {"include_obfuscation": None, "include_usage": None}]
)
def test_neutral_options_of_a_stream_pass(served: Served, options: Any) -> None:
    assert list(ask(served, stream=True, stream_options=options))


def test_obfuscation_is_refused(served: Served) -> None:
    for asked, said in ((True, "leave it out or send false"), (0, "boolean"), ("false", "boolean")):
        reply = post(served, CHAT, {"stream": True, "stream_options": {"include_obfuscation": asked}})
        refused(reply, "stream_options.include_obfuscation", said)


@pytest.mark.parametrize(
    ("field", "right", "wrong"),
    [
        ("top_k", [-1, 0, 1, 50, 2**31 - 1], [-2, 2**31, 1.5, True, "1"]),
        ("min_p", [0, 0.0, 0.05, 1], [-0.1, 1.1, "0", True]),
        ("repetition_penalty", [0.01, 0.9, 1, 1.3, 2.5, 100], [0, -1, 0.001, 101, 1e308, "1"]),
    ],
)
def test_vllms_fields_have_its_ranges(served: Served, field: str, right: list[Any], wrong: list[Any]) -> None:
    for value in right:
        assert post(served, CHAT, {field: value}).status_code == 200, value
    for value in wrong:
        refused(post(served, COMPLETIONS, {"prompt": "3", field: value}), field, field)


def test_vllms_fields_reach_the_sampling() -> None:
    body = {"model": "vgs", "top_k": 5, "min_p": 0.1, "repetition_penalty": 1.2, "top_p": 0.5, "temperature": 1.0}
    chat = ChatRequest.model_validate({"messages": [{"role": "user", "content": "3"}], **body})
    wanted = Sampling(1.0, 0.5, SETTINGS.sampling.max_tokens, top_k=5, min_p=0.1, repetition_penalty=1.2)
    assert resolve_search(chat, SETTINGS).sampling == wanted
    assert resolve_search(CompletionRequest.model_validate({"prompt": "3", **body}), SETTINGS).sampling == wanted
    off = ChatRequest.model_validate({"messages": [{"role": "user", "content": "3"}], "model": "vgs", "top_k": -1})
    assert resolve_search(off, SETTINGS).sampling == SETTINGS.sampling


@pytest.mark.parametrize(
    "field", ["stop_token_ids", "min_tokens", "allowed_token_ids", "bad_words", "guided_json", "use_beam_search"]
)
def test_unsupported_fields_are_named(served: Served, field: str) -> None:
    refused(post(served, CHAT, {field: [256]}), field, "not a known field")
    refused(post(served, CHAT, {"logit_bias": {"256": 5}}), "logit_bias", "leave logit_bias out")


@pytest.mark.parametrize(
    "kind", [None, "text/plain", "application/x-www-form-urlencoded", "text/json", "application/jsonp"]
)
@pytest.mark.parametrize("route", [CHAT, COMPLETIONS, SCORE])
def test_other_content_types_are_refused(served: Served, route: str, kind: str | None) -> None:
    headers = {"content-type": kind} if kind else {}
    reply = httpx.post(f"{served.url}/v1/{route}", content=b'{"model": "scripted"}', headers=headers, timeout=20)
    assert reply.status_code == 400
    error = reply.json()["error"]
    assert error["code"] == "invalid_content_type"
    assert ("is missing" if kind is None else kind) in error["message"]
    assert "send Content-Type: application/json" in error["message"]


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/JSON", "application/vnd.api+json"])
def test_json_content_types(served: Served, kind: str) -> None:
    assert post(served, CHAT, {}, headers={"content-type": kind}).status_code == 200


@pytest.mark.parametrize(
    ("route", "body", "param"),
    [
        (CHAT, {"messages": [{"role": "user", "content": f"3{HALF}"}]}, "messages"),
        (CHAT, {"messages": [{"role": "system", "content": HALF}, {"role": "user", "content": "3"}]}, "messages"),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "text", "text": HALF}]}]}, "messages"),
        (CHAT, {"messages": [{"role": "user", "content": "3", "name": HALF}]}, "messages"),
        (CHAT, {"stop": [HALF]}, "stop"),
        (CHAT, {"user": HALF}, "user"),
        (CHAT, {"metadata": {"a": HALF}}, "metadata"),
        (CHAT, {"metadata": {HALF: "a"}}, "metadata"),
        (CHAT, {"model": HALF}, "model"),
        (CHAT, {HALF: 1}, None),
        (CHAT, {"tools": [HALF]}, "tools"),
        (CHAT, {"search": {"method": HALF}}, "search"),
        (COMPLETIONS, {"prompt": HALF}, "prompt"),
        (COMPLETIONS, {"prompt": [HALF]}, "prompt"),
        (SCORE, {"input": ["a", f"{HALF}b"]}, "input"),
    ],
)
def test_an_unpaired_surrogate_is_named(served: Served, route: str, body: Any, param: str | None) -> None:
    refused(post(served, route, body), param, "unpaired surrogate")


def test_unusual_characters_are_accepted(served: Served) -> None:
    for text in (
        "\0",
        "a\0b",
        "\ud83e\udd89".encode("utf-16", "surrogatepass").decode("utf-16"),
        "\u202e3",
        "\uffff",
        "\x7f",
    ):
        assert ask(served, text, user=text, metadata={text: text}, stop=[text]).choices
        assert post(served, SCORE, {"input": [text]}).status_code == 200


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b'{"model": "scripted", "messages": ' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"model": "scripted", "input": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"model": "scripted", "logit_bias": ' + b'{"a":' * 500 + b"1" + b"}" * 500 + b"}",
        b'{"model": "scripted", "seed": 1' + b"0" * 5000 + b"}",
        b'{"model": "scripted", "temperature": NaN}',
        b'{"model": "scripted", "temperature": Infinity}',
        b'{"model": "scripted", "prompt": [NaN]}',
        b'{"model": "scripted", "input": [[1e400]]}',
        b'{"model": "scripted", "input": [[' + b'"a",' * 200_000 + b"1]]}",
        b'{"model": "scripted", "prompt": [' + b"-1," * 300_000 + b"1]}",
        b"{" + b",".join(b'"%d":1' % at for at in range(90_000)) + b"}",
        b'{"model": "scripted", "search": {' + b",".join(b'"%d":1' % at for at in range(90_000)) + b"}}",
        b'{"model": "scripted", "metadata": {' + b",".join(b'"%d":1' % at for at in range(90_000)) + b"}}",
        b'{"model": "scripted", "messages": [{"role": "user", "content": [' + b"1," * 400_000 + b"1]}]}",
        b'{"model": "scripted", "stop": [' + b"1," * 400_000 + b"1]}",
        b'{"model": "scripted"',
        b"\xff\xfe{\x00}\x00",
        b"null",
        b"",
    ],
    ids=lambda content: content[:40].decode(errors="replace").replace("\0", " "),
)
def test_hostile_json_is_a_client_error(served: Served, content: bytes) -> None:
    for route in (CHAT, COMPLETIONS, SCORE):
        reply = httpx.post(
            f"{served.url}/v1/{route}", content=content, headers={"content-type": "application/json"}, timeout=20
        )
        assert reply.status_code == 400, (route, reply.text)
        assert reply.json()["error"]["message"]


def test_raw_prompts_of_token_ids_are_searched_with_events(served: Served) -> None:
    ids = list(tokenize("start"))
    stream = served.client.completions.create(
        model="scripted", prompt=ids, stream=True, extra_body={"search": {"events": True, "seed": 1}}
    )
    chunks: Any = list(stream)
    assert chunks[0].prompt_token_ids == ids
    nodes = [chunk for chunk in chunks if "parent" in (chunk.model_extra or {})]
    assert nodes
    assert all(type(node.id) is str and type(node.parent) is str for node in nodes)
    [last] = [chunk.vgs_ray for chunk in chunks if "vgs_ray" in (chunk.model_extra or {})]
    [chosen] = [node for node in nodes if node.id == last["node"]]
    assert decode(tuple(chosen.token_ids)).endswith("}") == (chosen.state == "finished")


def test_the_official_client_gets_the_message(served: Served) -> None:
    with pytest.raises(openai.BadRequestError, match="ids are 0 to"):
        served.client.completions.create(model="scripted", prompt=[[VOCABULARY]], stream=True)
