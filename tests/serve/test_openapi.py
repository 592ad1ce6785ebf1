"""Replies conform to the endpoint's OpenAPI document."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from pydantic import TypeAdapter
from schemathesis import Case
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)
from scripted_server import (
    BREAK,
    DIE,
    HANG,
    SETTINGS,
    WORLD,
    Moody,
    chat,
    client_of,
    scripted_client,
    scripted_searcher,
)

from vgs_ray.data.tokens import Tokens
from vgs_ray.engines.interface import EngineDied, Score
from vgs_ray.engines.scripted import ScriptedValue
from vgs_ray.serve.access import KEYS
from vgs_ray.serve.app import create_app
from vgs_ray.serve.events import EventData
from vgs_ray.serve.limits import MAX_BODY_BYTES


def no_failure(_context: Any, response: schemathesis.Response, _case: Case) -> None:
    """The only 5xx allowed is 504, for a very short deadline."""
    assert response.status_code < 500 or response.status_code == 504, response.text


CHECKS = [
    no_failure,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
    unsupported_method,
]
app = create_app(scripted_searcher(), SETTINGS)
schema = schemathesis.openapi.from_asgi("/openapi.json", app)


CHAT = "/v1/chat/completions"
LIMITED = (
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "min_confidence",
    "budget",
    "keep",
    "branch",
    "block",
    "groups",
    "deadline_s",
)
seen: Counter[tuple[str, int, str]] = Counter()


def asked(case: Case) -> None:
    reply = case.call_and_validate(checks=CHECKS)
    seen[case.path, reply.status_code, reply.headers["content-type"][0].partition(";")[0]] += 1


@schema.parametrize()
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_replies_are_as_described(case: Case) -> None:
    asked(case)
    if isinstance(case.body, dict) and case.meta and case.meta.generation.mode.is_positive:
        body = fitted(case.body) | ({"input": "3"} if case.path == "/v1/responses" else {})
        for more in (
            ({"stream": False}, {"stream": True})
            if "/completions" in case.path or case.path == "/v1/responses"
            else ({},)
        ):
            case.body = {**body, **more}
            asked(case)


def fitted(body: dict[str, Any]) -> dict[str, Any]:
    """The body with this server's model and within its limits, which generated values rarely match."""
    body = {**body, "model": "vgs"}
    if "messages" in body:
        body["messages"] = [*body["messages"][1:], {"role": "user", "content": "3"}]
    if body.get("search"):
        body["search"] = {name: value for name, value in body["search"].items() if name not in LIMITED}
    return {name: value for name, value in body.items() if name not in LIMITED}


def test_searches_and_streams_were_among_them() -> None:
    if not seen:
        pytest.skip("the test above did not run")
    for path in (CHAT, "/v1/completions", "/v1/responses"):
        for kind in ("application/json", "text/event-stream"):
            assert seen[path, 200, kind] >= 5, (path, kind)
    assert seen["/v1/score", 200, "application/json"] >= 5


def test_the_document_has_no_errors_of_fastapi() -> None:
    document = app.openapi()
    assert {
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/responses",
        "/v1/score",
        "/v1/models",
        "/healthz",
        "/readyz",
        "/metrics",
    } <= set(document["paths"])
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert operation["summary"], path
            assert operation["description"], path
            assert "422" not in operation["responses"], path
            for status, reply in operation["responses"].items():
                [schema, *_] = [kind.get("schema") for kind in reply["content"].values()]
                ours = schema.get("$ref", "").endswith("/ErrorReply")
                assert ours == (status[0] in "45" and (path, status) != ("/healthz", "503")), (path, status)


class GoneValue(ScriptedValue):
    async def score(self, tokens: Tokens) -> Score:
        raise EngineDied("gone")


async def reply_of(value: ScriptedValue, method: str, path: str, body: Any, busy: bool) -> httpx.Response:
    policy = Moody(WORLD)
    async with scripted_client(scripted_searcher(policy, value), max_beams=8 if busy else 100) as client:
        other = asyncio.create_task(client.post(CHAT, json=chat(HANG))) if busy else None
        while busy and not policy.started:
            await asyncio.sleep(0.01)
        try:
            return await client.request(method, path, json=body)
        finally:
            if other:
                other.cancel()


@pytest.mark.parametrize(("path", "prompt"), [(CHAT, {"messages": [{"role": "user", "content": "3"}]}),
                                              ("/v1/completions", {"prompt": "abc"})])  # fmt: skip
async def test_events_are_as_described(path: str, prompt: dict[str, Any]) -> None:
    body = {"model": "vgs", "stream": True, "stream_options": {"include_usage": True}, "search": {"events": True}}
    async with client_of(app) as client:
        text = (await client.post(path, json=body | prompt)).text
    *events, done = re.findall("^data: (.*)$", text, re.MULTILINE)
    assert done == "[DONE]"
    described = TypeAdapter(EventData)
    for event in events:
        described.validate_json(event, strict=True)


@pytest.mark.parametrize(
    ("status", "method", "path", "body"),
    [
        (401, "GET", "/v1/models", None),
        (404, "GET", "/v1/models/gpt", None),
        (404, "POST", CHAT, chat("3", model="gpt")),
        (405, "PUT", CHAT, {}),
        (413, "POST", CHAT, chat("3" * MAX_BODY_BYTES)),
        (429, "POST", CHAT, chat("3")),
        (500, "POST", CHAT, chat(BREAK)),
        (503, "POST", CHAT, chat(DIE)),
        (503, "GET", "/healthz", None),
        (504, "POST", CHAT, chat(HANG, search={"deadline_s": 0.05})),
    ],
)
async def test_errors_of_an_unhealthy_server_are_described(
    monkeypatch: pytest.MonkeyPatch, status: int, method: str, path: str, body: Any
) -> None:
    if status == 401:
        monkeypatch.setenv(KEYS, "right")
    value = (GoneValue if path == "/healthz" else ScriptedValue)(WORLD)
    busy = status == 429
    reply = await reply_of(value, method, path, body, busy)
    assert reply.status_code == status
    described = schema[path.replace("gpt", "{name}")]["POST" if method == "PUT" else method]
    described.validate_response(reply)  # raises if it does not conform
    told = app.openapi()["paths"][described.path][described.method]["responses"][str(status)]
    assert all(name in reply.headers for name in told.get("headers", ()))
