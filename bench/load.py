"""A sandbox endpoint with an untrained value model, and clients, for benchmarks and tests."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from pipelines.cli import parse
from pipelines.serving.ingress import free_ports
from vgs_ray.config import Recipe
from vgs_ray.models import model_path
from vgs_ray.sandbox.rows import benchmark_rows
from vgs_ray.serve.events import NODE
from vgs_ray.value.model import ValueModel

PATIENCE_S = 600.0
DONE = "[DONE]"


class Took(NamedTuple):
    """Duration of one search in seconds.

    Attributes:
        first: until the first block; 0 if the client requested no events.
        whole: until the reply is complete.
        added: part of `first` that the endpoint adds: from the request to the start of the search, and from the scored block to
            the client's receipt of its event.
    """

    first: float
    whole: float
    added: float = 0.0


def sandbox_endpoint(folder: Path, *options: str) -> Recipe:
    """The sandbox's recipe with a value model whose head is random: accuracy does not matter here."""
    ValueModel.from_backbone(model_path("sandbox:ref"), seed=1).save_pretrained(folder)
    [port] = free_ports(1)
    fixed = ["--serve.value-model", str(folder), "--serve.port", str(port)]
    return parse("pipelines.serve", ["sandbox", *fixed, *options])


def problems(count: int) -> list[str]:
    return [row["problem"] for row in benchmark_rows(count)]


def body(problem: str, seed: int, events: bool = False) -> dict[str, Any]:
    """The body of a request for a repeatable search."""
    search = {"seed": seed, "events": events}
    return {"model": "vgs", "messages": [{"role": "user", "content": problem}], "stream": events, "search": search}


def client(url: str, connections: int) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
    return httpx.AsyncClient(base_url=url, timeout=PATIENCE_S, trust_env=False, limits=limits)


async def search(server: httpx.AsyncClient, request: dict[str, Any]) -> Took:
    """Send one search.

    Raises:
        httpx.HTTPStatusError: the endpoint replied with an error.
    """
    began = time.perf_counter()
    if not request["stream"]:
        reply = await server.post("/chat/completions", json=request)
        reply.raise_for_status()
        return Took(0.0, time.perf_counter() - began)
    first = added = 0.0
    event = ""
    async with server.stream("POST", "/chat/completions", json=request) as reply:
        reply.raise_for_status()
        async for line in reply.aiter_lines():
            name, _, text = line.partition(": ")
            event = text if name == "event" else event if name else ""
            data = json.loads(text) if name == "data" and text != DONE else {}
            if "error" in data:
                raise RuntimeError(text)
            if not first and data and event == NODE:
                first = time.perf_counter() - began
                added = first - data["seconds"]
    return Took(first, time.perf_counter() - began, added)


async def closed_loop(count: int, work: Sequence[Callable[[], Awaitable[Took]]]) -> tuple[float, list[Took]]:
    """Run all of `work`, `count` pieces at a time. Returns the total seconds and each piece's durations, in order."""
    waiting = iter(enumerate(work))
    took: dict[int, Took] = {}

    async def worker() -> None:
        for index, piece in waiting:
            took[index] = await piece()

    began = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(count)))
    return time.perf_counter() - began, [took[index] for index in range(len(work))]
