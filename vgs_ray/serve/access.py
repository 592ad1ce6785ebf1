"""Who may send requests: API keys, the Host header of endpoints without keys, and CORS."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import re
from collections.abc import Iterable

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from vgs_ray.serve.errors import ApiError, short
from vgs_ray.serve.web_page import OPEN_PREFIX

KEYS = "VGS_RAY_API_KEYS"
"""Environment variable with comma-separated API keys. If it is not set, the endpoint needs no key."""
OPEN_PATHS = ("/", "/docs", "/openapi.json", "/healthz", "/readyz")
"""Paths that need no key: pages that a browser opens and health checks. They reveal nothing about requests."""


class ApiKeys:
    """Middleware that refuses requests without a valid API key. Digests are compared in constant time.

    Args:
        keys: SHA-256 digests of the valid keys.
    """

    def __init__(self, app: ASGIApp, keys: Iterable[bytes]) -> None:
        self.app, self.keys = app, tuple(keys)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._is_open(scope["path"]) or self._has_key(scope):
            return await self.app(scope, receive, send)
        error = ApiError(
            401, "the request has no valid API key, which this server requires: send Authorization: Bearer KEY", None,
            "invalid_api_key",
        )  # fmt: skip
        return await JSONResponse(error.body, 401, {"WWW-Authenticate": "Bearer"})(scope, receive, send)

    def _is_open(self, path: str) -> bool:
        return path in OPEN_PATHS or path.startswith(OPEN_PREFIX)

    def _has_key(self, scope: Scope) -> bool:
        scheme, _, key = dict(scope["headers"]).get(b"authorization", b"").strip().partition(b" ")
        # The scheme is case-insensitive (RFC 9110, section 11.1).
        digest = _digest(key.strip() if scheme.lower() == b"bearer" else b"")
        # Compare with every key, so that the time does not depend on which one matches.
        return sum(hmac.compare_digest(digest, key) for key in self.keys) > 0


class OwnHost:
    """Middleware for an endpoint on a loopback address: refuses requests whose Host header names another machine.

    It prevents DNS rebinding: a web page can let its own host name resolve to 127.0.0.1. The browser then treats the
    endpoint as that host and lets the page read its replies. Only the Host header shows the difference.

    Args:
        host: the address on which the endpoint listens.
    """

    def __init__(self, app: ASGIApp, host: str) -> None:
        self.app, self.host = app, host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        hosts = [value.decode("latin-1") for name, value in scope.get("headers", ()) if name == b"host"]
        own = {"localhost", self.host.lower(), str((scope.get("server") or ("",))[0])}
        # HAProxy's health checks have no Host header; requests of browsers always have one.
        if scope["type"] != "http" or all((name := host_name(host)) in own or is_loopback(name) for host in hosts):
            return await self.app(scope, receive, send)
        error = ApiError(
            403, f"the header Host is {short(hosts[0])}; a server without API keys on a loopback address accepts only names of "
            f"its own machine: send requests to localhost, or start the server with {KEYS} or another --serve.host", None,
            "unknown_host",
        )  # fmt: skip
        return await JSONResponse(error.body, 403)(scope, receive, send)


def host_name(header: str) -> str:
    """The lower-case host name in a Host header, without port, brackets and trailing dot."""
    match = re.fullmatch(r"(?:\[([0-9a-f:.]+)\]|([^:]*))(?::\d*)?", header.strip().lower())
    return (match[1] or match[2]).removesuffix(".") if match else header


def is_loopback(host: str) -> bool:
    """Whether the host is `localhost` or a loopback address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def allow_origins(app: FastAPI, origins: tuple[str, ...]) -> None:
    """Allow cross-origin requests from these origins (`https://chat.example`, or `*` for all)."""
    if origins:  # the last middleware added runs first: preflight requests have no API key
        app.add_middleware(
            CORSMiddleware, allow_origins=origins, allow_methods=["GET", "POST"],
            allow_headers=["*"],  # OpenAI's JavaScript client sends a dozen x-stainless-* headers
            expose_headers=["Retry-After"],
        )  # fmt: skip


def keys_of_environment() -> tuple[str, ...]:
    """The API keys in the environment variable `KEYS`."""
    return tuple(key for part in os.environ.get(KEYS, "").split(",") if (key := part.strip()))


def key_digests() -> tuple[bytes, ...]:
    """SHA-256 digests of the keys in the environment. They can be sent to other processes; the keys can not."""
    return tuple(_digest(key.encode()) for key in keys_of_environment())


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
