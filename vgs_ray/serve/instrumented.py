"""Where the endpoint's metrics come from: the engines' calls, searches and refused requests.

Tokens are counted call by call, so that a search that is cancelled or fails has counted what it spent; only calls that were
cut off in the middle are not in it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vgs_ray.config import Sampling
from vgs_ray.data.tokens import Tokens
from vgs_ray.engines.interface import Completion, Policy, Score, Value
from vgs_ray.search.flops import ModelSize, block_flops, score_flops
from vgs_ray.search.tree import Listener, Node
from vgs_ray.serve.admission import Place
from vgs_ray.serve.metrics import (
    BEAMS_RUNNING,
    CALL_SECONDS,
    CALLS_RUNNING,
    FIRST_BLOCK_SECONDS,
    FLOPS,
    REFUSALS,
    SEARCH_SECONDS,
    SEARCHES,
    SEARCHES_RUNNING,
    SEARCHES_WAITING,
    TOKENS,
    WAIT_SECONDS,
    Metrics,
)
from vgs_ray.serve.search_result import SearchResult
from vgs_ray.serve.search_spec import SearchSpec
from vgs_ray.serve.searcher import PromptTooLong, PromptUnreadable, Searcher, TooLate

CLIENT_GONE = 499
"""Status of a reply that nobody reads."""


def instrumented(search: Searcher, metrics: Metrics) -> Searcher:
    """The same with its engines' calls timed and counted."""
    policy, value = search.sizes or (None, None)
    return replace(
        search,
        policy=InstrumentedPolicy(search.policy, metrics, policy),
        value=InstrumentedValue(search.value, metrics, value),
    )


class InstrumentedPolicy:
    """A `Policy` whose calls are timed and counted; FLOPs where its size is known."""

    def __init__(self, policy: Policy, metrics: Metrics, size: ModelSize | None) -> None:
        self.policy, self.metrics, self.size, self.usage = policy, metrics, size, policy.usage

    async def extend(self, prefix: Tokens, sampling: Sampling, seed: int) -> Completion:
        """As `Policy.extend`."""
        with _call(self.metrics, "policy"):
            made = await self.policy.extend(prefix, sampling, seed)
        self.metrics.add(TOKENS, len(made.tokens), "generated")
        self.metrics.add(TOKENS, made.prefilled, "prefilled")
        self.metrics.add(TOKENS, len(prefix) - made.prefilled, "cached")
        if self.size:
            self.metrics.add(FLOPS, block_flops(self.size, len(prefix), len(made.tokens), made.prefilled), "policy")
        return made


class InstrumentedValue:
    """A `Value` whose calls are timed and counted; FLOPs where its size is known."""

    def __init__(self, value: Value, metrics: Metrics, size: ModelSize | None) -> None:
        self.value, self.metrics, self.size, self.usage = value, metrics, size, value.usage

    async def score(self, tokens: Tokens) -> Score:
        """As `Value.score`."""
        with _call(self.metrics, "value"):
            read = await self.value.score(tokens)
        self._count(len(tokens), read.scored)
        return read

    async def score_each(self, tokens: Tokens) -> list[Score]:
        """As `Value.score_each`, counted as one call."""
        with _call(self.metrics, "value"):
            read = await self.value.score_each(tokens)
        self._count(len(tokens), sum(score.scored for score in read))
        return read

    def _count(self, length: int, scored: int) -> None:
        if scored:  # else it forwards nothing, and has no cache
            self.metrics.add(TOKENS, scored, "scored")
            self.metrics.add(TOKENS, max(length - scored, 0), "cached")
        if self.size:
            self.metrics.add(FLOPS, score_flops(self.size, length, scored), "value")


@contextmanager
def _call(metrics: Metrics, engine: str) -> Iterator[None]:
    """Around one call of an engine; the time of one that was cancelled or failed says nothing about the engine."""
    began = time.perf_counter()
    metrics.add(CALLS_RUNNING, 1, engine)
    try:
        yield
        metrics.add(CALL_SECONDS, time.perf_counter() - began, engine)
    finally:
        metrics.add(CALLS_RUNNING, -1, engine)


async def waited(place: Place, metrics: Metrics, limit_s: float | None = None) -> float:
    """Seconds until there was room.

    Raises:
        TooLate: `limit_s` came first.
    """
    began = time.perf_counter()
    metrics.add(SEARCHES_WAITING, 1)
    try:
        async with asyncio.timeout(limit_s):
            await place.room.wait()
    except TimeoutError as error:
        raise TooLate(f"no room came free in {limit_s} s; raise search.deadline_s or try again later") from error
    finally:
        took = time.perf_counter() - began
        metrics.add(SEARCHES_WAITING, -1)
        metrics.add(WAIT_SECONDS, took)
    return took


def counted_prompt(search: Searcher, metrics: Metrics, spec: SearchSpec) -> Tokens:
    """`search.prompt`, where a prompt that can't be read counts as a search that was refused."""
    try:
        return search.prompt(spec)
    except (PromptTooLong, PromptUnreadable):
        metrics.add(SEARCHES, 1, "refused")
        raise


async def counted_search(
    search: Searcher, metrics: Metrics, spec: SearchSpec, place: Place, listen: Listener | None
) -> SearchResult:
    """`search.solve` once there is room for it, counted by how it ended."""
    end = "cancelled"
    try:
        waited_s = await waited(place, metrics, spec.deadline_s)
        found = await _timed_search(search, metrics, spec, waited_s, listen)
        end = "late" if found.late else "done"
        return found
    except Exception as error:  # a cancelled search is no `Exception`
        refused = isinstance(error, PromptTooLong | PromptUnreadable)
        end = "late" if isinstance(error, TooLate) else "refused" if refused else "failed"
        raise
    finally:
        metrics.add(SEARCHES, 1, end)


async def _timed_search(
    search: Searcher, metrics: Metrics, spec: SearchSpec, waited_s: float, listen: Listener | None
) -> SearchResult:
    began = time.perf_counter()

    def heard(node: Node) -> None:
        if node.id == 1:  # the root is 0
            metrics.add(FIRST_BLOCK_SECONDS, time.perf_counter() - began)
        if listen:
            listen(node)

    metrics.add(SEARCHES_RUNNING, 1)
    metrics.add(BEAMS_RUNNING, spec.budget)
    try:
        return await search.solve(spec, heard, waited_s)
    finally:
        metrics.add(SEARCHES_RUNNING, -1)
        metrics.add(BEAMS_RUNNING, -spec.budget)
        metrics.add(SEARCH_SECONDS, time.perf_counter() - began)


class CountRefusals:
    """Counts replies of status 4xx, whoever gave them: the routes, or what stands before them."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start" and 400 <= message["status"] < CLIENT_GONE:
                self.metrics.add(REFUSALS, 1, str(message["status"]))
            await send(message)

        await self.app(scope, receive, counted)
