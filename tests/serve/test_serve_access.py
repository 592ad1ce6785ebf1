"""Access to the endpoint: API keys, hosts, origins, paths without a key, body size, and the log of requests."""

from __future__ import annotations

import logging
import re
import socket
from typing import Any

import httpx
import pytest
from scripted_server import Served, scripted_client

from pipelines.serving.address import open_access_warning
from vgs_ray.serve.access import KEYS, key_digests
from vgs_ray.serve.limits import MAX_BODY_BYTES


async def test_keys_of_the_environment_close_the_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEYS, "first, second")
    async with scripted_client() as client:
        for key, status in (("first", 200), ("second", 200), ("third", 401), ("", 401)):
            reply = await client.get("/v1/models", headers={"authorization": f"Bearer {key}"})
            assert reply.status_code == status, key
        assert (await client.get("/v1/models")).json()["error"]["code"] == "invalid_api_key"
        assert (await client.get("/metrics")).status_code == 401
        assert (await client.get("/readyz")).status_code == 200


@pytest.mark.parametrize(
    ("header", "status"),
    [("Bearer first", 200), ("bearer first", 200), ("BEARER first", 200), ("bearer   first ", 200), ("first", 401),
     ("Bearer", 401), ("bearer second", 401), ("Basic first", 401), ("Bearerfirst", 401), ("Bearer First", 401)],
)  # fmt: skip
async def test_the_scheme_of_a_key_has_no_case(monkeypatch: pytest.MonkeyPatch, header: str, status: int) -> None:
    monkeypatch.setenv(KEYS, "first")
    async with scripted_client() as client:
        assert (await client.get("/v1/models", headers={"authorization": header})).status_code == status


OWN = ("127.0.0.1", "127.0.0.1:8000", "localhost:8000", "LOCALHOST", "localhost.", "[::1]:8000", "127.1.2.3")
FOREIGN = ("evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "192.168.0.7",
           "[2001:db8::1]", "[::1].evil.example", "localhost:8000.evil.example",
           "0.0.0.0:8000", "2130706433", "127.1", "", "a@localhost", "localhost evil.example")  # fmt: skip


def with_host(served: Served, host: str, **more: Any) -> httpx.Response:
    return httpx.get(f"{served.url}/v1/models", headers={"host": host, **more}, timeout=10)


def test_a_loopback_server_without_keys_accepts_only_its_own_names(served: Served) -> None:
    for host in OWN:
        assert with_host(served, host).status_code == 200, host
    for host in FOREIGN:
        reply = with_host(served, host)
        assert (reply.status_code, reply.json()["error"]["code"]) == (403, "unknown_host"), host
        assert KEYS in reply.json()["error"]["message"]


def test_the_page_and_the_routes_that_ask_for_no_key_are_closed_to_foreign_hosts_too(served: Served) -> None:
    for path in ("/", "/docs", "/openapi.json", "/healthz", "/metrics"):
        assert httpx.get(f"{served.url}{path}", headers={"host": "evil.example"}).status_code == 403, path
    reply = httpx.post(f"{served.url}/v1/chat/completions", json={}, headers={"host": "evil.example"})
    assert reply.status_code == 403


def test_a_health_check_without_a_host_is_answered(served: Served) -> None:
    host, port = served.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
        assert connection.recv(1024).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(("host", "key"), [("127.0.0.1", "key"), ("0.0.0.0", "")])
async def test_servers_that_others_can_reach_accept_any_host_name(
    monkeypatch: pytest.MonkeyPatch, host: str, key: str
) -> None:
    monkeypatch.setenv(KEYS, key)
    async with scripted_client(host=host) as client:
        asked = {"host": "chat.example", "authorization": f"Bearer {key}"}
        assert (await client.get("/v1/models", headers=asked)).status_code == 200


async def test_digests_of_keys_close_it_where_the_environment_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEYS, "first")
    keys = key_digests()
    assert b"first" not in keys[0]
    monkeypatch.delenv(KEYS)
    async with scripted_client(keys=keys) as client:
        for key, status in (("first", 200), (keys[0].hex(), 401), ("", 401)):
            reply = await client.get("/v1/models", headers={"authorization": f"Bearer {key}"})
            assert reply.status_code == status, key


def test_a_warning_for_an_open_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "VGS_RAY_API_KEYS" in open_access_warning("0.0.0.0")
    assert not open_access_warning("127.0.0.1")
    monkeypatch.setenv(KEYS, "first")
    assert not open_access_warning("0.0.0.0")


@pytest.mark.parametrize("asked_for", [False, True])
async def test_problems_are_logged_only_if_configured(asked_for: bool, caplog: Any) -> None:
    caplog.set_level(logging.DEBUG)
    body: dict[str, Any] = {"model": "scripted", "messages": [{"role": "user", "content": "a secret problem"}]}
    async with scripted_client(log_requests=asked_for) as client:
        for stream in (False, True):
            reply = await client.post("/v1/chat/completions", json={**body, "stream": stream})
            assert reply.status_code == 200
        await client.post(
            "/v1/chat/completions", json={**body, "messages": [*body["messages"], {"role": "bad secret"}]}
        )
    assert caplog.text.count("a secret problem") == 2 * asked_for
    assert caplog.text.count('"a secret problem", "answer": ') == 2 * asked_for
    assert "bad secret" not in caplog.text


STAINLESS = (
    "lang",
    "package-version",
    "os",
    "arch",
    "runtime",
    "runtime-version",
    "retry-count",
    "timeout",
    "helper-method",
)
"""Headers of OpenAI's JavaScript client, without their prefix."""


async def test_only_configured_origins_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEYS, "key")
    allowed = "access-control-allow-origin"
    question = {
        "origin": "https://chat.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
    }
    async with scripted_client() as client:
        assert allowed not in (await client.options("/v1/chat/completions", headers=question)).headers
    async with scripted_client(cors_origins=("https://chat.example",)) as client:
        before = await client.options(
            "/v1/chat/completions", headers=question
        )  # browsers send no key with a preflight request
        assert (before.status_code, before.headers[allowed]) == (200, "https://chat.example")
        of_openai_js = ",".join(f"x-stainless-{name}" for name in STAINLESS)
        asked = {"access-control-request-headers": f"authorization,content-type,openai-organization,{of_openai_js}"}
        before = await client.options("/v1/chat/completions", headers={**question, **asked})
        assert before.status_code == 200
        allowed_headers = before.headers["access-control-allow-headers"].lower()
        assert all(f"x-stainless-{name}" in allowed_headers for name in STAINLESS)
        other = await client.options(
            "/v1/chat/completions", headers={**question, **asked, "origin": "https://other.example"}
        )
        assert (other.status_code, allowed in other.headers) == (400, False)
        refused = await client.get("/v1/models", headers={"origin": "https://chat.example"})
        assert (refused.status_code, refused.headers[allowed]) == (401, "https://chat.example")
        assert allowed not in (await client.get("/v1/models", headers={"origin": "https://other.example"})).headers


async def test_the_documentation_loads_nothing_from_other_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEYS, "key")  # browsers open it without one
    async with scripted_client() as client:
        page = await client.get("/docs")
        assert page.status_code == 200
        files = re.findall(r'(?:src|href)="([^"]+)"', page.text)
        assert len(files) == 3
        for file in files:
            assert file.startswith("/")
            assert (await client.get(file)).status_code == 200
        assert "://" not in page.text
        assert "/v1/score" in (await client.get("/openapi.json")).json()["paths"]


def test_huge_bodies_are_refused(served: Served) -> None:
    huge = b"x" * (MAX_BODY_BYTES + 1)
    url = f"{served.url}/v1/chat/completions"
    for content in (huge, (huge[at : at + 65536] for at in range(0, len(huge), 65536))):
        reply = httpx.post(url, content=content, headers={"content-type": "application/json"})
        assert reply.status_code == 413
        assert reply.json()["error"]["code"] == "body_too_large"
