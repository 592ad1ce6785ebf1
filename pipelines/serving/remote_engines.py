"""`Policy` and `Value` on the replicas of a Ray Serve deployment; a call whose replica dies is asked of another one.

In: deployment handles. Out: engines for a `Searcher`. Calls of one search go to one replica, which has its prefixes cached.
A call may itself be what ends replicas, so `deaths_allowed` bounds how many it meets.
"""

from __future__ import annotations

import asyncio
import logging
from contextvars import Context
from typing import Any

from ray.exceptions import RayActorError
from ray.serve.exceptions import DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from vgs_ray.config import Sampling
from vgs_ray.data.tokens import Tokens
from vgs_ray.engines.interface import SEARCH_CONTEXT, Completion, EngineDied, EngineFailed, Score, SearchContext, Usage

PAUSE_S = 0.5

log = logging.getLogger(__name__)


class RemotePolicy:
    """`Policy` on the replicas of a deployment."""

    def __init__(self, replicas: DeploymentHandle[Any], limit_s: float) -> None:
        self.usage, self._replicas, self._limit_s = Usage(), replicas, limit_s

    async def extend(self, prefix: Tokens, sampling: Sampling, seed: int) -> Completion:
        """As `Policy.extend`, on another replica where one dies.

        Raises:
            EngineDied: no replica answered in time, or as many died as `deaths_allowed` says.
        """
        made: Completion = await _call(self._replicas, "extend", self._limit_s, prefix, sampling, seed)
        self.usage.generated += len(made.tokens)
        self.usage.prefilled += made.prefilled
        self.usage.cached += len(prefix) - made.prefilled
        return made


class RemoteValue:
    """`Value` on the replicas of a deployment."""

    def __init__(self, replicas: DeploymentHandle[Any], limit_s: float) -> None:
        self.usage, self._replicas, self._limit_s = Usage(), replicas, limit_s

    async def score(self, tokens: Tokens) -> Score:
        """As `Value.score`, on another replica where one dies.

        Raises:
            EngineDied: no replica answered in time, or as many died as `deaths_allowed` says.
        """
        read: Score = await _call(self._replicas, "score", self._limit_s, tokens)
        self.usage.scored += read.scored
        self.usage.cached += max(len(tokens) - read.scored, 0)
        return read

    async def score_each(self, tokens: Tokens) -> list[Score]:
        """As `Value.score_each`, on another replica where one dies.

        Raises:
            EngineDied: no replica answered in time, or as many died as `deaths_allowed` says.
        """
        read: list[Score] = await _call(self._replicas, "score_each", self._limit_s, tokens)
        self.usage.scored += sum(score.scored for score in read)
        return read


def deaths_allowed(search: SearchContext, engine: str, failed: bool) -> int:
    """Replicas that may end under one call; with the last of them it is given up.

    One for a score, which its client can send again, and for a call of no search. One for a call that an engine held while it
    failed, because the call may be the cause. One more where such an engine has answered the search before: it has then read
    the prompt, which is all that comes from outside, and another call is the likelier cause. One more where the replica ended
    without a word: an engine that fails tells its calls before its process ends, a process that is killed can't.

    Args:
        search: that the call belongs to.
        engine: name of the deployment.
        failed: the engine said that it failed while it held the call.
    """
    if not search.retryable:
        return 1
    return 1 + (engine in search.answered) + (not failed)


async def _call(replicas: DeploymentHandle[Any], method: str, limit_s: float, *args: object) -> Any:
    """One call, repeated on another replica while its own dies; cancelling it cancels what it started."""
    search, engine = SEARCH_CONTEXT.get() or SearchContext("", retryable=False), replicas.deployment_id.name
    ended: set[object] = set()
    try:
        async with asyncio.timeout(limit_s):
            while True:
                try:
                    answer = await _ask(replicas, method, search.name, *args)
                    search.answered.add(engine)
                    return answer
                except EngineFailed as error:
                    _count(ended, object(), deaths_allowed(search, engine, failed=True), method, error)
                except EngineDied:
                    pass  # it had ended before it held the call, and Ray Serve did not know yet
                except (RayActorError, DeploymentUnavailableError) as error:
                    # Ray Serve may send a call to a dead replica twice, before it knows.
                    replica = getattr(error, "actor_id", None) or object()
                    _count(ended, replica, deaths_allowed(search, engine, failed=False), method, error)
                await asyncio.sleep(PAUSE_S)
    except TimeoutError as error:
        raise EngineDied(f"no replica answered {method} within {limit_s} s (serve.block_timeout_s)") from error


async def _ask(replicas: DeploymentHandle[Any], method: str, search: str, *args: object) -> Any:
    # By value, from process to process: through Ray's object store, searches of short blocks take twice as long.
    handle = replicas.options(method_name=method, session_id=search, _by_reference=False)
    # Outside of the HTTP request's context: from there all calls of a search would have the id of that request, and
    # the router, which finds waiting calls by their id, would lose all but one of them.
    answer = Context().run(handle.remote, *args)
    try:
        return await answer
    except asyncio.CancelledError:
        answer.cancel()
        raise


def _count(ended: set[object], replica: object, most: int, method: str, error: Exception) -> None:
    """Add a replica to those that ended under a call.

    Raises:
        EngineDied: they are as many as may.
    """
    ended.add(replica)
    log.warning("%s: a replica died (%s)", method, type(error).__name__)
    if len(ended) >= most:
        raise EngineDied(f"{len(ended)} replicas died in one call of {method}, which may be the cause") from error
