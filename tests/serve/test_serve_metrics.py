"""Metrics: searches by outcome, tokens and FLOPs as in the replies, durations, and refused requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from scripted_server import (
    BREAK,
    DIE,
    HANG,
    LONG,
    WORLD,
    HangsAfterTwoBlocks,
    Moody,
    chat,
    scripted_client,
    scripted_searcher,
)

from vgs_ray.search.flops import ModelSizes
from vgs_ray.search.model_size import ModelSize
from vgs_ray.serve.access import KEYS
from vgs_ray.serve.limits import MAX_BODY_BYTES
from vgs_ray.serve.metrics import ENDS, METRICS, Metric, Mirror

SIZES = ModelSizes(ModelSize(params=1000, layers=2, hidden=16), ModelSize(params=900, layers=2, hidden=16))
Numbers = dict[tuple[str, ...], float]


class Asked:
    """An application and a client in this process."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client

    async def ask(self, problem: str = "3", **body: Any) -> httpx.Response:
        return await self.client.post("/v1/chat/completions", json=chat(problem, **body))

    async def numbers(self) -> Numbers:
        """Samples by their name and the values of their labels."""
        families = text_string_to_metric_families((await self.client.get("/metrics")).text)
        return {(sample.name, *sample.labels.values()): sample.value for each in families for sample in each.samples}


@asynccontextmanager
async def asked(policy: Moody | None = None, mirror: Mirror | None = None, **settings: Any) -> AsyncIterator[Asked]:
    async with scripted_client(scripted_searcher(policy, sizes=SIZES), mirror=mirror, **settings) as client:
        yield Asked(client)


async def test_metrics_are_the_sum_of_the_replies() -> None:
    async with asked() as server:
        replies = [(await server.ask(seed=seed)).json() for seed in range(3)]
        now = await server.numbers()
    for kind in ("generated", "prefilled", "cached", "scored"):
        told = sum(reply["vgs_ray"]["usage"][kind] for reply in replies)
        assert now["vgs_ray_tokens_total", kind] == told, kind
    flops = [now["vgs_ray_flops_total", engine] for engine in ("policy", "value")]
    assert sum(flops) == pytest.approx(sum(reply["vgs_ray"]["flops"] for reply in replies))
    assert min(flops) > 0
    assert now["vgs_ray_call_seconds_count", "policy"] == now["vgs_ray_call_seconds_count", "value"] > 3 * 8
    assert now["vgs_ray_first_block_seconds_count",] == now["vgs_ray_search_seconds_count",] == 3
    assert 0 < now["vgs_ray_first_block_seconds_sum",] < now["vgs_ray_search_seconds_sum",]


async def test_a_cancelled_search_has_counted_what_it_spent() -> None:
    policy = HangsAfterTwoBlocks(WORLD)  # the third round never ends
    async with asked(policy) as server:
        running = asyncio.create_task(server.ask())
        while policy.started < 8:
            await asyncio.sleep(0.01)
        now = await server.numbers()
        assert (now["vgs_ray_searches_running",], now["vgs_ray_beams_running",]) == (1, 8)
        assert now["vgs_ray_calls_running", "policy"] == 8
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        async with asyncio.timeout(5):
            while not (now := await server.numbers())["vgs_ray_searches_total", "cancelled"]:
                await asyncio.sleep(0.01)
    assert policy.cancelled == 8
    assert now["vgs_ray_tokens_total", "generated"] == policy.usage.generated == 2 * 8 * 6
    assert now["vgs_ray_call_seconds_count", "policy"] == 2 * 8
    levels = [value for name, value in now.items() if name[0].endswith("_running")]
    assert levels == [0] * 4


@pytest.mark.parametrize(
    ("problem", "body", "end"),
    [
        ("3", {}, "done"),
        ("3", {"search": {"deadline_s": 0.2}}, "late"),
        (HANG, {"search": {"deadline_s": 0.2}}, "late"),
        (DIE, {}, "failed"),
        (BREAK, {"stream": True}, "failed"),
        (LONG, {"stream": True}, "refused"),
    ],
)
async def test_searches_are_counted_by_outcome(problem: str, body: dict[str, Any], end: str) -> None:
    async with asked(HangsAfterTwoBlocks(WORLD) if body.get("search") else None) as server:
        await server.ask(problem, **body)
        now = await server.numbers()
    assert {one: now["vgs_ray_searches_total", one] for one in ENDS} == {one: float(one == end) for one in ENDS}


async def test_refused_requests_are_counted_by_status(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEYS, "key")
    policy = Moody(WORLD)
    async with asked(policy, max_beams=8) as server:
        assert (await server.client.get("/metrics")).status_code == 401
        server.client.headers["authorization"] = "Bearer key"
        running = asyncio.create_task(server.ask(HANG))
        while policy.started < 8:
            await asyncio.sleep(0.01)
        replies = [
            await server.ask(n=0),
            await server.ask(model="gpt"),
            await server.client.get("/nowhere"),
            await server.client.post("/v1/chat/completions", content=b"x" * (MAX_BODY_BYTES + 1)),
            await server.ask(),
            await server.ask(stream=True),
        ]
        assert [reply.status_code for reply in replies] == [400, 404, 404, 413, 429, 429]
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        now = await server.numbers()
    refused = {name[1]: value for name, value in now.items() if name[0] == "vgs_ray_refused_requests_total"}
    assert refused == {"400": 1, "401": 1, "404": 2, "408": 0, "413": 1, "429": 2}


async def test_a_mirror_receives_every_change() -> None:
    heard: dict[tuple[str, str], float] = {}

    def mirror(metric: Metric, amount: float, label: str) -> None:
        heard[metric.name, label] = heard.get((metric.name, label), 0) + amount

    async with asked(mirror=mirror) as server:
        await server.ask()
        now = await server.numbers()
    ends = {"counter": "_total", "gauge": "", "histogram": "_sum"}
    for metric in METRICS:
        for label in metric.values or ("",):
            name = (metric.name + ends[metric.kind], *([label] if label else []))
            assert heard.get((metric.name, label), 0) == pytest.approx(now[name]), name
