"""A thread that steps an engine for callers on any asyncio event loop.

In: a function that builds the engine, and sequences from `EngineLoop.submit`. Out: results, delivered on the callers' loops. An
engine is any object with `add_request`, `abort_request` and `step`; this module does not import vLLM.
"""

from __future__ import annotations

import asyncio
import atexit
import itertools
import math
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, Protocol, TypeVar

from vgs_ray.data.tokens import Tokens
from vgs_ray.engines.interface import EngineDied, EngineFailed
from vgs_ray.engines.step_times import StepTimes

T = TypeVar("T")
RESULTS_PER_CALLBACK = 16
"""One engine step may finish hundreds of sequences; delivering all at once would block the event loop."""


class StepEngine(Protocol):
    """The methods of vLLM's `LLMEngine` that are used. Outputs have `request_id` and `finished`."""

    def add_request(self, request_id: str, prompt: Any, params: Any) -> Any: ...

    def abort_request(self, request_ids: list[str]) -> Any: ...

    def step(self) -> list[Any]: ...


class FairLock:
    """A lock that is granted in the order of requests. With a plain lock, the busier of two threads could starve the other."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._tickets = itertools.count()
        self._serving = 0

    @contextmanager
    def hold(self) -> Iterator[None]:
        with self._changed:
            ticket = next(self._tickets)
            self._changed.wait_for(lambda: self._serving == ticket)
        try:
            yield
        finally:
            with self._changed:
                self._serving += 1
                self._changed.notify_all()


step_lock = FairLock()
"""Shared by all engines of a process: vLLM's forward context is a module variable, so only one engine may step at a time.

On a GPU, the work of two steps must not overlap either. The CUDA graphs of a process share one memory pool, so graphs that run
at the same time overwrite each other's activations. So an engine is started without asynchronous scheduling if its process has
another one: with it, a step returns while its own forward pass still runs. In vLLM 0.29.0:

- the pool: platforms/interface.py:1159-1166, compilation/cuda_graph.py:197-200, v1/worker/gpu/cudagraph_utils.py:140
- the default: config/vllm.py:1262-1311. Pooling models (1264-1273) and CPUs (platforms/cpu.py:269) never do it
- a step that returns early: v1/engine/core.py:692-700. Each thread has a stream of its own (utils/torch_utils.py:807-819), so
  nothing orders the graphs of two engines
- any other step waits for the copy of its results, which comes after the graph: v1/engine/core.py:615-617,
  v1/worker/gpu_model_runner.py:479, 3534 and 7671, v1/worker/gpu/async_utils.py:168 and 248

A pool for each engine would not be enough: some attention backends use a workspace of the process (v1/worker/workspace.py:31).
"""


@dataclass(eq=False)
class Request(Generic[T]):
    """One sequence, its parameters, and how its future gets the result."""

    id: str
    prompt: Tokens
    params: Any
    read: Callable[[Any], T]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[T]


class EngineLoop(Generic[T]):
    """Builds an engine in a thread of its own and steps it while there are requests.

    Args:
        build: returns a new engine; its exceptions are raised by this constructor.
        release: frees an engine.
        read: converts a finished output of the engine to the caller's result.
        step_timeout_s: a step that takes longer is stuck.
        running: number of sequences in the batch of an engine; by default those that it holds, some of which may wait.

    Attributes:
        times: of the steps, with the sequences in their batches.
        failed: set after the engine has failed and all its calls have raised; not set by `close`.
    """

    def __init__(
        self,
        build: Callable[[], StepEngine],
        release: Callable[[StepEngine], None],
        read: Callable[[Any], T],
        step_timeout_s: float = math.inf,
        running: Callable[[Any], int] | None = None,
    ) -> None:
        self._read, self.step_timeout_s = read, step_timeout_s
        self._in_batch, self.times = running or (lambda _: self.unfinished), StepTimes()
        self._wake = threading.Condition()
        self._arrived: list[Request[T]] = []
        self._cancelled: list[str] = []
        self._running: dict[str, Request[T]] = {}
        self._ids = itertools.count()
        self._error: BaseException | None = None
        self.engine: StepEngine | None = None
        self.failed = threading.Event()
        self._step_began: float | None = None
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(build, release, started), name="engine", daemon=True)
        self._thread.start()
        started.wait()
        if self._error is not None:
            raise self._error
        atexit.register(self.close)

    def is_stuck(self) -> bool:
        """Whether the current step takes longer than `step_timeout_s`."""
        began = self._step_began
        return began is not None and time.monotonic() - began > self.step_timeout_s

    async def submit(
        self,
        prompt: Tokens,
        params: Any,
        read: Callable[[Any], T] | None = None,
        interrupted: Callable[[str], BaseException] | None = None,
    ) -> T:
        """Run one sequence. Cancelling the call aborts it in the engine and frees its memory.

        Args:
            prompt: its tokens.
            params: vLLM's parameters of the call.
            read: for this call, in place of that of the constructor.
            interrupted: the error to raise if the call is cancelled, from the id of the sequence; None raises CancelledError.

        Raises:
            EngineFailed: the engine failed while it held this sequence.
            EngineDied: the engine failed before it held this sequence, or was closed.
        """
        loop = asyncio.get_running_loop()
        request: Request[T] = Request(
            str(next(self._ids)), prompt, params, read or self._read, loop, loop.create_future()
        )
        with self._wake:
            if self._error is not None:
                raise self._death()
            self._arrived.append(request)
            self._wake.notify()
        try:
            return await request.future
        except asyncio.CancelledError as error:
            raised = interrupted(request.id) if interrupted else error
            with self._wake:
                self._cancelled.append(request.id)
                self._wake.notify()
            raise raised from None

    @property
    def unfinished(self) -> int:
        """Number of sequences that the engine holds."""
        return len(self._running)

    def close(self) -> None:
        """Fail pending calls with `EngineDied`, end the thread and free the engine. May be called twice."""
        with self._wake:
            self._error = self._error or EngineDied("it was closed")
            self._wake.notify()
        self._thread.join()
        atexit.unregister(self.close)

    def _death(self, kind: type[EngineDied] = EngineDied) -> EngineDied:
        remedy = "" if kind is EngineFailed else ": start another engine and repeat the call"
        error = kind(f"the engine is gone ({self._error}){remedy}")
        error.__cause__ = self._error
        return error

    def _run(
        self, build: Callable[[], StepEngine], release: Callable[[StepEngine], None], started: threading.Event
    ) -> None:
        try:
            with step_lock.hold():
                self.engine = build()
        except BaseException as error:
            self._error = error
            return
        finally:
            started.set()
        try:
            self._step_until_closed(self.engine)
        except BaseException as error:
            with self._wake:
                self._error = self._error or error
            self._fail_pending(EngineFailed)
            self.failed.set()
        else:
            self._fail_pending(EngineDied)
        engine, self.engine = self.engine, None
        with step_lock.hold():
            release(engine)

    def _step_until_closed(self, engine: StepEngine) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._arrived or self._cancelled or self._running or self._error)
                if self._error is not None:
                    return
                arrived, self._arrived = self._arrived, []
                cancelled, self._cancelled = self._cancelled, []
            began = time.monotonic()  # another engine of this process may step first, which slows this one
            with step_lock.hold():
                self._admit(engine, arrived)
                self._abort(engine, cancelled)
                self._step_began = time.monotonic()
                try:
                    outputs = engine.step()
                finally:
                    self._step_began = None
            self._deliver(outputs)
            sequences = self._in_batch(engine) + sum(output.finished for output in outputs)
            self.times.add(sequences, time.monotonic() - began)

    def _admit(self, engine: StepEngine, requests: list[Request[T]]) -> None:
        for request in requests:
            prompt = {"type": "token", "prompt_token_ids": list(request.prompt)}
            try:
                engine.add_request(request.id, prompt, request.params)
            except Exception as error:  # the engine refuses this sequence and continues with the others
                _settle([(request, error)])
            else:
                self._running[request.id] = request

    def _abort(self, engine: StepEngine, ids: list[str]) -> None:
        held = [id for id in ids if self._running.pop(id, None) is not None]
        if held:
            engine.abort_request(held)

    def _deliver(self, outputs: list[Any]) -> None:
        results: list[tuple[Request[T], T | Exception]] = []
        for output in outputs:
            request = self._running.pop(output.request_id, None) if output.finished else None
            if request is None:
                continue
            try:
                results.append((request, request.read(output)))
            except Exception as error:  # this output cannot be read; the engine continues
                results.append((request, error))
        _settle(results)

    def _fail_pending(self, kind: type[EngineDied]) -> None:
        """Fail all calls: those that the engine held with `kind`, the others with `EngineDied`."""
        with self._wake:
            held, arrived = list(self._running.values()), self._arrived
            self._running, self._arrived = {}, []
        failed = [(request, self._death(kind)) for request in held]
        _settle([*failed, *((request, self._death()) for request in arrived)])


def _settle(results: Sequence[tuple[Request[Any], Any]]) -> None:
    """Set the futures' results, with one callback for each event loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Request[Any], Any]]] = defaultdict(list)
    for request, result in results:
        by_loop[request.loop].append((request, result))
    for loop, batch in by_loop.items():
        try:
            loop.call_soon_threadsafe(_set_results, loop, iter(batch))
        except RuntimeError:
            if not loop.is_closed():  # a closed loop has no waiting callers
                raise


def _set_results(loop: asyncio.AbstractEventLoop, results: Iterator[tuple[Request[Any], Any]]) -> None:
    """Set a few results and schedule the rest, so that other callbacks of the event loop can run in between."""
    batch = list(islice(results, RESULTS_PER_CALLBACK))
    if len(batch) == RESULTS_PER_CALLBACK:
        loop.call_soon(_set_results, loop, results)
    for request, result in batch:
        if request.future.done():
            continue
        if isinstance(result, Exception):
            request.future.set_exception(result)
        else:
            request.future.set_result(result)
