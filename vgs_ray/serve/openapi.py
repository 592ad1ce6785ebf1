"""What `/openapi.json` and `/docs` say beside the requests' fields: errors in OpenAI's layout, and streams."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel


class ErrorDetails(BaseModel):
    """What went wrong: the message names the value, the rule and the remedy, `param` the field."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorReply(BaseModel):
    """Every reply of status 4xx or 5xx."""

    error: ErrorDetails


MEANINGS = {
    400: "A field is missing, unknown, unsupported, out of its limits, or does not fit another one.",
    401: "The server has API keys, and the request has none of them.",
    404: "No such model or route.",
    405: "The route has another method.",
    413: "The body is too large.",
    429: "More beams would run than the server allows; `Retry-After` says when to come again.",
    500: "The search failed; the error id finds the trace in the server's log.",
    503: "An engine is gone, or not yet there.",
    504: "The deadline came before the first block.",
}
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorReply, "description": meaning} for status, meaning in MEANINGS.items()
}
STREAMED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The reply, or with `stream: true` its server-sent events.",
        "content": {
            "application/json": {"schema": {"type": "object"}},
            "text/event-stream": {"schema": {"type": "string"}},
        },
    }
}
PLAIN: dict[int | str, dict[str, Any]] = {
    200: {"description": "Prometheus' text format.", "content": {"text/plain": {"schema": {"type": "string"}}}}
}
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
