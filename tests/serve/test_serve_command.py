"""`python -m pipelines.serve`: only this machine can connect, a dead replica is replaced, and Ctrl-C drains the endpoint."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from load import problems
from ray_processes import command_line, workers

from pipelines.serving.ingress import free_ports
from vgs_ray.models import RANDOM

[PROBLEM] = problems(1)
LIMIT_S = 120.0
CLIENTS, NOTICED_S = 6, 2.0
LONG = {"budget": 128, "block": 4, "events": True, "seed": 1}


@pytest.mark.timeout(400)
def test_a_served_endpoint_from_its_start_to_ctrl_c() -> None:
    [port] = free_ports(1)
    command = [
        sys.executable, "-m", "pipelines.serve", "sandbox", "--serve.port", str(port),
        "--serve.value-model", RANDOM, "--serve.log-requests", "--serve.cors-origins", "https://chat.example",
    ]  # fmt: skip
    url = f"http://127.0.0.1:{port}/v1"
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        try:
            output = [next(line for line in server.stdout if line.startswith("engine and worker logs: "))]
            output.append(next(line for line in server.stdout if line.startswith("serving ")))
            processes = psutil.Process(server.pid)
            ingress = children(processes, "haproxy")
            if sys.platform == "linux":
                only_this_machine_can_connect(ingress, port)
                a_dead_replica_is_replaced(url, processes)
            for stream in (False, True):
                asyncio.run(disconnects_cancel_searches(url, stream))
            frames = list(search_under_ctrl_c(url, server))
            rest = server.stdout.read()
            assert server.wait(LIMIT_S) == 0
        finally:
            server.kill()
    assert f"127.0.0.1:{port}/v1; press Ctrl-C to stop" in output[1]
    assert frames[-1] == "data: [DONE]"
    assert '"finish_reason": "stop"' in frames[-2]
    assert rest.index("draining") < rest.index("the endpoint has stopped")
    assert not psutil.wait_procs(ingress, timeout=10)[1]
    logs = Path(output[0].partition(": ")[2].strip())
    asked = json.dumps({"problem": PROBLEM})[1:-1]
    assert sum(asked in file.read_text(errors="replace") for file in logs.glob("worker-*.err")) == 1


def only_this_machine_can_connect(ingress: list[psutil.Process], port: int) -> None:
    [haproxy] = ingress
    listens = [each.laddr for each in haproxy.net_connections("tcp") if each.status == psutil.CONN_LISTEN]
    assert port in {port for _, port in listens}
    assert {host for host, _ in listens} == {"127.0.0.1"}


def a_dead_replica_is_replaced(url: str, processes: psutil.Process) -> None:
    """It dies during a stream and during a search whose reply has not begun. Then another one answers."""
    time.sleep(2)  # until two health checks of a new replica succeed, HAProxy forwards to Ray's own proxy
    with ThreadPoolExecutor(2) as pool:
        whole, stream = pool.submit(post, url, **LONG), pool.submit(lambda: list(lines(url)))
        time.sleep(3)
        [replica] = children(processes, "ray::ServeReplica:vgs:search")
        os.kill(replica.pid, signal.SIGKILL)
        reply = whole.result(LIMIT_S)
        assert reply.status_code == 503, reply.text
        assert reply.json()["error"]["code"] == "replica_gone"
        assert reply.headers["Retry-After"] == "30"
        with pytest.raises(httpx.RemoteProtocolError):  # the status was 200, but the reply is incomplete
            stream.result(LIMIT_S)
    deadline = time.monotonic() + LIMIT_S
    while (reply := post(url, budget=1, method="sample")).status_code != 200:
        assert reply.status_code == 503, reply.text
        assert "error" in reply.json()
        assert time.monotonic() < deadline, reply.text
        time.sleep(0.5)


async def disconnects_cancel_searches(url: str, stream: bool) -> None:
    """Clients disconnect before they have read anything, so no write to them fails."""
    asked = body(LONG | {"events": False}, stream)

    async def ask_and_disconnect() -> None:
        async with httpx.AsyncClient(timeout=LIMIT_S, trust_env=False) as client:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.post(f"{url}/chat/completions", json=asked), 1.5)

    before = searches_cancelled(url)
    await asyncio.gather(*(ask_and_disconnect() for _ in range(CLIENTS)))
    disconnected = time.monotonic()
    while searches_cancelled(url) < before + CLIENTS:  # a search that finishes is not cancelled
        assert time.monotonic() - disconnected < NOTICED_S


def searches_cancelled(url: str) -> int:
    [count] = re.findall(
        r'searches_total{end="cancelled"} (\d+)',
        httpx.get(f"{url[:-3]}/metrics", timeout=LIMIT_S, trust_env=False).text,
    )
    return int(count)


def children(process: psutil.Process, title: str) -> list[psutil.Process]:
    return [each for each in workers(process.pid, title) if title in command_line(each).split(" ")[0]]


def post(url: str, **search: Any) -> httpx.Response:
    return httpx.post(f"{url}/chat/completions", json=body(search, False), timeout=LIMIT_S, trust_env=False)


def lines(url: str) -> Iterator[str]:
    """Lines of a long search's stream."""
    asked = body(LONG, True)
    with httpx.stream("POST", f"{url}/chat/completions", json=asked, timeout=LIMIT_S, trust_env=False) as reply:
        assert reply.status_code == 200
        yield from filter(None, reply.iter_lines())


def body(search: dict[str, Any], stream: bool) -> dict[str, Any]:
    return {"model": "vgs", "messages": [{"role": "user", "content": PROBLEM}], "search": search, "stream": stream}


def search_under_ctrl_c(url: str, server: subprocess.Popen[str]) -> Iterator[str]:
    """Lines of a long search. The server gets SIGINT at its first block."""
    interrupted = False
    for line in lines(url):
        if not interrupted and line == "event: vgs_ray.node":
            interrupted = True
            server.send_signal(signal.SIGINT)
        yield line
    assert interrupted
