"""Responsiveness of the endpoint under slow clients: python bench/slow_clients.py [--count 4000] [--seconds 45].

Starts `python -m pipelines.serve sandbox` and opens connections that send too slowly: headers, a small body, or a large body
whose first 100,000 bytes arrive at once. Each then sends a byte every 5 seconds. They come from 127.0.0.1 or from 200
loopback addresses. Meanwhile another client on 127.0.0.1 opens a new connection every half second and alternately requests
the models and a search with budget 1. Out: a row for each kind with the longest latency of both, the number that failed, and
how the slow connections ended.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from load import body, problems, sandbox_endpoint

POST = "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
BEGINNINGS = {
    "headers": f"{POST}X-Slow: ",
    "body": f'{POST}Content-Length: 2000\r\n\r\n{{"model": ',
    "large body": f'{POST}Content-Length: 900000\r\n\r\n{{"model": "{"x" * 100_000}',
}
EVERY_S = 5.0
PATIENCE_S = 10.0


@contextmanager
def command(*options: str) -> Iterator[int]:
    """Run the command; yields its port."""
    with tempfile.TemporaryDirectory() as folder:
        settings = sandbox_endpoint(Path(folder) / "value").serve
        fixed = ["--serve.value-model", settings.value_model, "--serve.port", str(settings.port)]
        line = [sys.executable, "-m", "pipelines.serve", "sandbox", *fixed, *options]
        with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
            assert server.stdout
            try:
                next(line for line in server.stdout if line.startswith("serving "))
                time.sleep(3)  # until two health checks of a new replica succeed, HAProxy forwards to Ray's own proxy
                yield settings.port
            finally:
                server.terminate()


async def slow(port: int, beginning: str, address: str, ends: Counter[str], until: float) -> None:
    """One slow client. Counts the status of its reply, or how its connection ended."""
    writer = None
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0), limit=2**20)
        writer.write(beginning.encode())
        ends["opened"] += 1
        while time.monotonic() < until:
            try:
                line = await asyncio.wait_for(reader.readline(), EVERY_S)
                status = re.match(rb"HTTP/1.1 (\d+)", line)
                ends[status[1].decode() if status else "closed"] += 1
                return
            except TimeoutError:
                writer.write(b"x")
        ends["still open"] += 1
    except OSError:
        ends["reset"] += 1
    finally:
        if writer:
            writer.close()


async def slow_ones(port: int, kind: str, addresses: int, count: int, ends: Counter[str], until: float) -> None:
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            address = f"127.0.{number % addresses}.1" if addresses > 1 else "127.0.0.1"
            group.create_task(slow(port, BEGINNINGS[kind], address, ends, until))
            if number % 100 == 99:
                await asyncio.sleep(0.05)  # avoids overflowing the listening socket's queue


def healthy(port: int, until: float) -> tuple[dict[str, float], int]:
    """Longest latency in seconds of listing the models and of a small search, and the number of failed requests."""
    longest, failed = {"models": 0.0, "search": 0.0}, 0
    small = body(problems(1)[0], 1)
    small["search"] |= {"method": "sample", "budget": 1, "max_tokens": 16}
    while time.monotonic() < until:
        for name, method, path, content in (
            ("models", "GET", "/v1/models", None), ("search", "POST", "/v1/chat/completions", small),
        ):  # fmt: skip
            began = time.monotonic()
            try:
                with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S, trust_env=False) as client:
                    failed += client.request(method, path, json=content).status_code != 200
            except httpx.HTTPError:
                failed += 1
            longest[name] = max(longest[name], time.monotonic() - began)
            time.sleep(0.5)
    return longest, failed


def measure(port: int, kind: str, addresses: int, count: int, seconds: float) -> str:
    """One line of the table."""
    ends: Counter[str] = Counter()
    began = time.monotonic()
    until = began + seconds
    crowd = threading.Thread(target=lambda: asyncio.run(slow_ones(port, kind, addresses, count, ends, until)))
    crowd.start()
    while ends["opened"] < count and time.monotonic() < began + seconds / 2:
        time.sleep(0.1)
    opened = ends["opened"]
    longest, failed = healthy(port, until)
    crowd.join()
    ended = ", ".join(f"{name}: {number}" for name, number in sorted(ends.items()) if name != "opened")
    return (
        f"| {kind} | {addresses} | {opened} | {longest['models']:.2f} | {longest['search']:.2f} | {failed} | {ended} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=4000)
    parser.add_argument("--seconds", type=float, default=45, help="duration for each kind")
    parser.add_argument("options", nargs="*", help="options of pipelines.serve, after --")
    options = parser.parse_args()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with command(*options.options) as port:
        print(
            "| slow | addresses | open | longest latency of models, s | of a search, s | failed | slow connections by outcome |"
        )
        print("|---|---|---|---|---|---|---|", flush=True)
        for kind in BEGINNINGS:
            for addresses in (1, 200):
                print(measure(port, kind, addresses, options.count, options.seconds), flush=True)


if __name__ == "__main__":
    main()
