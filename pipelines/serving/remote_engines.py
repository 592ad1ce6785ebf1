"""`Policy` and `Value` on the replicas of a Ray Serve deployment. If a replica dies, its calls are repeated on another one.

In: deployment handles. Out: engines for a `Searcher`. All calls of one search go to the same replica, which caches its
prefixes. A call can be the reason why replicas die, so `max_deaths` limits how often it is repeated.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Any

from ray.exceptions import RayActorError
from ray.serve.exceptions import DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from pipelines.serving.call_batches import Call, CallBatches, ReplicaFull
from vgs_ray.config import Sampling
from vgs_ray.data.tokens import Tokens
from vgs_ray.engines.interface import SEARCH_CONTEXT, Completion, EngineDied, EngineFailed, Score, SearchContext, Usage

PAUSE_S = 0.5
"""Pause before a call is repeated."""
PLACES = 4
"""How often a call looks for a replica that is not full, before it waits in the queue of the first one's engine. The places are
random, so it may find the same replica again: with two replicas, one search in eight has all its places on one."""

log = logging.getLogger(__name__)


class RemotePolicy:
    """A `Policy` on the replicas of a deployment.

    Args:
        replicas: handle of the deployment.
        limit_s: maximum duration of a call, repetitions included.
    """

    def __init__(self, replicas: DeploymentHandle[Any], limit_s: float) -> None:
        self.usage, self._replicas, self._limit_s = Usage(), CallBatches(replicas), limit_s

    async def extend(self, prefix: Tokens, sampling: Sampling, seed: int) -> Completion:
        """As `Policy.extend`.

        Raises:
            EngineDied: no replica answered in time, or `max_deaths` replicas died.
        """
        completion: Completion = await _call(
            self._replicas, self._limit_s, Call("extend", (prefix, sampling, seed), len(prefix) + sampling.max_tokens)
        )
        self.usage.generated += len(completion.tokens)
        self.usage.prefilled += completion.prefilled
        self.usage.cached += len(prefix) - completion.prefilled
        return completion

    async def cache_block(self) -> int:
        """Number of tokens in a block of the replicas' caches."""
        return int(await _call(self._replicas, self._limit_s, Call("policy_cache_block")))


class RemoteValue:
    """A `Value` on the replicas of a deployment.

    Args:
        replicas: handle of the deployment.
        limit_s: maximum duration of a call, repetitions included.
    """

    def __init__(self, replicas: DeploymentHandle[Any], limit_s: float) -> None:
        self.usage, self._replicas, self._limit_s = Usage(), CallBatches(replicas), limit_s

    async def score(self, tokens: Tokens) -> Score:
        """As `Value.score`.

        Raises:
            EngineDied: no replica answered in time, or `max_deaths` replicas died.
        """
        score: Score = await _call(self._replicas, self._limit_s, Call("score", (tokens,), len(tokens)))
        self.usage.scored += score.scored
        self.usage.cached += max(len(tokens) - score.scored, 0)
        return score

    async def score_each(self, tokens: Tokens) -> list[Score]:
        """As `Value.score_each`.

        Raises:
            EngineDied: no replica answered in time, or `max_deaths` replicas died.
        """
        scores: list[Score] = await _call(self._replicas, self._limit_s, Call("score_each", (tokens,), len(tokens)))
        self.usage.scored += sum(score.scored for score in scores)
        return scores

    async def cache_block(self) -> int:
        """Number of tokens in a block of the replicas' caches."""
        return int(await _call(self._replicas, self._limit_s, Call("value_cache_block")))


def max_deaths(search: SearchContext, engine: str, failed: bool) -> int:
    """The number of replica deaths after which a call is given up.

    - One for a score request, which its client can repeat, and for a call outside of a search.
    - One for a call that an engine held when it failed, because the call may be the cause.
    - One more if such an engine has already answered this search. It has then processed the prompt, which is the only input
      from outside, so another call is the more likely cause.
    - One more if the replica died without an error. An engine that fails reports the error to its calls before its process
      exits; a process that is killed cannot.

    Args:
        search: the search of the call.
        engine: name of the deployment.
        failed: the engine reported that it failed while it held the call.
    """
    if not search.retryable:
        return 1
    return 1 + (engine in search.answered) + (not failed)


async def _call(replicas: CallBatches, limit_s: float, call: Call) -> Any:
    """Call a replica, and another one if it dies. Cancelling this cancels the remote call."""
    search, engine = SEARCH_CONTEXT.get() or SearchContext("", retryable=False), replicas.engine
    dead: set[object] = set()
    try:
        async with asyncio.timeout(limit_s):
            while True:
                try:
                    result = await _call_replica(replicas, search.name, call)
                    search.answered.add(engine)
                    return result
                except EngineFailed as error:
                    _add_death(dead, object(), max_deaths(search, engine, failed=True), call.method, error)
                except EngineDied:
                    pass  # it had died before it received the call, which Ray Serve did not know yet
                except (RayActorError, DeploymentUnavailableError) as error:
                    # Ray Serve can send a call to the same dead replica twice before it notices; that is one death.
                    replica = getattr(error, "actor_id", None) or object()
                    _add_death(dead, replica, max_deaths(search, engine, failed=False), call.method, error)
                await asyncio.sleep(PAUSE_S)
    except TimeoutError as error:
        raise EngineDied(f"no replica answered {call.method} within {limit_s} s (serve.block_timeout_s)") from error


async def _call_replica(replicas: CallBatches, search: str, call: Call) -> Any:
    """Call the replica of a search, or another one while that is full."""
    for place in range(PLACES):
        with suppress(ReplicaFull):
            return await replicas.answer(f"{search}+{place}" if place else search, call, may_refuse=True)
    return await replicas.answer(search, call, may_refuse=False)


def _add_death(dead: set[object], replica: object, limit: int, method: str, error: Exception) -> None:
    """Add a replica that died during a call.

    Raises:
        EngineDied: the limit is reached.
    """
    dead.add(replica)
    log.warning("%s: a replica died (%s)", method, type(error).__name__)
    if len(dead) >= limit:
        raise EngineDied(f"{len(dead)} replicas died during one call of {method}, which may be the cause") from error
