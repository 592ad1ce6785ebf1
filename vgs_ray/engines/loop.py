"""One thread that steps one engine for callers on any asyncio loop.

In: a function that builds the engine, and sequences from `submit`. Out: results, delivered to the loops that asked.
vLLM is not named here: anything with `add_request`, `abort_request` and `step` can be driven, as in the tests.
"""

from __future__ import annotations

import asyncio
import atexit
import itertools
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, Protocol, TypeVar

from vgs_ray.data.tokens import Tokens
from vgs_ray.engines.interface import EngineDied, EngineFailed

T = TypeVar("T")
DELIVERED_AT_ONCE = 16
"""Results that one turn of an asyncio loop hands out. Blocks of many searches end in the same step, by the hundred."""


class Stepper(Protocol):
    """The part of vLLM's `LLMEngine` that is used; outputs have `request_id` and `finished`."""

    def add_request(self, request_id: str, prompt: Any, params: Any) -> Any: ...

    def abort_request(self, request_ids: list[str]) -> Any: ...

    def step(self) -> list[Any]: ...


class Turns:
    """A fair lock: whoever asked first goes first. A plain lock would let the busier of two threads take every turn."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._tickets = itertools.count()
        self._serving = 0

    @contextmanager
    def take(self) -> Iterator[None]:
        with self._changed:
            ticket = next(self._tickets)
            self._changed.wait_for(lambda: self._serving == ticket)
        try:
            yield
        finally:
            with self._changed:
                self._serving += 1
                self._changed.notify_all()


turns = Turns()
"""Shared by all engines of a process: vLLM's forward context is a module variable, so only one may step at a time."""


@dataclass(eq=False)
class Job(Generic[T]):
    """One sequence on its way through the engine."""

    id: str
    prompt: Tokens
    params: Any
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[T]


class EngineLoop(Generic[T]):
    """Builds an engine in a thread of its own and steps it there for as long as there is work.

    Args:
        build: makes the engine; what it raises is raised here.
        release: frees a built engine.
        read: turns a finished output of the engine into the caller's result.

    Attributes:
        failed: set when the engine has failed while it ran, and all its calls know; not by `close`.
    """

    def __init__(
        self, build: Callable[[], Stepper], release: Callable[[Stepper], None], read: Callable[[Any], T]
    ) -> None:
        self._read = read
        self._wake = threading.Condition()
        self._arrived: list[Job[T]] = []
        self._cancelled: list[str] = []
        self._jobs: dict[str, Job[T]] = {}
        self._ids = itertools.count()
        self._dead: BaseException | None = None
        self.engine: Stepper | None = None
        self.failed = threading.Event()
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(build, release, started), name="engine", daemon=True)
        self._thread.start()
        started.wait()
        if self._dead is not None:
            raise self._dead
        atexit.register(self.close)

    async def submit(self, prompt: Tokens, params: Any) -> T:
        """Run one sequence. Cancelling the call frees its memory in the engine.

        Raises:
            EngineFailed: the engine failed while it held this sequence.
            EngineDied: it failed before it held this one, or was closed.
        """
        loop = asyncio.get_running_loop()
        job: Job[T] = Job(str(next(self._ids)), prompt, params, loop, loop.create_future())
        with self._wake:
            if self._dead is not None:
                raise self._died()
            self._arrived.append(job)
            self._wake.notify()
        try:
            return await job.future
        except asyncio.CancelledError:
            with self._wake:
                self._cancelled.append(job.id)
                self._wake.notify()
            raise

    @property
    def unfinished(self) -> int:
        """Sequences that the engine holds."""
        return len(self._jobs)

    def close(self) -> None:
        """Fail what is pending with `EngineDied`, end the thread and free the engine. May be called twice."""
        with self._wake:
            self._dead = self._dead or EngineDied("it was closed")
            self._wake.notify()
        self._thread.join()
        atexit.unregister(self.close)

    def _died(self, kind: type[EngineDied] = EngineDied) -> EngineDied:
        remedy = "" if kind is EngineFailed else "; start another one and repeat the call there"
        error = kind(f"the engine is gone ({self._dead}){remedy}")
        error.__cause__ = self._dead
        return error

    def _run(self, build: Callable[[], Stepper], release: Callable[[Stepper], None], started: threading.Event) -> None:
        try:
            with turns.take():
                self.engine = build()
        except BaseException as error:
            self._dead = error
            return
        finally:
            started.set()
        failed = False
        try:
            self._drive(self.engine)
        except BaseException as error:
            failed = True
            with self._wake:
                self._dead = self._dead or error
        self._fail_pending(EngineFailed if failed else EngineDied)
        if failed:
            self.failed.set()
        engine, self.engine = self.engine, None
        with turns.take():
            release(engine)

    def _drive(self, engine: Stepper) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._arrived or self._cancelled or self._jobs or self._dead)
                if self._dead is not None:
                    return
                arrived, self._arrived = self._arrived, []
                cancelled, self._cancelled = self._cancelled, []
            with turns.take():
                self._admit(engine, arrived)
                self._abort(engine, cancelled)
                outputs = engine.step()
            self._resolve(outputs)

    def _admit(self, engine: Stepper, jobs: list[Job[T]]) -> None:
        for job in jobs:
            try:
                engine.add_request(job.id, {"type": "token", "prompt_token_ids": list(job.prompt)}, job.params)
            except Exception as error:  # the engine refuses this sequence; the others go on
                _settle([(job, error)])
            else:
                self._jobs[job.id] = job

    def _abort(self, engine: Stepper, ids: list[str]) -> None:
        held = [id for id in ids if self._jobs.pop(id, None) is not None]
        if held:
            engine.abort_request(held)

    def _resolve(self, outputs: list[Any]) -> None:
        done: list[tuple[Job[T], T | Exception]] = []
        for output in outputs:
            job = self._jobs.pop(output.request_id, None) if output.finished else None
            if job is None:
                continue
            try:
                done.append((job, self._read(output)))
            except Exception as error:  # the output is odd; the engine is not broken
                done.append((job, error))
        _settle(done)

    def _fail_pending(self, kind: type[EngineDied]) -> None:
        """End all calls: those whose sequence the engine held with an error of this kind."""
        with self._wake:
            held, arrived = list(self._jobs.values()), self._arrived
            self._jobs, self._arrived = {}, []
        _settle([*((job, self._died(kind)) for job in held), *((job, self._died()) for job in arrived)])


def _settle(results: Sequence[tuple[Job[Any], Any]]) -> None:
    """Hand results to their futures, with one wake-up for each asyncio loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Job[Any], Any]]] = defaultdict(list)
    for job, result in results:
        by_loop[job.loop].append((job, result))
    for loop, batch in by_loop.items():
        try:
            loop.call_soon_threadsafe(_deliver, loop, iter(batch))
        except RuntimeError:
            if not loop.is_closed():  # a closed loop has nobody left who waits
                raise


def _deliver(loop: asyncio.AbstractEventLoop, batch: Iterator[tuple[Job[Any], Any]]) -> None:
    """Settle the futures a few in each turn of their loop: whoever waits for them has work to do, and others have a turn too."""
    here = list(islice(batch, DELIVERED_AT_ONCE))
    if len(here) == DELIVERED_AT_ONCE:
        loop.call_soon(_deliver, loop, batch)
    for job, result in here:
        if job.future.done():
            continue
        if isinstance(result, Exception):
            job.future.set_exception(result)
        else:
            job.future.set_result(result)
