"""What goes wrong while a request is answered, as its client may know it: in OpenAI's layout, without stack traces.

In: exceptions. Out: `ApiError`s; those of the server itself have an id, under which the log has the rest.
"""

from __future__ import annotations

import logging
import secrets

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from vgs_ray.engines.interface import EngineDied
from vgs_ray.serve.errors import ApiError, ErrorType, error_body, invalid, short
from vgs_ray.serve.searcher import PromptTooLong, PromptUnreadable, TooLate

log = logging.getLogger(__name__)


def api_error(error: Exception, param: str = "messages") -> ApiError:
    """An error of a search as a client may know it."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, PromptTooLong):
        return ApiError(400, str(error), param, "context_length_exceeded")
    if isinstance(error, PromptUnreadable):
        return ApiError(400, str(error), param, "invalid_value")
    if isinstance(error, TooLate):
        return ApiError(504, str(error), "search.deadline_s", "deadline_exceeded")
    if isinstance(error, EngineDied):
        return _failure(error, 503, "an engine is gone; try again in a minute")
    return _failure(error, 500, "the search failed")


def _failure(error: Exception, status: int, message: str) -> ApiError:
    """What a client may know of a failure: an id, under which the log has the rest."""
    name = f"err-{secrets.token_hex(6)}"
    log.error("%s: %s", name, type(error).__name__, exc_info=error)
    return ApiError(status, f"{message} (error id {name}, in the server's log)", None, "internal_error")


def handle_errors(app: FastAPI) -> None:
    """Every error in OpenAI's layout, without stack traces."""

    @app.exception_handler(RequestValidationError)
    async def unreadable(request: Request, error: RequestValidationError) -> Response:
        refused = _not_json(request) or invalid(error.errors())
        return JSONResponse(refused.body, refused.status_code)

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        if isinstance(error, ApiError):
            return JSONResponse(error.body, error.status_code, error.headers)
        if error.status_code == 400:  # FastAPI, where the JSON parser fails of something else than its grammar
            unread = ApiError(
                400, "the body can't be read: send a JSON object in UTF-8, neither nested deeply nor with huge numbers"
            )
            return JSONResponse(unread.body, 400)
        kind: ErrorType = "not_found_error" if error.status_code == 404 else "invalid_request_error"
        message = f"{request.method} {request.url.path}: {error.detail}; the routes are listed at /docs"
        return JSONResponse(error_body(message, kind), error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def broken(_: Request, error: Exception) -> Response:
        failed = _failure(error, 500, "the server failed on this request")
        return JSONResponse(failed.body, failed.status_code)


def _not_json(request: Request) -> ApiError | None:
    """The error of a body that was not announced as JSON, which is then not read.

    Browsers let pages of any origin send other kinds of bodies, so that one of those must not pass for JSON.
    """
    given = request.headers.get("content-type")
    kind = (given or "").partition(";")[0].strip().lower()
    if (
        request.method != "POST"
        or kind == "application/json"
        or (kind.startswith("application/") and kind.endswith("+json"))
    ):
        return None
    what = "is missing" if not given else f"is {short(given)}"
    return ApiError(
        400, f"the header Content-Type {what}; the body must be JSON: send Content-Type: application/json", None,
        "invalid_content_type",
    )  # fmt: skip
