"""Convert exceptions to error replies in OpenAI's format.

A server failure is logged under an error id. The client sees only that id.
"""

from __future__ import annotations

import logging
import secrets

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from vgs_ray.engines.interface import EngineDied, UnusableGrammar
from vgs_ray.prompts import ConversationRefused
from vgs_ray.serve.errors import ApiError, error_reply, invalid_request, short
from vgs_ray.serve.searcher import PromptTooLong, PromptUnreadable, TooLate

log = logging.getLogger(__name__)


def api_error(error: Exception, param: str = "messages", form: str = "response_format") -> ApiError:
    """The error to send to the client if a search or a score raises `error`.

    Args:
        error: what was raised.
        param: the field with the prompt.
        form: the field with the form of the content.
    """
    if isinstance(error, ApiError):
        return error
    if isinstance(error, PromptTooLong):
        return ApiError(400, str(error), param, "context_length_exceeded")
    if isinstance(error, PromptUnreadable):
        return ApiError(400, str(error), param, "invalid_value")
    if isinstance(error, ConversationRefused):
        return ApiError(
            400, f"{error}: leave it out, or write all of it into the last message", param, "unsupported_value"
        )
    if isinstance(error, UnusableGrammar):
        message = f"the engine refuses the form of the content ({str(error)[:200]}): change it or leave it out"
        return ApiError(400, message, form, "invalid_value")
    if isinstance(error, TooLate):
        return ApiError(504, str(error), "search.deadline_s", "deadline_exceeded")
    if isinstance(error, EngineDied):
        return _server_failure(error, 503, "an engine is unavailable; try again in a minute")
    return _server_failure(error, 500, "the search failed")


def _server_failure(error: Exception, status: int, message: str) -> ApiError:
    """Log the exception under a new error id, which is all that the client sees of it."""
    error_id = f"err-{secrets.token_hex(6)}"
    log.error("%s: %s", error_id, type(error).__name__, exc_info=error)
    return ApiError(status, f"{message} (see error id {error_id} in the server's log)", None, "internal_error")


def add_error_handlers(app: FastAPI) -> None:
    """Reply to every exception in OpenAI's format, without stack traces."""

    @app.exception_handler(RequestValidationError)
    async def handle_invalid(request: Request, error: RequestValidationError) -> Response:
        invalid = _wrong_content_type(request) or invalid_request(error.errors())
        return JSONResponse(invalid.body, invalid.status_code)

    @app.exception_handler(HTTPException)
    async def handle_http(request: Request, error: HTTPException) -> Response:
        if isinstance(error, ApiError):
            return JSONResponse(error.body, error.status_code, error.headers)
        if error.status_code == 400:  # FastAPI raises this if the JSON parser fails on something other than syntax
            message = "the body cannot be read: send a JSON object in UTF-8 without deep nesting and huge numbers"
        else:
            message = f"{request.method} {request.url.path}: {error.detail}; see the routes at /docs"
        return JSONResponse(error_reply(error.status_code, message), error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def handle_failure(_: Request, error: Exception) -> Response:
        failure = _server_failure(error, 500, "the server failed while processing this request")
        return JSONResponse(failure.body, failure.status_code)


def _wrong_content_type(request: Request) -> ApiError | None:
    """The error for a POST body whose Content-Type is not JSON. Such a body is not read.

    Browsers allow cross-origin requests with other content types, so they must not be accepted as JSON.
    """
    header = request.headers.get("content-type")
    kind = (header or "").partition(";")[0].strip().lower()
    is_json = kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))
    if request.method != "POST" or is_json:
        return None
    problem = f"is {short(header)}" if header else "is missing"
    message = f"the header Content-Type {problem}; the body must be JSON: send Content-Type: application/json"
    return ApiError(400, message, None, "invalid_content_type")
