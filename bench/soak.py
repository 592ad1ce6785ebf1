"""The endpoint under load with failures: python bench/soak.py [--minutes 30] [--clients 8] [--every 60].

Engines have replicas of their own (two policies, one value model). Clients search without pause. One in five disconnects,
half of them during a stream and half before a reply. At regular intervals one engine replica gets SIGKILL. Out: requests by
outcome, searches that the endpoint cancelled because their client disconnected, searches and beams that still run at the end
(must be 0), and the memory of each component in the first and the last third. Exits with 1 if a request failed or has no
outcome.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
from load import body, client, problems, sandbox_endpoint, search

from pipelines.serve import endpoint

GIB = 1024**3
PARTS = {"ServeReplica:vgs:search": "search", "ServeReplica:vgs:policy": "policy", "ServeReplica:vgs:value": "value"}
PARTS |= {
    "ProxyActor": "proxy",
    "bin/haproxy": "haproxy",
    "HAProxyManager": "its manager",
    "ServeController": "controller",
}
VICTIMS = ("policy", "value")
PAUSE_S = 5.0


def processes() -> Iterator[tuple[str, psutil.Process]]:
    """Components of the endpoint with their processes."""
    for process in psutil.Process().children(recursive=True):
        try:
            title = " ".join(process.cmdline())
        except psutil.Error:
            continue  # it has ended
        yield from ((part, process) for mark, part in PARTS.items() if mark in title)


async def ask(server: httpx.AsyncClient, draw: random.Random, texts: list[str]) -> str:
    """Send one request. Returns its outcome."""
    leaves = draw.random() < 0.2
    streams = draw.random() < (0.5 if leaves else 0.2)
    call = search(server, body(draw.choice(texts), draw.randrange(2**31), events=streams))
    try:
        if leaves:
            await asyncio.wait_for(call, draw.uniform(0.05, 1.0))
            return "answered"
        await call
    except TimeoutError:
        return "left"
    except httpx.HTTPStatusError as error:
        return f"status {error.response.status_code}"
    except (httpx.HTTPError, RuntimeError) as error:
        return f"failed: {type(error).__name__} {error}"[:120]
    return "answered"


async def load(url: str, clients: int, until: float, ends: Counter[str]) -> None:
    texts = problems(200)

    async def one(number: int, server: httpx.AsyncClient) -> None:
        draw = random.Random(number)
        while time.monotonic() < until:
            ends["asked"] += 1
            ends[await ask(server, draw, texts)] += 1

    async with client(url, clients) as server:
        await asyncio.gather(*(one(number, server) for number in range(clients)))


async def kills(every: float, until: float, ends: Counter[str]) -> None:
    draw = random.Random(0)
    while time.monotonic() + every < until:
        await asyncio.sleep(every)
        victims = [(part, process) for part, process in processes() if part in VICTIMS]
        if victims:
            part, process = draw.choice(victims)
            os.kill(process.pid, signal.SIGKILL)
            ends[f"killed {part}"] += 1


async def watch(until: float, memory: dict[str, list[float]]) -> None:
    """Sample the memory in GiB of each component's largest process, without shared pages."""
    while time.monotonic() < until:
        now: dict[str, float] = defaultdict(float)
        for part, process in processes():
            try:
                now[part] = max(now[part], process.memory_full_info().uss / GIB)
            except psutil.Error:
                continue
        for part, size in now.items():
            memory[part].append(size)
        await asyncio.sleep(PAUSE_S)


async def left_over(url: str) -> dict[str, int]:
    """Metrics of the search replica after the clients have ended and running aborts have had time to finish."""
    await asyncio.sleep(PAUSE_S)
    async with client(url.removesuffix("/v1"), 1) as server:
        text = (await server.get("/metrics")).raise_for_status().text
    shown = {
        'vgs_ray_searches_total{end="cancelled"}': "cancelled by the endpoint",
        "vgs_ray_searches_running": "searches left over",
        "vgs_ray_beams_running": "beams left over",
    }
    values = {
        sample: float(value)
        for sample, _, value in (line.rpartition(" ") for line in text.splitlines())
        if sample in shown
    }
    return {name: int(values[sample]) for sample, name in shown.items()}


async def soak(url: str, options: argparse.Namespace) -> tuple[Counter[str], dict[str, list[float]]]:
    until = time.monotonic() + 60 * options.minutes
    ends: Counter[str] = Counter()
    memory: dict[str, list[float]] = defaultdict(list)
    await asyncio.gather(
        load(url, options.clients, until, ends), kills(options.every, until, ends), watch(until, memory)
    )
    ends.update(await left_over(url))
    return ends, memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--every", type=float, default=60, help="seconds between two kills")
    options = parser.parse_args()
    apart = ("--serve.layout", "apart", "--serve.policy-resources.replicas", "2")
    with tempfile.TemporaryDirectory() as folder, endpoint(sandbox_endpoint(Path(folder) / "value", *apart)) as url:
        ends, memory = asyncio.run(soak(url, options))
    print(f"{options.minutes:g} minutes, {options.clients} clients")
    for name, count in sorted(ends.items()):
        print(f"{name:<20} {count}")
    print("| part | first third, GiB | last third | highest |\n|---|---|---|---|")
    for part, sizes in sorted(memory.items()):
        third = max(len(sizes) // 3, 1)
        first, last = statistics.median(sizes[:third]), statistics.median(sizes[-third:])
        print(f"| {part} | {first:.2f} | {last:.2f} | {max(sizes):.2f} |")
    lost = ends["asked"] - ends["answered"] - ends["left"]
    sys.exit(bool(lost or ends["searches left over"] or ends["beams left over"]))


if __name__ == "__main__":
    main()
