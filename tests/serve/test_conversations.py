"""Requests with several messages, with scripted engines."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
from scripted_server import BREAK, Served, chat, scripted_client, scripted_searcher

from vgs_ray.data.tokens import Tokens
from vgs_ray.models import model_path
from vgs_ray.prompts import ConversationRefused, Turn, load_tokenizer, prompt_tokens

USER = {"role": "user", "content": "3"}


def test_a_conversation_is_answered_with_a_warning(served: Served) -> None:
    earlier = [{"role": "user", "content": BREAK}, {"role": "assistant", "content": "?", "reasoning_content": "..."}]
    parts = {"role": "user", "content": [{"type": "text", "text": "3"}]}
    for first in ("system", "developer"):
        reply = served.post(messages=[{"role": first, "content": "be good"}, *earlier, parts])
        assert reply.status_code == 200
        [warning] = reply.json()["vgs_ray"]["warnings"]
        assert "trained on single problems" in warning
    assert served.post(messages=[parts]).json()["vgs_ray"]["warnings"] == []


@pytest.mark.parametrize("stream", [False, True])
async def test_a_message_that_the_template_can_not_take_is_a_400(stream: bool) -> None:
    def refuse(asked: str | Sequence[Turn]) -> Tokens:
        raise ConversationRefused("the policy's chat template has no place for message 0, of the system")

    async with scripted_client(scripted_searcher(encode=refuse)) as client:
        reply = await client.post("/v1/chat/completions", json=chat(stream=stream))
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == "messages"
    assert "of the system: leave it out" in reply.json()["error"]["message"]


async def test_the_sandbox_refuses_a_system_message() -> None:
    encode = partial(prompt_tokens, load_tokenizer(model_path("sandbox:ref")))
    body = {"model": "scripted", "messages": [{"role": "system", "content": "Be brief."}, USER]}
    async with scripted_client(scripted_searcher(encode=encode, context=512)) as client:
        reply = await client.post("/v1/chat/completions", json=body)
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == "messages"
    assert "of the system, as the assistant's: leave it out" in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([USER, {"role": "assistant", "content": "4"}], "the last message is of the assistant"),
        ([{**USER, "content": "x" * 60}] * 2, "the conversation has 120 characters"),
    ],
)
def test_conversations_that_are_refused(served: Served, messages: list[dict[str, Any]], said: str) -> None:
    reply = served.post(messages=messages)
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == "messages"
    assert said in reply.json()["error"]["message"]
