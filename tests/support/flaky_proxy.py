"""A proxy in front of an S3 server that fails some requests."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from aiohttp import web

HOP_BY_HOP = {"host", "connection", "transfer-encoding", "content-length", "keep-alive", "date", "server"}


class FlakyProxy:
    """Answers 503 SlowDown or 500, or resets the connection: before the server sees the request, or after its answer.

    It also resets the connection if the server is down.

    Attributes:
        rate: share of the requests that fail.
        failed: number of failures by kind; `down` counts those of the server.
        passed: number of requests that were answered as the server answered.
    """

    def __init__(self, target: str, rate: float, seed: int) -> None:
        self.rate, self.failed, self.passed = rate, Counter[str](), 0
        self._target, self._random = target, random.Random(seed)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        failure = ""
        if self._random.random() < self.rate:
            failure = self._random.choice(("slow down", "internal error", "reset before", "reset after"))
            self.failed[failure] += 1
        if failure == "slow down":
            return _error(503, "SlowDown")
        if failure == "internal error":
            return _error(500, "InternalError")
        if failure != "reset before":
            try:
                answer = await self._forward(request, body)
            except httpx.TransportError:
                failure = "down"
                self.failed[failure] += 1
            if not failure:
                self.passed += 1
                return answer
        assert request.transport
        request.transport.abort()
        return web.Response()

    async def _forward(self, request: web.Request, body: bytes) -> web.Response:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP}
        answer = await self.client.request(
            request.method, f"{self._target}{request.raw_path}", content=body, headers=headers
        )
        kept = [(name, value) for name, value in answer.headers.multi_items() if name.lower() not in HOP_BY_HOP]
        if request.method == "HEAD":
            kept.append(("Content-Length", answer.headers["content-length"]))
        return web.Response(status=answer.status_code, body=answer.content or None, headers=kept)

    async def serve(self, port: int, ready: threading.Event) -> None:
        app = web.Application(client_max_size=2**30)
        app.router.add_route("*", "/{path:.*}", self.handle)
        self.runner = web.AppRunner(app, access_log=None)
        async with httpx.AsyncClient(timeout=60, trust_env=False) as self.client:
            await self.runner.setup()
            await web.TCPSite(self.runner, "127.0.0.1", port).start()
            ready.set()
            try:
                await asyncio.Event().wait()
            finally:
                await self.runner.cleanup()


def _error(status: int, code: str) -> web.Response:
    text = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>by the proxy</Message></Error>'
    return web.Response(status=status, text=text, content_type="application/xml")


@contextmanager
def flaky_proxy(target: str, port: int, rate: float = 0.05, seed: int = 0) -> Iterator[FlakyProxy]:
    """Run a proxy for a server's URL on a local port, in a thread."""
    proxy, loop, ready = FlakyProxy(target, rate, seed), asyncio.new_event_loop(), threading.Event()

    def run() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(task)

    task = loop.create_task(proxy.serve(port, ready))
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(30)
    try:
        yield proxy
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join()
