"""Record the endpoint's metrics: calls of the engines, searches, and refused requests.

Tokens are counted after each call, so a search that is cancelled or fails has counted the tokens of its completed calls.
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
from vgs_ray.engines.interface import Completion, Interrupted, Policy, Score, Value
from vgs_ray.prompts import ConversationRefused
from vgs_ray.search.flops import block_flops, score_flops
from vgs_ray.search.model_size import NO_MODEL, ModelSize
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

CLIENT_CLOSED = 499
"""Status of a reply whose client has disconnected, as in nginx."""
REFUSED_PROMPTS = (PromptTooLong, PromptUnreadable, ConversationRefused)


def instrumented(searcher: Searcher, metrics: Metrics) -> Searcher:
    """The searcher with engines whose calls are timed and counted."""
    policy_size, value_size, head_size = searcher.sizes or (None, None, NO_MODEL)
    return replace(
        searcher,
        policy=InstrumentedPolicy(searcher.policy, metrics, policy_size, head_size),
        value=InstrumentedValue(searcher.value, metrics, value_size),
    )


class InstrumentedPolicy:
    """A `Policy` whose calls are timed and counted. FLOPs are counted if its size is known; `head` is that of its value head."""

    def __init__(self, policy: Policy, metrics: Metrics, size: ModelSize | None, head: ModelSize = NO_MODEL) -> None:
        self.policy, self.metrics, self.size, self.head, self.usage = policy, metrics, size, head, policy.usage

    async def extend(self, prefix: Tokens, sampling: Sampling, seed: int) -> Completion:
        """As `Policy.extend`."""
        try:
            with _timed_call(self.metrics, "policy"):
                completion = await self.policy.extend(prefix, sampling, seed)
        except Interrupted as error:
            if error.completion.tokens:
                self._count(prefix, error.completion)
            raise
        self._count(prefix, completion)
        return completion

    def _count(self, prefix: Tokens, completion: Completion) -> None:
        generated, prefilled = len(completion.tokens), completion.prefilled
        self.metrics.add(TOKENS, generated, "generated")
        self.metrics.add(TOKENS, prefilled, "prefilled")
        self.metrics.add(TOKENS, len(prefix) - prefilled, "cached")
        if self.size:
            self.metrics.add(FLOPS, block_flops(self.size, len(prefix), generated, prefilled), "policy")
            self.metrics.add(FLOPS, block_flops(self.head, len(prefix), generated, prefilled), "value")


class InstrumentedValue:
    """A `Value` whose calls are timed and counted. FLOPs are counted if its size is known."""

    def __init__(self, value: Value, metrics: Metrics, size: ModelSize | None) -> None:
        self.value, self.metrics, self.size, self.usage = value, metrics, size, value.usage

    async def score(self, tokens: Tokens) -> Score:
        """As `Value.score`."""
        with _timed_call(self.metrics, "value"):
            score = await self.value.score(tokens)
        self._count(len(tokens), score.scored)
        return score

    async def score_each(self, tokens: Tokens) -> list[Score]:
        """As `Value.score_each`, counted as one call."""
        with _timed_call(self.metrics, "value"):
            scores = await self.value.score_each(tokens)
        self._count(len(tokens), sum(score.scored for score in scores))
        return scores

    def _count(self, length: int, scored: int) -> None:
        if scored:  # 0 if the value engine forwards nothing; then it has no cache either
            self.metrics.add(TOKENS, scored, "scored")
            self.metrics.add(TOKENS, max(length - scored, 0), "cached")
        if self.size:
            self.metrics.add(FLOPS, score_flops(self.size, length, scored), "value")


@contextmanager
def _timed_call(metrics: Metrics, engine: str) -> Iterator[None]:
    """Count and time one engine call. Calls that are cancelled or fail are not timed."""
    began = time.perf_counter()
    metrics.add(CALLS_RUNNING, 1, engine)
    try:
        yield
        metrics.add(CALL_SECONDS, time.perf_counter() - began, engine)
    finally:
        metrics.add(CALLS_RUNNING, -1, engine)


async def wait_for_admission(place: Place, metrics: Metrics, limit_s: float | None = None) -> float:
    """Wait until the search is admitted. Returns the seconds that it waited.

    Raises:
        TooLate: it was not admitted within `limit_s`.
    """
    began = time.perf_counter()
    metrics.add(SEARCHES_WAITING, 1)
    try:
        async with asyncio.timeout(limit_s):
            await place.admitted.wait()
    except TimeoutError as error:
        message = f"the search was still in the queue after {limit_s} s; raise search.deadline_s or try again later"
        raise TooLate(message) from error
    finally:
        waited_s = time.perf_counter() - began
        metrics.add(SEARCHES_WAITING, -1)
        metrics.add(WAIT_SECONDS, waited_s)
    return waited_s


def counted_prompt(searcher: Searcher, metrics: Metrics, spec: SearchSpec) -> Tokens:
    """`searcher.prompt`; an invalid prompt counts as a refused search."""
    try:
        return searcher.prompt(spec)
    except REFUSED_PROMPTS:
        metrics.add(SEARCHES, 1, "refused")
        raise


async def counted_search(
    searcher: Searcher, metrics: Metrics, spec: SearchSpec, place: Place, listen: Listener | None
) -> SearchResult:
    """`searcher.solve` after admission, counted by outcome."""
    outcome = "cancelled"
    try:
        waited_s = await wait_for_admission(place, metrics, spec.deadline_s)
        result = await _timed_search(searcher, metrics, spec, waited_s, listen)
        outcome = "late" if result.late else "done"
        return result
    except Exception as error:  # `CancelledError` is not an `Exception`
        refused = isinstance(error, REFUSED_PROMPTS)
        outcome = "late" if isinstance(error, TooLate) else "refused" if refused else "failed"
        raise
    finally:
        metrics.add(SEARCHES, 1, outcome)


async def _timed_search(
    searcher: Searcher, metrics: Metrics, spec: SearchSpec, waited_s: float, listen: Listener | None
) -> SearchResult:
    began = time.perf_counter()

    def time_first_block(node: Node) -> None:
        if node.id == 1:  # the root is 0
            metrics.add(FIRST_BLOCK_SECONDS, time.perf_counter() - began)
        if listen:
            listen(node)

    metrics.add(SEARCHES_RUNNING, 1)
    metrics.add(BEAMS_RUNNING, spec.budget)
    try:
        return await searcher.solve(spec, time_first_block, waited_s)
    finally:
        metrics.add(SEARCHES_RUNNING, -1)
        metrics.add(BEAMS_RUNNING, -spec.budget)
        metrics.add(SEARCH_SECONDS, time.perf_counter() - began)


class CountRefusals:
    """Middleware that counts replies with status 4xx, from routes and from other middleware."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def count_and_send(message: Message) -> None:
            if message["type"] == "http.response.start" and 400 <= message["status"] < CLIENT_CLOSED:
                self.metrics.add(REFUSALS, 1, str(message["status"]))
            await send(message)

        await self.app(scope, receive, count_and_send)
