"""Which calls are repeated when an engine replica of Ray Serve dies. A call that may be the cause ends one replica at most.

The engines are real loops and real processes, over a stepper that breaks where a token says so.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray import cloudpickle, serve

from pipelines.serving.call_batches import BatchReplica
from pipelines.serving.engine_replicas import STICKY_ROUTER, exit_on_failure
from pipelines.serving.remote_engines import RemoteValue, max_deaths
from vgs_ray.data.tokens import Tokens
from vgs_ray.engines.interface import SEARCH_CONTEXT, EngineDied, Score, SearchContext
from vgs_ray.engines.loop import EngineLoop

BREAKS, VANISHES, SLOW, PLAIN = 13, 14, 15, 1
LIMIT_S = 60.0


class Stepper:
    """Returns the last token. `BREAKS` raises in a step, `VANISHES` kills the process in a step, `SLOW` takes a second."""

    def __init__(self) -> None:
        self.held: dict[str, tuple[float, list[int]]] = {}

    def add_request(self, request_id: str, prompt: Any, params: Any) -> None:
        tokens = prompt["prompt_token_ids"]
        self.held[request_id] = time.monotonic() + (tokens[-1] == SLOW), tokens

    def abort_request(self, request_ids: list[str]) -> None:
        for each in request_ids:
            self.held.pop(each, None)

    def step(self) -> list[Any]:
        last = [tokens[-1] for _, tokens in self.held.values()]
        if BREAKS in last:
            raise RuntimeError("broken")
        if VANISHES in last:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.01)
        ready = [each for each, (due, _) in self.held.items() if due <= time.monotonic()]
        return [SimpleNamespace(request_id=id, finished=True, value=self.held.pop(id)[1][-1]) for id in ready]


class Replica(BatchReplica):
    """As `pipelines.serving.engine_replicas.ValueReplica`; writes its process id into a folder."""

    def __init__(self, folder: str) -> None:
        super().__init__(limit=32)
        self.loop: EngineLoop[float] = EngineLoop(Stepper, lambda _: None, lambda output: output.value)
        exit_on_failure(self)  # type: ignore[arg-type]
        (Path(folder) / str(os.getpid())).touch()

    async def score(self, tokens: Tokens) -> Score:
        return Score(await self.loop.submit(tokens, None))


@pytest.fixture(scope="module")
def replicas(apart_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Path]]:
    folder = tmp_path_factory.mktemp("pids")
    deployment = serve.deployment(
        Replica, name="value", num_replicas=3, max_ongoing_requests=32, request_router_config=STICKY_ROUTER,
        ray_actor_options={"num_cpus": 0.01},
    )  # fmt: skip
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # replicas cannot import a test
    yield serve.run(deployment.bind(str(folder)), name="poison", route_prefix=None), folder
    serve.delete("poison")
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def living(folder: Path) -> set[int]:
    return {int(file.name) for file in folder.iterdir() if _lives(int(file.name))}


def dead(folder: Path) -> set[int]:
    return {int(file.name) for file in folder.iterdir()} - living(folder)


def _lives(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "State:\tZ" not in status.read_text()


class Fleet:
    """Two or three replicas, and the number of deaths since the start, including replicas that were started later."""

    def __init__(self, handle: Any, folder: Path) -> None:
        self.value, self.folder, self.ended_before = RemoteValue(handle, LIMIT_S), folder, dead(folder)

    async def score(self, token: int, search: SearchContext) -> float:
        """Score in a separate task, so that each call has its own search context."""

        async def call() -> float:
            SEARCH_CONTEXT.set(search)
            return (await self.value.score((PLAIN, token))).value

        return await asyncio.create_task(call())

    async def ended(self, most: int) -> int:
        """The number of deaths, after a pause for further ones."""
        deadline = time.monotonic() + 20.0
        while len(dead(self.folder) - self.ended_before) < most and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        await asyncio.sleep(1.5)
        return len(dead(self.folder) - self.ended_before)


@pytest.fixture
async def fleet(replicas: tuple[Any, Path]) -> Fleet:
    handle, folder = replicas
    async with asyncio.timeout(LIMIT_S):
        while len(living(folder)) < 2:  # the replacement of the previous dead replica may still be starting
            await asyncio.sleep(0.1)
    return Fleet(handle, folder)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("token", [BREAKS, VANISHES])
async def test_a_score_kills_at_most_one_replica(fleet: Fleet, token: int) -> None:
    with pytest.raises(EngineDied, match="may be the cause"):
        await fleet.score(token, SearchContext("score", retryable=False))
    assert await fleet.ended(1) == 1


@pytest.mark.timeout(600)
async def test_the_first_call_of_a_search_that_breaks_its_engine_is_not_repeated_and_others_go_on(fleet: Fleet) -> None:
    name = "same"  # the router sends all calls of a session to one replica
    known = SearchContext(name)
    await fleet.score(PLAIN, known)
    waiting = [asyncio.create_task(fleet.score(SLOW, known)) for _ in range(8)]
    await asyncio.sleep(0.3)
    with pytest.raises(EngineDied, match="may be the cause"):
        await fleet.score(BREAKS, SearchContext(name))
    assert await asyncio.gather(*waiting) == [SLOW] * 8
    assert await fleet.ended(1) == 1


@pytest.mark.timeout(600)
async def test_calls_are_repeated_when_a_replica_is_killed(fleet: Fleet) -> None:
    waiting = [asyncio.create_task(fleet.score(SLOW, SearchContext(str(name)))) for name in range(12)]
    await asyncio.sleep(0.3)
    os.kill(min(living(fleet.folder)), signal.SIGKILL)
    assert await asyncio.gather(*waiting) == [SLOW] * 12
    assert await fleet.ended(1) == 1


def test_max_deaths() -> None:
    score, first, later = (
        SearchContext("a", retryable=False),
        SearchContext("b"),
        SearchContext("c", answered={"value"}),
    )
    allowed = {(failed, at): max_deaths(search, "value", failed)
               for failed in (True, False) for at, search in enumerate((score, first, later))}  # fmt: skip
    assert allowed == {(True, 0): 1, (True, 1): 1, (True, 2): 2, (False, 0): 1, (False, 1): 2, (False, 2): 3}
    assert max_deaths(later, "policy", failed=True) == 1
