"""What stands before a search: limits on bodies and on beams, and API keys where the environment has some."""

from __future__ import annotations

import hmac
import os
from contextlib import ExitStack

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vgs_ray.serve.protocol import ApiError
from vgs_ray.serve.web import OPEN_PREFIX

KEYS = "VGS_RAY_API_KEYS"
"""Environment variable with the keys that open the endpoint, with commas between; without it everybody may ask."""
RETRY_S = 5
"""What a client that was refused for want of room is told to wait, in seconds."""
OPEN_PATHS = ("/", "/healthz", "/readyz")
"""The page, and what is asked by machines that have no key; they tell nothing about requests."""


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


class Admission:
    """How many beams run in this process; a search that would be too much is refused at once, so that none waits without end.

    Args:
        most: beams side by side, of all searches. One search alone always fits.
    """

    def __init__(self, most: int) -> None:
        self.most, self.running = most, 0

    def take(self, beams: int) -> ExitStack:
        """Room for so many more, taken at once, until what is returned is closed.

        Looking and taking are one step: requests that come together would else all find the same room free.

        Raises:
            ApiError: 429 where they do not fit.
        """
        if self.running and self.running + beams > self.most:
            raise ApiError(
                429, f"{self.running} beams are running and this server runs at most {self.most}; this search needs {beams}: "
                "try again later or ask for a smaller budget", "search.budget", "overloaded",
                headers={"Retry-After": str(RETRY_S)},
            )  # fmt: skip
        self.running += beams
        room = ExitStack()
        room.callback(self._give_back, beams)
        return room

    def _give_back(self, beams: int) -> None:
        self.running -= beams


class ApiKeys:
    """Refuses requests without one of the keys. Keys are compared in constant time."""

    def __init__(self, app: ASGIApp, keys: tuple[str, ...]) -> None:
        self.app, self.keys = app, [key.encode() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._open(scope["path"]) or self._knows(scope):
            return await self.app(scope, receive, send)
        refused = ApiError(
            401, "the request has no valid API key; this server needs one: send it as Authorization: Bearer KEY", None,
            "invalid_api_key",
        )  # fmt: skip
        return await JSONResponse(refused.body, 401, {"WWW-Authenticate": "Bearer"})(scope, receive, send)

    def _open(self, path: str) -> bool:
        return path in OPEN_PATHS or path.startswith(OPEN_PREFIX)

    def _knows(self, scope: Scope) -> bool:
        given = dict(scope["headers"]).get(b"authorization", b"").removeprefix(b"Bearer ")
        # All are compared, so that the time says nothing about which one was near.
        return sum(hmac.compare_digest(given, key) for key in self.keys) > 0


def keys_of_environment() -> tuple[str, ...]:
    """The keys that the environment names."""
    return tuple(key for part in os.environ.get(KEYS, "").split(",") if (key := part.strip()))


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
