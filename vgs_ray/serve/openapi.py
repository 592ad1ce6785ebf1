"""What `/openapi.json` and `/docs` say beside the requests' fields: replies, errors in OpenAI's layout, and streams.

The models here only describe; a test holds the replies to them. They forbid other fields, so that none goes undescribed.
"""

from __future__ import annotations

from typing import Any, Literal

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict

from vgs_ray.engines.interface import FinishReason

Description = dict[int | str, dict[str, Any]]
"""By status, as FastAPI's `responses` takes them."""


class Told(BaseModel):
    """A part of a reply."""

    model_config = ConfigDict(extra="forbid")


class ErrorDetails(Told):
    """What went wrong: the message names the value, the rule and the remedy, `param` the field."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorReply(Told):
    """Every reply of status 4xx or 5xx."""

    error: ErrorDetails


class CachedTokens(Told):
    cached_tokens: int


class UsageReply(Told):
    """Prompt once; every generated token, those of pruned blocks too; tokens that the value model read."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens
    scored_tokens: int


class VoteReply(Told):
    """A class of equal answers: how much it weighs, and how many leaves gave it."""

    answer: str
    weight: float
    leaves: int


class LeafReply(Told):
    """One answer of the tree."""

    answer: str | None
    value: float | None
    group: int
    tokens: int
    finish_reason: FinishReason


class EngineTokens(Told):
    """Tokens as the engines counted them."""

    generated: int
    prefilled: int
    cached: int
    scored: int


class SearchReply(Told):
    """What the search says: the chosen answer, its value, the vote (the winner first), the leaves, what it cost.

    `warnings` says what of the request was changed, such as a `max_tokens` above the server's.
    """

    answer: str | None
    value: float | None
    node: str
    votes: list[VoteReply]
    leaves: list[LeafReply]
    usage: EngineTokens
    flops: float | None
    seed: int
    seconds: float
    warnings: list[str]


class MessageReply(Told):
    role: Literal["assistant"]
    content: str
    reasoning_content: str
    refusal: None


class ChatChoice(Told):
    index: int
    message: MessageReply
    finish_reason: FinishReason
    logprobs: None


class TextChoice(Told):
    index: int
    text: str
    finish_reason: FinishReason
    logprobs: None


class Reply(Told):
    """What both kinds of completion share."""

    id: str
    created: int
    model: str
    usage: UsageReply
    vgs_ray: SearchReply


class ChatReply(Reply):
    object: Literal["chat.completion"]
    choices: list[ChatChoice]


class TextReply(Reply):
    object: Literal["text_completion"]
    choices: list[TextChoice]


class SequenceScores(Told):
    """P(correct) at the last token or after each; `tokens` has their texts where they were asked for."""

    index: int
    object: Literal["score"]
    values: list[float | None]
    tokens: list[str] = []


class ScoreUsage(Told):
    prompt_tokens: int
    total_tokens: int


class ScoreReply(Told):
    object: Literal["list"]
    model: str
    data: list[SequenceScores]
    usage: ScoreUsage


class ModelReply(Told):
    """A way to search, by name; `search` has the options that it sets."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    search: dict[str, Any]


class ModelsReply(Told):
    object: Literal["list"]
    data: list[ModelReply]


class Health(Told):
    """Each engine by name: `ok`, or what is wrong."""

    status: Literal["ok", "unhealthy"]
    engines: dict[str, str]


class Ready(Told):
    status: Literal["ready"]


MEANINGS = {
    400: "A field is missing, unknown, unsupported, out of its limits, or does not fit another one.",
    401: "The server has API keys, and the request has none of them.",
    403: "The server has no API keys, listens on its own machine alone, and the header Host has another machine's name.",
    404: "No such model.",
    405: "The route has another method.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    429: "All beams that the server allows are running, and its queue is full.",
    500: "The server failed; the error id finds the trace in its log.",
    503: "An engine is gone, or not yet there.",
    504: "The deadline came before the first block.",
}
HEADERS = {
    401: {"WWW-Authenticate": {"description": "`Bearer`.", "schema": {"type": "string"}}},
    429: {"Retry-After": {"description": "When to come again, in seconds.", "schema": {"type": "integer"}}},
}


def errors(*statuses: int) -> Description:
    """These errors, with their headers."""
    return {
        status: {"model": ErrorReply, "description": MEANINGS[status]}
        | ({"headers": HEADERS[status]} if status in HEADERS else {})
        for status in statuses
    }


EVERYWHERE = errors(401, 403, 405, 500)
ASKED = errors(400, 404, 408, 413, 429, 503)
SCORED: Description = {200: {"model": ScoreReply, "description": "A row for each sequence."}, **ASKED}
HEALTH: Description = {
    200: {"model": Health, "description": "Both engines answer."},
    503: {"model": Health, "description": "One of them does not."},
}
PLAIN: Description = {
    200: {"description": "Prometheus' text format.", "content": {"text/plain": {"schema": {"type": "string"}}}}
}

EVENT = {
    "type": "object",
    "properties": {
        "event": {"enum": ["message", "vgs_ray.start", "vgs_ray.node"]},
        "data": {"type": "string", "description": "JSON; `[DONE]` in the last one."},
    },
    "required": ["data"],
}
"""One event of a stream; most have no name, which makes them messages."""


def searched(reply: type[Reply]) -> Description:
    """Replies of a search: whole, or streamed in the events of docs/serving.md."""
    streamed = {"text/event-stream": {"itemSchema": EVENT}}
    said = "The reply, or with `stream: true` its server-sent events; an error after their start is one of them."
    return {200: {"model": reply, "description": said, "content": streamed}, **ASKED, **errors(504)}


KEY = {"type": "http", "scheme": "bearer", "description": "Where the server has API keys."}


def describe(app: FastAPI) -> None:
    """Leave out FastAPI's own layout of refusals, which this application never sends, and name the way to send a key."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = made()
            for path in schema["paths"].values():
                for operation in path.values():
                    operation["responses"].pop("422", None)
            parts = schema["components"]
            for name in ("HTTPValidationError", "ValidationError"):
                parts["schemas"].pop(name, None)
            parts["securitySchemes"] = {"key": KEY}
            schema["security"] = [{"key": []}, {}]
        return app.openapi_schema or {}

    app.openapi = openapi  # type: ignore[method-assign]
