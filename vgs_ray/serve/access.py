"""What stands before every request: limits on its body's size and time, API keys where the environment has some, else hosts."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import os
import re
from collections.abc import Iterable
from contextlib import suppress

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vgs_ray.serve.errors import ApiError, short
from vgs_ray.serve.web_page import OPEN_PREFIX

KEYS = "VGS_RAY_API_KEYS"
"""Environment variable with the keys that open the endpoint, with commas between; without it everybody may ask."""
CLOSES = {"Connection": "close"}
"""Of a reply to a request whose body has not been read whole."""
OPEN_PATHS = ("/", "/docs", "/openapi.json", "/healthz", "/readyz")
"""What browsers open, and what is asked by machines that have no key; they tell nothing about requests."""


class BodyLimit:
    """Refuses bodies that are too large, by their announced length or by counting, and those that take too long to arrive.

    Args:
        limit: bytes.
        seconds: from the request's headers to the end of its body.
    """

    def __init__(self, app: ASGIApp, limit: int, seconds: float) -> None:
        self.app, self.limit, self.seconds = app, limit, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        read, whole = 0, False
        until = asyncio.get_running_loop().time() + self.seconds

        async def counted() -> Message:
            nonlocal read, whole
            if whole:  # what comes now is that the client goes away
                return await receive()
            message = await self._in_time(receive, until)
            read += len(message.get("body", b""))
            if read > self.limit:
                raise _too_large(self.limit)
            whole = not message.get("more_body")
            return message

        length = dict(scope["headers"]).get(b"content-length", b"")
        if length.isdigit() and int(length) > self.limit:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(until):
                    await _drain(receive, 16 * self.limit)
            return await JSONResponse(_too_large(self.limit).body, 413, CLOSES)(scope, receive, send)
        return await self.app(scope, counted, send)

    async def _in_time(self, receive: Receive, until: float) -> Message:
        try:
            async with asyncio.timeout_at(until):
                return await receive()
        except TimeoutError as error:
            raise ApiError(
                408,
                f"the body did not arrive whole within {self.seconds:g} s; send it faster",
                None,
                "request_timeout",
                CLOSES,
            ) from error


class ApiKeys:
    """Refuses requests without one of the keys, of which it knows the digests. They are compared in constant time."""

    def __init__(self, app: ASGIApp, keys: Iterable[bytes]) -> None:
        self.app, self.keys = app, tuple(keys)

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
        scheme, _, key = dict(scope["headers"]).get(b"authorization", b"").strip().partition(b" ")
        given = _digest(key.strip() if scheme.lower() == b"bearer" else b"")  # a scheme has no case (RFC 9110, 11.1)
        # All are compared, so that the time says nothing about which one was near.
        return sum(hmac.compare_digest(given, key) for key in self.keys) > 0


class OwnHost:
    """Refuses requests to a name that is not this machine's, on an endpoint that only this machine reaches.

    A page of any site can have the name of its own host resolved to 127.0.0.1 (DNS rebinding). Its browser then takes the
    endpoint for that host, and lets the page ask and read replies; only the header Host tells.

    Args:
        host: where the endpoint listens.
    """

    def __init__(self, app: ASGIApp, host: str) -> None:
        self.app, self.host = app, host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = [value.decode("latin-1") for name, value in scope.get("headers", ()) if name == b"host"]
        own = {"localhost", self.host.lower(), str((scope.get("server") or ("",))[0])}
        # Without one comes HAProxy's health check; browsers always send one.
        if scope["type"] != "http" or all((name := host_of(each)) in own or is_loopback(name) for each in given):
            return await self.app(scope, receive, send)
        refused = ApiError(
            403, f"the header Host is {short(given[0])}; a server without API keys that listens on a loopback address answers to "
            f"names of its own machine: ask it at localhost, start it with {KEYS}, or with another --serve.host", None,
            "unknown_host",
        )  # fmt: skip
        return await JSONResponse(refused.body, 403)(scope, receive, send)


def host_of(header: str) -> str:
    """The host of a Host header in lower case, without the port, brackets and the dot at its end."""
    found = re.fullmatch(r"(?:\[([0-9a-f:.]+)\]|([^:]*))(?::\d*)?", header.strip().lower())
    return (found[1] or found[2]).removesuffix(".") if found else header


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address: `localhost`, or one of the loopback's numbers."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def allow_origins(app: FastAPI, origins: tuple[str, ...]) -> None:
    """Let pages of these origins (`https://chat.example`, or `*` for all) ask; without any, browsers let none but our own."""
    if origins:  # added last, it stands first: a browser's question before a request has no key
        app.add_middleware(
            CORSMiddleware, allow_origins=origins, allow_methods=["GET", "POST"],
            allow_headers=["*"],  # OpenAI's client for JavaScript sends a dozen of its own (x-stainless-...)
            expose_headers=["Retry-After"],
        )  # fmt: skip


def keys_of_environment() -> tuple[str, ...]:
    """The keys that the environment names."""
    return tuple(key for part in os.environ.get(KEYS, "").split(",") if (key := part.strip()))


def key_digests() -> tuple[bytes, ...]:
    """SHA-256 of the keys that the environment names: what other processes may know of them."""
    return tuple(_digest(key.encode()) for key in keys_of_environment())


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _too_large(limit: int) -> ApiError:
    return ApiError(
        413,
        f"the body is too large; this server takes at most {limit} bytes: shorten it",
        None,
        "body_too_large",
        CLOSES,
    )


async def _drain(receive: Receive, most: int) -> None:
    """Read on for a while: a client that is still sending when the connection closes never sees the reply."""
    read = 0
    while read < most:
        message = await receive()
        read += len(message.get("body", b""))
        if message["type"] != "http.request" or not message.get("more_body"):
            return
