"""Every body gets a reply in OpenAI's format, without a 500 and without a hang."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scripted_server import SETTINGS, VOCABULARY, Served

TEXT = st.text(st.characters(codec="utf-8") | st.characters(categories=["Cs"]) | st.just("\0"), max_size=20)
"""Includes unpaired surrogates, which JSON can encode."""
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
IDS = st.lists(st.integers(-1, VOCABULARY), max_size=60)
SMALL = st.integers(-1, 40)
SEARCH = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("budget", "keep", "branch", "block", "groups", "max_tokens", "seed"), SMALL | SCALARS),
        "method": st.sampled_from(["beam", "sample"]) | SCALARS,
        "select": st.sampled_from(["best", "majority", "weighted_majority"]) | SCALARS,
        "deadline_s": st.floats(0.001, 5) | SCALARS,
        "events": st.booleans(),
        "align": st.booleans() | SCALARS,
        "confidence": st.floats(0, 1.1) | SCALARS,
        "min_confidence": st.floats(0, 1.1) | SCALARS,
    },
)
FIELDS = {
    "model": st.sampled_from(["scripted", "vgs", "policy", "majority"]) | SCALARS,
    "messages": st.just([{"role": "user", "content": "3"}]) | JSON,
    "prompt": st.just("start") | IDS | st.lists(IDS | TEXT, max_size=2) | JSON,
    "input": st.just([[3, 0]]) | st.lists(IDS | st.text(max_size=60), max_size=3) | JSON,
    "search": SEARCH | JSON,
    "stream": st.booleans() | SCALARS,
    "stream_options": st.just({"include_usage": True}) | JSON,
    **{
        name: SMALL | st.floats(-1, 3) | SCALARS
        for name in (
            "temperature",
            "top_p",
            "top_k",
            "min_p",
            "repetition_penalty",
            "max_tokens",
            "seed",
            "n",
            "from_token",
        )
    },
    "reasoning_effort": st.sampled_from(["none", "low", "high"]) | SCALARS,
    **dict.fromkeys(("stop", "tools", "logprobs", "user", "metadata", "every_token", "return_text", "anything"), JSON),
}
CLIENT = httpx.Client(headers={"content-type": "application/json"}, timeout=20, trust_env=False)
"""Bodies with other content types are not read."""
ROUTES = {
    "/v1/chat/completions": ("model", "messages"),
    "/v1/completions": ("model", "prompt"),
    "/v1/score": ("model", "input"),
}


@pytest.mark.parametrize("route", ROUTES)
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_body_gets_a_reply(served: Served, route: str, data: st.DataObject) -> None:
    wanted = {name: FIELDS[name] for name in ROUTES[route]}
    body = data.draw(
        st.fixed_dictionaries(wanted, optional={k: v for k, v in FIELDS.items() if k not in wanted}) | JSON
    )
    reply = CLIENT.post(f"{served.url}{route}", content=json.dumps(body))
    assert reply.status_code in (200, 400, 404, 429, 504), (reply.status_code, reply.text)
    if reply.headers["content-type"].startswith("text/event-stream"):
        assert reply.text.endswith("data: [DONE]\n\n") or '"error"' in reply.text
        return
    found: Any = reply.json()
    if reply.status_code == 200:
        assert found["model"] in (body["model"], SETTINGS.model_name)
    else:
        assert set(found["error"]) == {"message", "type", "param", "code"}
        assert found["error"]["message"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200))
def test_any_bytes_get_a_reply(served: Served, content: bytes) -> None:
    for route in ROUTES:
        reply = CLIENT.post(f"{served.url}{route}", content=content)
        assert reply.status_code == 400, reply.text
