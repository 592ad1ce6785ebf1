"""Limits on one request to the endpoint.

The fixed limits are the constants below; `BodyLimit` enforces those on the body, `requests.py` the others. The limits that an
operator sets are fields of `config.Serve`: `search_spec.py` enforces `max_budget`, `max_problem_chars` and
`sampling.max_tokens`, `admission.py` enforces `max_beams` and `max_waiting`, and HAProxy `connections_per_address`.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vgs_ray.serve.errors import ApiError

MAX_BODY_BYTES = 2**20
MAX_MESSAGES = 256
MAX_NAMES = 128
"""Names in one JSON object, such as `metadata`. Reporting 100,000 unknown names takes seconds."""
MAX_CHOICES = 128
MAX_SEQUENCES_TO_SCORE = 64
MAX_STOP_STRINGS = 4
MAX_STOP_CHARS = 64
MAX_DEADLINE_S = 3600.0
INT64 = 2**63
CLOSE = {"Connection": "close"}
"""Header of a reply to a request whose body was not read completely."""


class BodyLimit:
    """Middleware that refuses bodies that are too large or arrive too slowly.

    Args:
        limit: maximum size in bytes, checked against Content-Length and against the bytes received.
        seconds: maximum time from the request's headers to the end of its body.
    """

    def __init__(self, app: ASGIApp, limit: int, seconds: float) -> None:
        self.app, self.limit, self.seconds = app, limit, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        deadline = asyncio.get_running_loop().time() + self.seconds
        length = dict(scope["headers"]).get(b"content-length", b"")
        if length.isdigit() and int(length) > self.limit:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(deadline):
                    await _drain(receive, 16 * self.limit)
            return await JSONResponse(_too_large(self.limit).body, 413, CLOSE)(scope, receive, send)
        return await self.app(scope, self._limited(receive, deadline), send)

    def _limited(self, receive: Receive, deadline: float) -> Receive:
        """`receive` with both limits applied until the body is complete."""
        received, complete = 0, False

        async def receive_limited() -> Message:
            nonlocal received, complete
            if complete:  # the next message is the disconnect
                return await receive()
            message = await self._receive_until(receive, deadline)
            received += len(message.get("body", b""))
            if received > self.limit:
                raise _too_large(self.limit)
            complete = not message.get("more_body")
            return message

        return receive_limited

    async def _receive_until(self, receive: Receive, deadline: float) -> Message:
        try:
            async with asyncio.timeout_at(deadline):
                return await receive()
        except TimeoutError as error:
            message = f"the body did not arrive completely within {self.seconds:g} s; send it faster"
            raise ApiError(408, message, code="request_timeout", headers=CLOSE) from error


def _too_large(limit: int) -> ApiError:
    message = f"the body is too large; this server accepts at most {limit} bytes: shorten it"
    return ApiError(413, message, code="body_too_large", headers=CLOSE)


async def _drain(receive: Receive, max_bytes: int) -> None:
    """Read some of the body: a client that is still sending when the connection closes never sees the reply."""
    received = 0
    while received < max_bytes:
        message = await receive()
        received += len(message.get("body", b""))
        if message["type"] != "http.request" or not message.get("more_body"):
            return
