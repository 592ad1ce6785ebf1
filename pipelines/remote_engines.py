"""`Policy` and `Value` on the replicas of a Ray Serve deployment; a call whose replica dies is asked of another one.

In: deployment handles. Out: engines for a `Searcher`. Calls of one search go to one replica, which has its prefixes cached.
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
from vgs_ray.engines.interface import SEARCH, Completion, EngineDied, Score, Tokens, Usage

DEATHS = 3
"""Replicas that may die under one block before it is given up: the block might be what kills them."""
PAUSE_S = 0.5

log = logging.getLogger(__name__)


class RemotePolicy:
    """`Policy` on the replicas of a deployment."""

    def __init__(self, replicas: DeploymentHandle[Any], limit_s: float) -> None:
        self.usage, self._replicas, self._limit_s = Usage(), replicas, limit_s

    async def extend(self, prefix: Tokens, sampling: Sampling, seed: int) -> Completion:
        """As `Policy.extend`, on another replica where one dies.

        Raises:
            EngineDied: no replica answered in time, or several died.
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
            EngineDied: no replica answered in time, or several died.
        """
        read: Score = await _call(self._replicas, "score", self._limit_s, tokens)
        self.usage.scored += read.scored
        self.usage.cached += max(len(tokens) - read.scored, 0)
        return read

    async def score_each(self, tokens: Tokens) -> list[Score]:
        """As `Value.score_each`, on another replica where one dies.

        Raises:
            EngineDied: no replica answered in time, or several died.
        """
        read: list[Score] = await _call(self._replicas, "score_each", self._limit_s, tokens)
        self.usage.scored += sum(score.scored for score in read)
        return read


async def _call(replicas: DeploymentHandle[Any], method: str, limit_s: float, *args: object) -> Any:
    """One call, repeated on another replica while its own dies; cancelling it cancels what it started."""
    deaths = 0
    try:
        async with asyncio.timeout(limit_s):
            while True:
                # By value, from process to process: through Ray's object store, searches of short blocks take twice as long.
                handle = replicas.options(method_name=method, session_id=SEARCH.get(), _by_reference=False)
                # Outside of the HTTP request's context: from there all calls of a search would have the id of that request, and
                # the router, which finds waiting calls by their id, would lose all but one of them.
                answer = Context().run(handle.remote, *args)
                try:
                    return await answer
                except asyncio.CancelledError:
                    answer.cancel()
                    raise
                except (RayActorError, DeploymentUnavailableError) as error:
                    deaths += 1
                    log.warning("%s: a replica died (%s)", method, type(error).__name__)
                    if deaths == DEATHS:
                        raise EngineDied(f"{deaths} replicas died in one call of {method}") from error
                await asyncio.sleep(PAUSE_S)
    except TimeoutError as error:
        raise EngineDied(f"no replica answered {method} within {limit_s} s (serve.block_timeout_s)") from error
