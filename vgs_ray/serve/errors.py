"""Errors in OpenAI's layout: the message names the value, the rule and the remedy, `param` the field.

In: what is wrong with a request, or a failure. Out: an `ApiError`, which the application sends as it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from fastapi import HTTPException

ErrorType = Literal["invalid_request_error", "not_found_error", "server_error"]


class ApiError(HTTPException):
    """An error as OpenAI's clients read it.

    Args:
        status: of HTTP.
        message: names the value, the rule and the remedy.
        param: the field, with dots, where one is at fault.
        code: a word for programs.
        headers: of the reply.
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
        kind: ErrorType = "server_error" if status >= 500 else "invalid_request_error"
        self.body = error_body(message, "not_found_error" if status == 404 else kind, param, code)


def error_body(message: str, kind: ErrorType, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def invalid(errors: Sequence[Mapping[str, Any]]) -> ApiError:
    """pydantic's complaints as one error: the deepest, because a union also complains about its other types."""
    first = max(errors, key=lambda error: len(error["loc"]))
    # Where a field is one of several types, the types' names are part of the place: they are no field.
    place = [
        str(part) for part in first["loc"] if part not in ("body", "str", "list[TextPart]", "list[constrained-int]")
    ]
    param = ".".join(place) or None
    value = short(first.get("input"))
    if first["type"] == "extra_forbidden":
        return ApiError(
            400, f"{param} is not a known field: leave it out (the fields are listed at /docs)", param, "unknown_field"
        )
    if first["type"] == "missing":
        return ApiError(
            400, f"{param or 'the body'} is missing, and every request needs it: add it", param, "missing_field"
        )
    if first["type"] == "json_invalid":
        return ApiError(
            400, f"the body is not valid JSON ({first.get('ctx', {}).get('error', first['msg'])}): send a JSON object"
        )
    rule = first["msg"][:1].lower() + first["msg"][1:]
    return ApiError(400, f"{param or 'the body'} is {value}; {rule}: change it", param, "invalid_value")


def short(value: Any) -> str:
    """A value for a message: JSON in ASCII, cut."""
    try:
        text = json.dumps(value)
    except (TypeError, ValueError):
        text = ascii(value)
    except RecursionError:
        text = f"a {type(value).__name__}, nested too deeply"
    return text if len(text) <= 60 else f"{text[:57]}..."
