"""Overhead of the endpoint over a search in this process: python bench/serve.py [--concurrent 1 8 32 128] [--searches 96].

Runs the same searches of the sandbox, with the same seeds and settings, by a `Searcher` in this process and through Ray
Serve and HTTP, in alternating turns. A client starts its next search when the previous one ends. Out: searches per second,
the ratio of the medians with its interval (95%, turns resampled), percentiles 50 and 99 of the duration in seconds,
milliseconds to the first block, and the part of them that the endpoint adds; milliseconds of CPU time that a search takes in all
processes. With `--layout apart` each engine has its own process.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import httpx
import numpy as np
import psutil
from load import Took, body, client, closed_loop, problems, sandbox_endpoint, search

from pipelines.serve import endpoint
from pipelines.serving.application import build_searcher
from pipelines.serving.engine_replicas import local_engines
from vgs_ray.search.tree import Node
from vgs_ray.serve.requests import ChatRequest
from vgs_ray.serve.search_spec import resolve_search
from vgs_ray.serve.searcher import Searcher

Call = Callable[[], Awaitable[Took]]


def in_process(searcher: Searcher, settings: object, problem: str, seed: int) -> Call:
    spec = resolve_search(ChatRequest(**body(problem, seed)), settings)  # type: ignore[arg-type]

    async def call() -> Took:
        began, first = time.perf_counter(), []

        def listen(_: Node) -> None:
            if not first:
                first.append(time.perf_counter() - began)

        await searcher.solve(spec, listen)
        return Took(first[0], time.perf_counter() - began)

    return call


def over_http(server: httpx.AsyncClient, problem: str, seed: int, events: bool) -> Call:
    async def call() -> Took:
        return await search(server, body(problem, seed, events))

    return call


def cpu_s() -> float:
    """CPU seconds of this process and its descendants, which Ray's processes are."""
    total = 0.0
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        with suppress(psutil.Error):  # it has ended
            total += sum(process.cpu_times()[:2])
    return total


def percentiles(took: list[Took]) -> str:
    p50, p99 = np.percentile([each.whole for each in took], [50, 99])
    return f"{p50:.2f}, {p99:.2f}"


def interval(inside: list[float], http: list[float]) -> tuple[float, float]:
    """Interval of the ratio of the medians. Pairs of consecutive turns are resampled."""
    pairs = np.array([inside, http]).T
    drawn = np.random.default_rng(0).integers(len(pairs), size=(2000, len(pairs)))
    ratios = np.median(pairs[drawn, 1], axis=1) / np.median(pairs[drawn, 0], axis=1)
    low, high = np.percentile(ratios, [2.5, 97.5])
    return float(low), float(high)


async def measure(searcher: Searcher, settings: object, url: str, count: int, searches: int, rounds: int) -> None:
    """One line of the table.

    The first searches of a turn start at the same time, unlike real load, so their times are not included. Each later one starts
    when another one ends.
    """
    texts = problems(searches)
    rates: dict[str, list[float]] = {"inside": [], "http": []}
    took: dict[str, list[Took]] = {"inside": [], "http": [], "stream": []}
    cpu_ms: dict[str, list[float]] = {"inside": [], "http": []}
    async with client(url, count) as server:
        for round in range(rounds):
            # New seeds in each round, because the engines cache earlier searches. The turns of a round share their seeds.
            seeds = [round * searches + at for at in range(searches)]
            turns = {
                "inside": [in_process(searcher, settings, text, seed) for text, seed in zip(texts, seeds, strict=True)],
                "http": [over_http(server, text, seed, False) for text, seed in zip(texts, seeds, strict=True)],
            }
            # The order alternates between rounds, so that a machine that slows down favours neither.
            for name in sorted(turns, reverse=bool(round % 2)):
                cpu_before = cpu_s()
                seconds, searched = await closed_loop(count, turns[name])
                cpu_ms[name].append(1000 * (cpu_s() - cpu_before) / searches)
                rates[name].append(searches / seconds)
                took[name] += searched[count:]
            streams = [over_http(server, text, seed + 10**6, True) for text, seed in zip(texts, seeds, strict=True)]
            took["stream"] += (await closed_loop(count, streams))[1][count:]
    inside, http = (statistics.median(rates[name]) for name in ("inside", "http"))
    low, high = interval(rates["inside"], rates["http"])
    first = [statistics.median(each.first for each in took[name]) for name in ("inside", "stream")]
    added = statistics.median(each.added for each in took["stream"])
    print(
        f"| {count} | {inside:.2f} | {http:.2f} | {http / inside:.3f} ({low:.3f} to {high:.3f}) | "
        f"{percentiles(took['inside'])} | {percentiles(took['http'])} | {1000 * first[0]:.0f} | {1000 * first[1]:.0f} | "
        f"{1000 * added:.1f} | {statistics.median(cpu_ms['inside']):.0f} | {statistics.median(cpu_ms['http']):.0f} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--concurrent", type=int, nargs="+", default=[1, 8, 32, 128])
    parser.add_argument(
        "--searches", type=int, default=96, help="searches in a turn; at least 1.5 times the concurrent ones"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--layout", choices=("together", "apart"), default="together")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        recipe = sandbox_endpoint(Path(folder) / "value", "--serve.layout", options.layout, "--serve.max-beams", "4096")
        searcher = build_searcher(recipe, recipe.serve.value_model, *local_engines(recipe, recipe.serve.value_model))
        with endpoint(recipe) as url:
            print(
                f"searches of budget {recipe.serve.beam.budget}, layout {options.layout}, medians of {options.rounds} turns"
            )
            print(
                "| concurrent | in process, searches/s | HTTP | ratio | p50, p99 s | HTTP | first block ms | HTTP | added ms | "
                "CPU ms a search | HTTP |"
            )
            print(f"|{11 * '---|'}", flush=True)
            for count in options.concurrent:
                searches = max(options.searches if count > 1 else options.searches // 4, 3 * count // 2)
                asyncio.run(measure(searcher, recipe.serve, url, count, searches, options.rounds))


if __name__ == "__main__":
    main()
