"""Batches of calls of a search to a replica, over replicas in this process. `test_poison_calls` has processes that die."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorUnavailableError
from ray.serve.config import AutoscalingConfig

from pipelines.serving.call_batches import MAX_TOKENS, RUNNING, BatchReplica, Call, CallBatches, replicas_for_calls
from pipelines.serving.remote_engines import RemoteValue
from vgs_ray.data.tokens import Tokens
from vgs_ray.engines.interface import SEARCH_CONTEXT, Score, SearchContext, UnknownToken

LIMIT = 4
UNKNOWN = 99


class Replica(BatchReplica):
    """Scores a sequence with its only token, when `release` is called with it. `held` has the tokens that wait."""

    def __init__(self) -> None:
        super().__init__(LIMIT)
        self.held: dict[int, asyncio.Event] = {}

    async def score(self, tokens: Tokens) -> Score:
        [token] = tokens
        if token == UNKNOWN:
            raise UnknownToken("unknown")
        released = self.held[token] = asyncio.Event()
        try:
            await released.wait()
        finally:
            del self.held[token]
        return Score(float(token))

    def release(self, *tokens: int) -> None:
        for token in tokens:
            self.held[token].set()


class Response:
    """As `DeploymentResponseGenerator`."""

    def __init__(self, answers: AsyncIterator[Any], error: Exception | None) -> None:
        self.answers, self.error, self.cancelled = answers, error, False

    def __aiter__(self) -> Response:
        return self

    async def __anext__(self) -> Any:
        if self.error:
            raise self.error
        return await anext(self.answers)

    def cancel(self) -> None:
        self.cancelled = True


class Handle:
    """As `DeploymentHandle`. Sessions with a plus go to the second replica."""

    def __init__(self) -> None:
        self.deployment_id = SimpleNamespace(name="value")
        self.replicas = Replica(), Replica()
        self.sent: list[tuple[str, int]] = []  # session and number of calls of each batch
        self.responses: list[Response] = []
        self.error: Exception | None = None

    def options(self, method_name: str, session_id: str, **_: Any) -> Any:
        def remote(calls: Sequence[Call], may_refuse: bool) -> Response:
            self.sent.append((session_id, len(calls)))
            answers = getattr(self.replicas["+" in session_id], method_name)(calls, may_refuse)
            self.responses.append(Response(answers, self.error))
            return self.responses[-1]

        return SimpleNamespace(remote=remote)

    @property
    def held(self) -> list[list[int]]:
        return [sorted(replica.held) for replica in self.replicas]


@pytest.fixture
def handle() -> Handle:
    return Handle()


@pytest.fixture
def value(handle: Handle) -> RemoteValue:
    return RemoteValue(handle, limit_s=5.0)  # type: ignore[arg-type]


def begin(value: RemoteValue, search: str, *tokens: int) -> list[asyncio.Task[Score]]:
    """One call for each token, by the same search."""

    async def call(token: int) -> Score:
        SEARCH_CONTEXT.set(context)
        return await value.score((token,))

    context = SearchContext(search)
    return [asyncio.ensure_future(call(token)) for token in tokens]


async def settle() -> None:
    """Let the event loop run what is ready."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_concurrent_calls_of_a_search_are_one_batch_and_none_waits_for_another(
    handle: Handle, value: RemoteValue
) -> None:
    one, two, other = *begin(value, "a", 1, 2), *begin(value, "b", 3)
    await settle()
    assert handle.sent == [("a", 2), ("b", 1)]
    handle.replicas[0].release(2)
    assert (await two).value == 2.0
    assert not one.done()
    assert not other.done()
    handle.replicas[0].release(1, 3)
    assert [(await each).value for each in (one, other)] == [1.0, 3.0]
    assert (value.usage.cached, len(handle.sent)) == (3, 2)


async def test_an_error_of_a_call_is_its_own(handle: Handle, value: RemoteValue) -> None:
    wrong, right = begin(value, "a", UNKNOWN, 1)
    with pytest.raises(UnknownToken):
        await wrong
    handle.replicas[0].release(1)
    assert (await right).value == 1.0


async def test_a_cancelled_search_ends_its_calls_in_the_replica_and_no_others(
    handle: Handle, value: RemoteValue
) -> None:
    mine, others = begin(value, "a", 1, 2), begin(value, "b", 3)
    await settle()
    for each in mine:
        each.cancel()
    await settle()
    assert [response.cancelled for response in handle.responses] == [True, False]
    await handle.responses[0].answers.aclose()  # type: ignore[attr-defined]  # as Ray Serve does
    await settle()
    assert handle.held == [[3], []]
    assert await handle.replicas[0].record_autoscaling_stats() == {RUNNING: 1}
    handle.replicas[0].release(3)
    assert (await others[0]).value == 3.0


async def test_calls_that_were_not_cancelled_with_their_batch_begin_again(handle: Handle, value: RemoteValue) -> None:
    gone, stays = begin(value, "a", 1, 2)
    await settle()
    gone.cancel()
    await settle()
    assert handle.sent == [("a", 2), ("a", 1)]
    handle.replicas[0].release(2)
    assert (await stays).value == 2.0


async def test_calls_cancelled_before_they_are_sent_are_not_sent(handle: Handle, value: RemoteValue) -> None:
    replicas = CallBatches(handle)  # type: ignore[arg-type]
    calls = [asyncio.ensure_future(replicas.answer("a", Call("score", ((token,),)), True)) for token in (1, 2)]
    await asyncio.sleep(0)
    calls[0].cancel()
    await settle()
    assert handle.sent == [("a", 1)]
    calls[1].cancel()


async def test_calls_above_the_limit_go_to_another_replica_and_wait_if_all_are_full(
    handle: Handle, value: RemoteValue
) -> None:
    calls = begin(value, "a", *range(1, 2 * LIMIT + 2))
    await settle()
    waits = 9  # in the queue of the first replica's engine
    assert handle.held == [[1, 2, 3, 4, waits], [5, 6, 7, 8]]
    for replica in handle.replicas:
        replica.release(*replica.held)
    assert [(await each).value for each in calls] == list(range(1, 10))


async def test_a_batch_has_a_limited_number_of_tokens(handle: Handle) -> None:
    replicas = CallBatches(handle)  # type: ignore[arg-type]
    sizes = (MAX_TOKENS // 2, MAX_TOKENS // 2, 1, 2 * MAX_TOKENS, 1)
    calls = [replicas.answer("a", Call("score", ((at,),), tokens), True) for at, tokens in enumerate(sizes)]
    tasks = [asyncio.ensure_future(call) for call in calls]
    await settle()
    assert handle.sent == [("a", 2), ("a", 1), ("a", 1), ("a", 1)]
    for task in tasks:
        task.cancel()


async def test_calls_of_a_replica_that_died_are_repeated(
    handle: Handle, value: RemoteValue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.serving.remote_engines.PAUSE_S", 0.0)
    handle.error = ActorUnavailableError("gone", None)
    calls = begin(value, "a", 1, 2)
    while not handle.sent:
        await asyncio.sleep(0)
    handle.error = None
    await settle()
    assert handle.sent == [("a", 2), ("a", 2)]
    handle.replicas[0].release(1, 2)
    assert [(await each).value for each in calls] == [1.0, 2.0]


@pytest.mark.parametrize(("running", "queued", "replicas"), [([4, 4], 0, 4), ([1], 3, 2), ([], 0, 0)])
def test_replicas_are_scaled_by_their_calls(running: list[int], queued: int, replicas: float) -> None:
    context: Any = SimpleNamespace(
        aggregated_metrics={RUNNING: dict(enumerate(running))} if running else {}, total_queued_requests=queued,
        config=AutoscalingConfig(target_ongoing_requests=2, max_replicas=9),
    )  # fmt: skip
    assert replicas_for_calls(context) == (replicas, {})
