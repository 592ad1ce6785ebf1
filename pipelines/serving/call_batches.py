"""Batches of calls: what a search asks a replica at the same time is one call of Ray Serve.

A call of Ray Serve takes more CPU time than an engine needs for a short block. So the calls of a search in one turn of the event
loop travel together. The replica runs each as a task of its own and streams the answers back as they come, so none waits for
another one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextvars import Context
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ray.serve.config import AutoscalingContext
from ray.serve.handle import DeploymentHandle, DeploymentResponseGenerator

MAX_TOKENS = 2**16
"""Tokens that the calls of a batch and their answers have together at most. More would occupy the event loops of both sides for
several milliseconds, and gRPC refuses messages of 4 MiB."""
RUNNING = "calls"
"""Name of the number by which engine replicas are scaled."""

log = logging.getLogger(__name__)


class ReplicaFull(Exception):
    """The replica has as many calls as its engine batches."""


class Call(NamedTuple):
    """A call of a replica's method.

    Attributes:
        method: its name.
        args: its arguments.
        tokens: of the arguments and the answer, at most.
    """

    method: str
    args: tuple[Any, ...] = ()
    tokens: int = 0


class Answer(NamedTuple):
    """What a call returned or raised.

    Attributes:
        number: of the call in its batch, from 0.
        result: what it returned.
        error: what it raised; None if it returned.
    """

    number: int
    result: Any = None
    error: Exception | None = None


class BatchReplica:
    """A replica that runs batches of calls of its own methods.

    Args:
        limit: number of calls that its engine batches.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._running = limit, 0

    async def answer(self, calls: Sequence[Call], may_refuse: bool) -> AsyncIterator[list[Answer]]:
        """Run calls, and yield their answers as they come. Closing the iterator cancels those that run.

        Args:
            calls: of methods of this replica.
            may_refuse: answer the calls above the limit with `ReplicaFull`.
        """
        free = max(self._limit - self._running, 0) if may_refuse else len(calls)
        answers: asyncio.Queue[Answer] = asyncio.Queue()
        for number in range(free, len(calls)):
            answers.put_nowait(Answer(number, error=ReplicaFull()))
        tasks = [asyncio.ensure_future(self._run(number, call, answers)) for number, call in enumerate(calls[:free])]
        self._running += len(tasks)
        for task in tasks:
            task.add_done_callback(self._end)
        try:
            left = len(calls)
            while left:
                ready = [await answers.get()]
                ready += [answers.get_nowait() for _ in range(answers.qsize())]
                left -= len(ready)
                yield ready
        finally:
            for task in tasks:
                task.cancel()

    async def _run(self, number: int, call: Call, answers: asyncio.Queue[Answer]) -> None:
        try:
            answer = Answer(number, await getattr(self, call.method)(*call.args))
        except Exception as error:
            log.warning("%s failed", call.method, exc_info=True)
            answer = Answer(number, error=error)
        answers.put_nowait(answer)

    def _end(self, _: asyncio.Task[None]) -> None:
        self._running -= 1

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Called by Ray Serve, for `replicas_for_calls`."""
        return {RUNNING: float(self._running)}


def replicas_for_calls(context: AutoscalingContext) -> tuple[float, dict[str, Any]]:
    """The number of replicas such that each has `target_ongoing_requests` calls. Ray Serve itself would count batches."""
    running = sum((context.aggregated_metrics or {}).get(RUNNING, {}).values())
    return (running + context.total_queued_requests) / context.config.get_target_ongoing_requests(), {}


class _Pending(NamedTuple):
    """A call, and the future of its result."""

    call: Call
    future: asyncio.Future[Any]


@dataclass(eq=False)
class _Batch:
    """Calls that are not sent yet, and their tokens."""

    calls: list[_Pending] = field(default_factory=list)
    tokens: int = 0


class CallBatches:
    """Sends calls to the replicas of a deployment.

    Args:
        replicas: handle of the deployment; its replicas are `BatchReplica`s.

    Attributes:
        engine: name of the deployment.
    """

    def __init__(self, replicas: DeploymentHandle[Any]) -> None:
        self.engine: str = replicas.deployment_id.name
        self._replicas = replicas
        self._open: dict[tuple[str, bool], _Batch] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def answer(self, session: str, call: Call, may_refuse: bool) -> Any:
        """What the call returns or raises. Cancelling this cancels the call in its replica.

        Args:
            session: calls with the same name go to the same replica; those with an empty name to any.
            call: of a method of the replica.
            may_refuse: raise `ReplicaFull` if the replica has as many calls as its engine batches.
        """
        pending = _Pending(call, asyncio.get_running_loop().create_future())
        self._add((session, may_refuse), pending)
        return await pending.future

    def _add(self, key: tuple[str, bool], pending: _Pending) -> None:
        """Add a call to the batch that is sent when the event loop has run what is ready now."""
        batch = self._open.get(key)
        if batch is None or batch.tokens + pending.call.tokens > MAX_TOKENS:
            batch = self._open[key] = _Batch()
            asyncio.get_running_loop().call_soon(self._send, key, batch)
        batch.calls.append(pending)
        batch.tokens += pending.call.tokens

    def _send(self, key: tuple[str, bool], batch: _Batch) -> None:
        if self._open.get(key) is batch:
            del self._open[key]
        calls = _unanswered(batch.calls)  # some may have been cancelled
        if not calls:
            return
        # In an empty context: in the context of the HTTP request, all calls of a search would get the id of that request, and
        # the router, which identifies pending calls by their id, would lose all but one of them.
        task = asyncio.get_running_loop().create_task(self._receive(key, calls), context=Context())
        self._tasks.add(task)  # the loop itself keeps no reference
        task.add_done_callback(self._tasks.discard)
        for each in calls:
            each.future.add_done_callback(lambda future: task.cancel() if future.cancelled() else None)

    async def _receive(self, key: tuple[str, bool], calls: Sequence[_Pending]) -> None:
        session, may_refuse = key
        # By value: through Ray's object store, searches with short blocks take twice as long.
        handle: Any = self._replicas.options(method_name="answer", session_id=session, stream=True, _by_reference=False)
        response: DeploymentResponseGenerator[Any] = handle.remote([each.call for each in calls], may_refuse)
        try:
            async for answers in response:
                for answer in answers:
                    _settle(calls[answer.number].future, answer)
        except asyncio.CancelledError:
            # The calls of a search are cancelled together. If only some are, the others begin again: their seeds are the same.
            response.cancel()
            for each in _unanswered(calls):
                self._add(key, each)
        except Exception as error:
            for each in _unanswered(calls):
                each.future.set_exception(error)


def _settle(future: asyncio.Future[Any], answer: Answer) -> None:
    if future.done():  # it was cancelled
        return
    if answer.error is None:
        future.set_result(answer.result)
    else:
        future.set_exception(answer.error)


def _unanswered(calls: Sequence[_Pending]) -> list[_Pending]:
    return [each for each in calls if not each.future.done()]
