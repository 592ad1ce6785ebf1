"""`/v1/responses` with the `openai` package: replies, named events, input of several messages, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter
from scripted_server import (
    BREAK,
    SETTINGS,
    VOCABULARY,
    WORLD,
    HangsAfterTwoBlocks,
    Served,
    ask,
    running,
    scripted_client,
    scripted_searcher,
)

from vgs_ray.search.answer_probability import AnswerProbability, FittedProbabilities
from vgs_ray.serve.app import create_app
from vgs_ray.serve.responses_request import ResponsesRequest
from vgs_ray.serve.search_spec import CONVERSATION_WARNING, Conversation, resolve_search

FITTED = FittedProbabilities(SETTINGS.beam, SETTINGS.sampling, (4, 16), {"beam": AnswerProbability(1, 1, 0.5, 0.2, -1)})
SEED: Any = {"search": {"seed": 1}}
NAMES = [
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.content_part.added",
    "response.reasoning_text.delta",
    "response.reasoning_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.completed",
]


def strict(response: Any) -> None:
    """Check a response against the types of the `openai` package, which its client does not do."""
    Response.model_validate(response.to_dict())


def test_a_response_is_the_answer_of_a_chat_completion(served: Served) -> None:
    response = served.client.responses.create(model="vgs", input="3", extra_body=SEED)
    strict(response)
    chat = ask(served, seed=1)
    assert response.output_text == chat.choices[0].message.content
    reasoning, message = response.output
    assert (reasoning.type, message.type) == ("reasoning", "message")
    assert reasoning.content[0].text == chat.choices[0].message.reasoning_content  # type: ignore[union-attr, index]
    assert (response.status, response.error, response.incomplete_details) == ("completed", None, None)
    assert (response.store, response.temperature) == (False, SETTINGS.sampling.temperature)  # type: ignore[attr-defined]
    found: Any = response.model_extra["vgs_ray"]
    assert found["votes"] == chat.vgs_ray["votes"]
    usage: Any = response.usage
    assert (usage.input_tokens, usage.output_tokens) == (chat.usage.prompt_tokens, chat.usage.completion_tokens)
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens
    assert 0 < usage.output_tokens_details.reasoning_tokens < usage.output_tokens


async def test_the_asynchronous_client_and_its_stream(served: Served) -> None:
    async with openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="none", timeout=20) as client:
        whole = await client.responses.create(model="vgs", input="3", extra_body=SEED)
        stream = await client.responses.create(model="vgs", input="3", extra_body=SEED, stream=True)
        events = [event async for event in stream]
    assert [event.type for event in events] == NAMES
    assert [event.sequence_number for event in events] == list(range(len(events)))
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == whole.output_text
    assert events[-1].response.output_text == text  # type: ignore[union-attr]
    for event in events:
        TypeAdapter(ResponseStreamEvent).validate_python(event.to_dict())


def test_the_clients_own_stream_helper(served: Served) -> None:
    whole = served.client.responses.create(model="vgs", input="3", extra_body=SEED)
    with served.client.responses.stream(model="vgs", input="3", extra_body=SEED) as stream:
        told = [event.snapshot for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert told[-1] == final.output_text == whole.output_text
    assert final.usage == whole.usage


def test_a_stream_has_events_names_and_no_done(served: Served) -> None:
    body = {"model": "vgs", "input": "3", "stream": True, **SEED}
    text = httpx.post(f"{served.url}/v1/responses", json=body, timeout=20).text
    frames = [frame.split("\n") for frame in text.strip().split("\n\n") if not frame.startswith(":")]
    assert [event.removeprefix("event: ") for event, _ in frames] == NAMES
    assert all(
        json.loads(data.removeprefix("data: "))["type"] == event.removeprefix("event: ") for event, data in frames
    )


def test_messages_and_the_output_of_an_earlier_response_are_a_conversation(served: Served) -> None:
    first = served.client.responses.create(model="vgs", input="3", instructions="Be brief.")
    assert first.instructions == "Be brief."
    items: Any = [
        {"role": "user", "content": [{"type": "input_text", "text": "3"}]},
        *(item.to_dict() for item in first.output),
        {"type": "message", "role": "user", "content": "4"},
    ]
    second = served.client.responses.create(model="vgs", input=items, instructions="Be brief.")
    assert CONVERSATION_WARNING in second.model_extra["vgs_ray"]["warnings"]
    request = ResponsesRequest.model_validate({"model": "vgs", "input": items, "instructions": "Be brief."})
    problem = resolve_search(request.as_chat(), SETTINGS).problem
    assert isinstance(problem, Conversation)
    assert [turn.role for turn in problem.turns] == ["system", "user", "assistant", "user"]
    assert [turn.text for turn in problem.turns] == ["Be brief.", "3", first.output_text, "4"]


def test_limits_effort_and_sampling_reach_the_search(served: Served) -> None:
    body = {"model": "vgs", "input": "3", "max_output_tokens": 7, "reasoning": {"effort": "high"}, "temperature": 0.3}
    spec = resolve_search(ResponsesRequest.model_validate(body).as_chat(), SETTINGS)
    assert (spec.sampling.max_tokens, spec.budget, spec.sampling.temperature) == (7, 16, 0.3)
    assert spec.problem == "3"
    cut: Any = served.client.responses.create(**body)
    strict(cut)
    assert (cut.status, cut.incomplete_details.reason, cut.output_text) == ("incomplete", "max_output_tokens", "")
    assert [item.type for item in cut.output] == ["reasoning"]
    last = [*served.client.responses.create(**body, stream=True)][-1]
    assert (last.type, last.response.status) == ("response.incomplete", "incomplete")
    large: Any = served.client.responses.create(model="vgs", input="3", max_output_tokens=9999)
    assert large.vgs_ray["warnings"][0].startswith("max_output_tokens is 9999;")


def test_log_probabilities(served: Served) -> None:
    include: Any = ["message.output_text.logprobs", "reasoning.encrypted_content"]
    response: Any = served.client.responses.create(model="vgs", input="3", include=include, extra_body=SEED)
    strict(response)
    assert response.output[-1].content[0].logprobs
    plain: Any = served.client.responses.create(model="vgs", input="3", extra_body=SEED)
    assert plain.output[-1].content[0].logprobs == []
    events: Any = served.client.responses.create(model="vgs", input="3", include=include, extra_body=SEED, stream=True)
    [told] = [event.logprobs for event in events if event.type == "response.output_text.done"]
    assert [each.logprob for each in told] == [each.logprob for each in response.output[-1].content[0].logprobs]


@pytest.fixture(scope="module")
def evaluated() -> Iterator[openai.OpenAI]:
    searcher = scripted_searcher(probabilities=FITTED, vocabulary=VOCABULARY)
    with running(create_app(searcher, SETTINGS)) as url:
        yield openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=20)


def test_an_abstention_is_a_refusal(evaluated: openai.OpenAI) -> None:
    asked: Any = {"model": "vgs", "input": "3", "extra_body": {"search": {"seed": 3, "min_confidence": 1.0}}}
    response: Any = evaluated.responses.create(**asked)
    strict(response)
    assert (response.status, response.output_text) == ("completed", "")
    part = response.output[-1].content[0]
    assert (part.type, response.vgs_ray["abstained"]) == ("refusal", True)
    events: Any = list(evaluated.responses.create(**asked, stream=True))
    for event in events:
        TypeAdapter(ResponseStreamEvent).validate_python(event.to_dict())
    [done] = [event for event in events if event.type == "response.refusal.done"]
    assert done.refusal == part.refusal


@pytest.mark.parametrize(
    ("body", "param", "said"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id", "send the earlier messages in input"),
        ({"conversation": "conv_1"}, "conversation", "the server stores no responses"),
        ({"store": True}, "store", "the server stores no responses: leave store out or send false"),
        ({"background": True}, "background", "the server stores no responses"),
        ({"tools": [{"type": "web_search"}]}, "tools", "leave tools out"),
        ({"text": {"format": {"type": "xml"}}}, "text.format", "xml"),
        ({"truncation": "auto"}, "truncation", 'send \\"disabled\\"'),
        ({"top_logprobs": 3}, "top_logprobs", "of the sampled token only"),
        ({"n": 2}, "n", "not a known field"),
        ({"messages": []}, "messages", "not a known field"),
        ({"search": {"events": True}}, "search.events", "use /v1/chat/completions"),
        ({"search": {"budget": 10**6}}, "search.budget", "at most 32"),
        ({"reasoning": {"effort": "much"}}, "reasoning.effort", "much"),
        ({"input": ""}, "input", "is empty"),
        ({"input": []}, "input", "at least 1"),
        ({"input": [{"role": "assistant", "content": "3"}]}, "input", "end with a message of the user"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input.0.content.0.type", "input_text"),
        ({"input": [{"type": "function_call_output", "call_id": "a", "output": "3"}]}, "input.0.type", "message"),
        ({"input": "3" * 101}, "input", "at most 100"),
        ({"model": "gpt"}, "model", "scripted"),
        ({"max_output_tokens": 0}, "max_output_tokens", "greater"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_refused_is_named(served: Served, body: Any, param: str | None, said: str) -> None:
    reply = httpx.post(f"{served.url}/v1/responses", json={"model": "vgs", "input": "3", **body}, timeout=20)
    assert reply.status_code == (404 if body.get("model") else 400), reply.text
    error = reply.json()["error"]
    assert said in json.dumps(error["message"])
    assert param is None or error["param"] == param


def test_neutral_values_of_clients_pass(served: Served) -> None:
    neutral: Any = {
        "store": False, "background": False, "tools": [], "tool_choice": "auto", "parallel_tool_calls": True,
        "text": {"format": {"type": "text"}}, "truncation": "disabled", "metadata": {"a": "b"}, "user": "me",
        "previous_response_id": None, "stream_options": {"include_obfuscation": False},
    }  # fmt: skip
    response = served.client.responses.create(model="vgs", input="3", **neutral)
    assert response.metadata == {"a": "b"}


def test_failures_are_raised_from_a_stream(served: Served) -> None:
    with pytest.raises(openai.InternalServerError):
        served.client.responses.create(model="vgs", input=BREAK)
    with pytest.raises(openai.APIError, match="the search failed"):
        list(served.client.responses.create(model="vgs", input=BREAK, stream=True))


async def test_a_deadline_leaves_an_incomplete_response() -> None:
    body = {"model": "vgs", "input": "3", "search": {"deadline_s": 0.3}}
    async with scripted_client(scripted_searcher(HangsAfterTwoBlocks(WORLD))) as client:
        reply = (await client.post("/v1/responses", json=body)).json()
    assert (reply["status"], reply["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
