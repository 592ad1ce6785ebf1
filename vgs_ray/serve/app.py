"""The endpoint as an ASGI application: value-guided search that speaks like any OpenAI-compatible server. No Ray here.

In: a `Searcher` and `config.Serve`. Out: a FastAPI application; any server can run it, Ray Serve or uvicorn. Problems
and answers are never logged.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vgs_ray import config
from vgs_ray.engines.interface import EngineDied
from vgs_ray.serve.plan import plan_of
from vgs_ray.serve.protocol import MAX_BODY_BYTES, ApiError, ChatRequest, ErrorType, error_body, invalid
from vgs_ray.serve.reply import chat_completion
from vgs_ray.serve.searcher import PromptTooLong, Searcher

POLL_S = 0.2
"""How often a search looks whether its client is still there."""
CLIENT_GONE = 499

T = TypeVar("T")
log = logging.getLogger(__name__)


class ClientGone(Exception):
    """Nobody waits for the reply any more."""


def create_app(search: Searcher, settings: config.Serve) -> FastAPI:
    """The application with all its routes."""
    app = FastAPI(title="vgs_ray", description="Value-guided search behind the OpenAI API.", version="0.1.0")
    app.add_middleware(BodyLimit, limit=MAX_BODY_BYTES)
    _handle_errors(app)
    started = int(time.time())
    model = {"id": settings.model_name, "object": "model", "created": started, "owned_by": "vgs_ray"}

    @app.post("/v1/chat/completions")
    async def chat(body: ChatRequest, request: Request) -> Response:
        """Search an answer to the last user message."""
        plan = plan_of(body, settings)
        try:
            found = await _while_connected(request, search.solve(plan))
            return JSONResponse(chat_completion(found, settings.model_name))
        except ClientGone:
            return Response(status_code=CLIENT_GONE)
        except PromptTooLong as error:
            raise ApiError(400, str(error), "messages", "context_length_exceeded") from error
        except EngineDied as error:
            raise _failure(error, 503, "an engine is gone; try again in a minute") from error
        except Exception as error:
            raise _failure(error, 500, "the search failed") from error

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [model]}

    @app.get("/v1/models/{name}")
    async def one_model(name: str) -> dict[str, Any]:
        if name != settings.model_name:
            raise ApiError(
                404,
                f"model {name!r} does not exist; this server has {settings.model_name!r}",
                "model",
                "model_not_found",
            )
        return model

    @app.get("/healthz")
    async def health() -> Response:
        """200 when both engines answer, else 503; asks each of them for one token."""
        engines = await search.probe()
        well = all(state == "ok" for state in engines.values())
        body = {"status": "ok" if well else "unhealthy", "engines": engines}
        return JSONResponse(body, 200 if well else 503)

    return app


class BodyLimit:
    """Refuses bodies that are too large, by their announced length or by counting."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.app, self.limit = app, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        read = 0

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self.limit:
                raise _too_large(self.limit)
            return message

        length = dict(scope["headers"]).get(b"content-length", b"")
        if length.isdigit() and int(length) > self.limit:
            await _drain(receive, 16 * self.limit)
            return await JSONResponse(_too_large(self.limit).body, 413)(scope, receive, send)
        return await self.app(scope, counted, send)


def _too_large(limit: int) -> ApiError:
    return ApiError(
        413, f"the body is too large; this server takes at most {limit} bytes: shorten it", None, "body_too_large"
    )


async def _drain(receive: Receive, most: int) -> None:
    """Read on for a while: a client that is still sending when the connection closes never sees the reply."""
    read = 0
    while read < most:
        message = await receive()
        read += len(message.get("body", b""))
        if message["type"] != "http.request" or not message.get("more_body"):
            return


async def _while_connected(request: Request, search: Coroutine[Any, Any, T]) -> T:
    """The result of `search`, which is cancelled when the client goes away or the server gives up this request.

    Raises:
        ClientGone: the client went away.
    """
    task = asyncio.ensure_future(search)
    try:
        while not (await asyncio.wait({task}, timeout=POLL_S))[0]:
            if await request.is_disconnected():
                raise ClientGone
        return task.result()
    finally:
        task.cancel()


def _failure(error: Exception, status: int, message: str) -> ApiError:
    """What a client may know of a failure: an id, under which the log has the rest."""
    name = f"err-{secrets.token_hex(6)}"
    log.error("%s: %s", name, type(error).__name__, exc_info=error)
    return ApiError(status, f"{message} (error id {name}, in the server's log)", None, "internal_error")


def _handle_errors(app: FastAPI) -> None:
    """Every error in OpenAI's layout, without stack traces."""

    @app.exception_handler(RequestValidationError)
    async def unreadable(_: Request, error: RequestValidationError) -> Response:
        refused = invalid(error.errors())
        return JSONResponse(refused.body, refused.status_code)

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        if isinstance(error, ApiError):
            return JSONResponse(error.body, error.status_code)
        kind: ErrorType = "not_found_error" if error.status_code == 404 else "invalid_request_error"
        message = f"{request.method} {request.url.path}: {error.detail}; the routes are listed at /docs"
        return JSONResponse(error_body(message, kind), error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def broken(_: Request, error: Exception) -> Response:
        failed = _failure(error, 500, "the server failed on this request")
        return JSONResponse(failed.body, failed.status_code)
