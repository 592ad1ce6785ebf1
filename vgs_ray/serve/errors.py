"""Errors in OpenAI's format: the message states the value, the rule and the remedy; `param` names the field."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from fastapi import HTTPException
from pydantic import with_config
from typing_extensions import TypedDict

ErrorType = Literal["invalid_request_error", "not_found_error", "server_error"]
TYPE_NAMES = ("body", "str", "list[TextPart]", "list[InputPart]", "list[constrained-int]")
"""Parts of pydantic's error locations that are not fields: the body, and the types of a union."""


@with_config(extra="forbid")
class ErrorDetails(TypedDict):
    """What went wrong: the message states the value, the rule and the remedy; `param` names the field."""

    message: str
    type: str
    param: str | None
    code: str | None


@with_config(extra="forbid")
class ErrorReply(TypedDict):
    """Body of every reply with status 4xx or 5xx."""

    error: ErrorDetails


class ApiError(HTTPException):
    """An error that is sent to the client.

    Args:
        status: HTTP status.
        message: states the value, the rule and the remedy.
        param: dotted name of the field that caused the error.
        code: error code for programs.
        headers: additional headers of the reply.
    """

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, headers)
        self.body = error_reply(status, message, param, code)


def error_reply(status: int, message: str, param: str | None = None, code: str | None = None) -> ErrorReply:
    """The body of an error reply. Its `type` follows from the status."""
    kind: ErrorType = "server_error" if status >= 500 else "invalid_request_error"
    kind = "not_found_error" if status == 404 else kind
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def invalid_request(errors: Sequence[Mapping[str, Any]]) -> ApiError:
    """pydantic's validation errors as one error.

    Reports the most deeply nested one: for a union, pydantic also reports every type that does not match.
    """
    error = max(errors, key=lambda error: len(error["loc"]))
    param = ".".join(str(part) for part in error["loc"] if part not in TYPE_NAMES) or None
    if error["type"] == "extra_forbidden":
        message = f"{param} is not a known field: leave it out (see the fields at /docs)"
        return ApiError(400, message, param, "unknown_field")
    if error["type"] == "missing":
        return ApiError(400, f"{param or 'the body'} is missing and is required: add it", param, "missing_field")
    if error["type"] == "json_invalid":
        reason = error.get("ctx", {}).get("error", error["msg"])
        return ApiError(400, f"the body is not valid JSON ({reason}): send a JSON object")
    rule = error["msg"][:1].lower() + error["msg"][1:]
    message = f"{param or 'the body'} is {short(error.get('input'))}; {rule}: change it"
    return ApiError(400, message, param, "invalid_value")


def short(value: Any) -> str:
    """A value as ASCII JSON of at most 60 characters, for messages."""
    try:
        text = json.dumps(value)
    except (TypeError, ValueError):
        text = ascii(value)
    except RecursionError:
        text = f"a {type(value).__name__}, nested too deeply"
    return text if len(text) <= 60 else f"{text[:57]}..."
