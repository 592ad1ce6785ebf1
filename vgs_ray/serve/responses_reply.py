"""The reply of `/v1/responses`: its types, which also describe it in `/openapi.json`, and the functions that build it."""

from __future__ import annotations

import secrets
import time
from typing import Any, Literal, NotRequired

from pydantic import with_config
from typing_extensions import TypedDict

from vgs_ray.serve.logprob_replies import TokenReply, chat_logprobs
from vgs_ray.serve.replies import SearchReply, search_reply
from vgs_ray.serve.responses_request import ResponsesRequest
from vgs_ray.serve.search_result import SearchResult

ItemStatus = Literal["in_progress", "completed", "incomplete"]


@with_config(extra="forbid")
class TextPart(TypedDict):
    type: Literal["output_text"]
    text: str
    annotations: list[Any]
    logprobs: list[TokenReply]


@with_config(extra="forbid")
class RefusalPart(TypedDict):
    type: Literal["refusal"]
    refusal: str


@with_config(extra="forbid")
class ReasoningPart(TypedDict):
    type: Literal["reasoning_text"]
    text: str


@with_config(extra="forbid")
class MessageItem(TypedDict):
    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    status: ItemStatus
    content: list[TextPart | RefusalPart]


@with_config(extra="forbid")
class ReasoningItem(TypedDict):
    id: str
    type: Literal["reasoning"]
    status: ItemStatus
    summary: list[Any]
    content: list[ReasoningPart]


@with_config(extra="forbid")
class InputDetails(TypedDict):
    cached_tokens: int
    cache_write_tokens: int


@with_config(extra="forbid")
class OutputDetails(TypedDict):
    reasoning_tokens: int


@with_config(extra="forbid")
class ResponseUsage(TypedDict):
    """As `UsageReply`. `reasoning_tokens` are all generated tokens without the chosen content, pruned blocks included."""

    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int
    scored_tokens: int


@with_config(extra="forbid")
class IncompleteDetails(TypedDict):
    reason: Literal["max_output_tokens"]


@with_config(extra="forbid")
class ResponseReply(TypedDict):
    """A response. Without `usage` and `vgs_ray` while its search runs."""

    id: str
    object: Literal["response"]
    created_at: int
    completed_at: int | None
    status: Literal["in_progress", "completed", "incomplete"]
    background: Literal[False]
    error: None
    incomplete_details: IncompleteDetails | None
    instructions: str | None
    max_output_tokens: int | None
    metadata: dict[str, str]
    model: str
    output: list[MessageItem | ReasoningItem]
    parallel_tool_calls: bool
    previous_response_id: None
    reasoning: dict[str, str | None]
    store: Literal[False]
    temperature: float
    text: dict[str, Any]
    tool_choice: Literal["none"]
    tools: list[Any]
    top_logprobs: Literal[0]
    top_p: float
    truncation: Literal["disabled"]
    usage: ResponseUsage | None
    vgs_ray: NotRequired[SearchReply]


def started_response(body: ResponsesRequest, temperature: float, top_p: float) -> ResponseReply:
    """A response whose search has not ended.

    Args:
        body: of the request.
        temperature, top_p: of a request that sets none.
    """
    return {
        "id": f"resp_{secrets.token_hex(12)}",
        "object": "response",
        "created_at": int(time.time()),
        "completed_at": None,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "metadata": body.metadata or {},
        "model": body.model,
        "output": [],
        "parallel_tool_calls": False,
        "previous_response_id": None,
        "reasoning": {"effort": body.reasoning.effort if body.reasoning else None, "summary": None},
        "store": False,
        "temperature": temperature if body.temperature is None else body.temperature,
        "text": {"format": body.text_format()},
        "tool_choice": "none",
        "tools": [],
        "top_logprobs": 0,
        "top_p": top_p if body.top_p is None else body.top_p,
        "truncation": "disabled",
        "usage": None,
    }


def ended_response(
    started: ResponseReply, result: SearchResult, output: list[MessageItem | ReasoningItem], content_tokens: int
) -> ResponseReply:
    """The response after the vote. `content_tokens` is the number of tokens in the chosen content."""
    complete = result.finish_reason() == "stop"
    generated = result.usage.generated
    usage: ResponseUsage = {
        "input_tokens": result.prompt_tokens,
        "input_tokens_details": {"cached_tokens": result.usage.cached, "cache_write_tokens": 0},
        "output_tokens": generated,
        "output_tokens_details": {"reasoning_tokens": max(generated - content_tokens, 0)},
        "total_tokens": result.prompt_tokens + generated,
        "scored_tokens": result.usage.scored,
    }
    return {
        **started,
        "completed_at": int(time.time()),
        "status": "completed" if complete else "incomplete",
        "incomplete_details": None if complete else {"reason": "max_output_tokens"},
        "output": output,
        "usage": usage,
        "vgs_ray": search_reply(result),
    }


def output_items(result: SearchResult) -> list[MessageItem | ReasoningItem]:
    """The thought, if there is one, and the message, unless no answer finished."""
    refusal = result.refusal
    thought, content = result.thought_and_content()
    status: ItemStatus = "completed" if result.finish_reason() == "stop" else "incomplete"
    reasoning: ReasoningItem = {
        "id": f"rs_{secrets.token_hex(12)}",
        "type": "reasoning",
        "status": status if not content else "completed",
        "summary": [],
        "content": [{"type": "reasoning_text", "text": thought}],
    }
    logprobs = chat_logprobs(result, 0)
    told: TextPart | RefusalPart = {
        "type": "output_text",
        "text": content,
        "annotations": [],
        "logprobs": logprobs["content"] if logprobs else [],
    }
    if refusal:
        told = {"type": "refusal", "refusal": refusal}
    message: MessageItem = {
        "id": f"msg_{secrets.token_hex(12)}",
        "type": "message",
        "role": "assistant",
        "status": status,
        "content": [told],
    }
    items: list[MessageItem | ReasoningItem] = [reasoning] if thought else []
    return [*items, message] if content or refusal or status == "completed" else items
