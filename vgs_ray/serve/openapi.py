"""Responses in `/openapi.json`: replies, errors and streams. The types come from `replies.py`, `events.py` and `errors.py`."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import TypeAdapter

from vgs_ray.serve.errors import ErrorReply
from vgs_ray.serve.events import NODE, START, EventData
from vgs_ray.serve.replies import ChatReply, Health, TextReply
from vgs_ray.serve.responses_reply import ResponseReply
from vgs_ray.serve.score_reply import ScoreReply

Responses = dict[int | str, dict[str, Any]]
"""Response descriptions by status, as FastAPI's `responses` accepts them."""

DESCRIPTIONS = {
    400: "A field is missing, unknown, unsupported, out of range, or conflicts with another field.",
    401: "The server requires an API key, and the request has no valid one.",
    403: "The server has no API keys and listens on a loopback address, and the Host header names another machine.",
    404: "The model does not exist.",
    405: "The route does not support this method.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    429: "The server runs its maximum number of beams, and its queue is full.",
    500: "The server failed. Its log has the stack trace under the error id.",
    503: "An engine is unavailable.",
    504: "The deadline passed before the first block.",
}
HEADERS = {
    401: {"WWW-Authenticate": {"description": "`Bearer`.", "schema": {"type": "string"}}},
    429: {"Retry-After": {"description": "Seconds to wait before a retry.", "schema": {"type": "integer"}}},
}


def errors(*statuses: int) -> Responses:
    """Error responses with these statuses."""
    return {
        status: {"model": ErrorReply, "description": DESCRIPTIONS[status]}
        | ({"headers": HEADERS[status]} if status in HEADERS else {})
        for status in statuses
    }


COMMON_ERRORS = errors(401, 403, 405, 500)
POST_ERRORS = errors(400, 404, 408, 413, 429, 503)
SCORE_RESPONSES: Responses = {200: {"model": ScoreReply, "description": "A row for each sequence."}, **POST_ERRORS}
HEALTH_RESPONSES: Responses = {
    200: {"model": Health, "description": "Both engines respond."},
    503: {"model": Health, "description": "At least one engine does not respond."},
}
METRICS_RESPONSES: Responses = {
    200: {"description": "Prometheus text format.", "content": {"text/plain": {"schema": {"type": "string"}}}}
}

EVENT_DATA = TypeAdapter(EventData).json_schema(ref_template="#/components/schemas/{model}")
EVENT_SCHEMAS: dict[str, Any] = EVENT_DATA.pop("$defs")
EVENT = {
    "type": "object",
    "properties": {
        "event": {"enum": ["message", START, NODE]},
        "data": {
            "type": "string",
            "description": "JSON; `[DONE]` in the last event.",
            "anyOf": [{"contentMediaType": "application/json", "contentSchema": EVENT_DATA}, {"const": "[DONE]"}],
        },
    },
    "required": ["data"],
}
"""One event of a stream. Most events have no name, which makes them messages."""


RESPONSE_EVENT = {
    "type": "object",
    "properties": {
        "event": {"type": "string", "description": "Type of the event, as in OpenAI's Responses API."},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": {
                "type": "object",
                "properties": {"type": {"type": "string"}, "sequence_number": {"type": "integer"}},
                "required": ["type", "sequence_number"],
            },
        },
    },
    "required": ["event", "data"],
}
"""One event of a stream of `/v1/responses`."""


def search_responses(reply: type[ChatReply | TextReply | ResponseReply]) -> Responses:
    """Responses of a search: one JSON reply, or with `stream: true` server-sent events."""
    description = (
        "The reply, or with `stream: true` server-sent events. An error after their start is one of the events."
    )
    event = RESPONSE_EVENT if reply is ResponseReply else EVENT
    content = {"text/event-stream": {"itemSchema": event}}
    return {200: {"model": reply, "description": description, "content": content}, **POST_ERRORS, **errors(504)}


SECURITY_SCHEME = {"type": "http", "scheme": "bearer", "description": "Required if the server has API keys."}


def customize_openapi(app: FastAPI) -> None:
    """Remove FastAPI's 422 responses, which this application never sends, and add the API key and the streams' events."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = generate()
            for path in document["paths"].values():
                for operation in path.values():
                    operation["responses"].pop("422", None)
            components = document["components"]
            for name in ("HTTPValidationError", "ValidationError"):
                components["schemas"].pop(name, None)
            components["schemas"] |= EVENT_SCHEMAS
            components["securitySchemes"] = {"key": SECURITY_SCHEME}
            document["security"] = [{"key": []}, {}]
        return app.openapi_schema or {}

    app.openapi = openapi  # type: ignore[method-assign]
