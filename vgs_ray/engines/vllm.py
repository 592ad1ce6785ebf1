"""`Policy` and `Value` behind vLLM: one in-process engine each, driven by a thread of its own.

In: token tuples, from any asyncio loop and from several at once. Out: `Completion` and `Score`, with usage counted from what vLLM
says it forwarded. Callers submit single sequences; vLLM batches what is there, caches prefixes and never waits in lockstep.
"""

from __future__ import annotations

import asyncio
import atexit
import gc
import itertools
import os
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from vgs_ray.config import Engine, Sampling
from vgs_ray.engines.interface import Completion, EngineDied, Score, Tokens, Usage
from vgs_ray.value.model import ARCHITECTURE, CORRECT

# vLLM reads these at import time. The engine lives in this process: a second process would import torch and vLLM once more.
os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")  # each start warns ten times about settings that are meant
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

import torch
from vllm import PoolingParams, SamplingParams
from vllm.engine.arg_utils import EngineArgs
from vllm.inputs.engine import tokens_input
from vllm.platforms import current_platform
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.llm_engine import LLMEngine

T = TypeVar("T")
GIB = 1024**3
CPU_BLOCK = 32
"""Tokens of one cached block on CPU: the smallest that its attention takes. vLLM's default there (128) never hits on short texts."""

CPU_BATCH = 4096
"""Tokens that one step forwards at most on CPU, unless a single sequence may be longer."""


class _Turns:
    """A fair lock. vLLM keeps its forward context in a module variable, so two engines of one process must not step at
    once; a plain lock would let the busier thread take every turn."""

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


_turns = _Turns()
_alive: set[int] = set()
_set_num_threads = torch.set_num_threads


@dataclass(eq=False)
class _Job(Generic[T]):
    id: str
    prompt: Tokens
    params: SamplingParams | PoolingParams
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[T]


class EngineLoop(Generic[T]):
    """One `LLMEngine` and the thread that steps it.

    Args:
        args: arguments of vLLM's `EngineArgs`.
        threads: CPU threads of the engine; 0 leaves the choice to torch.
        read: turns a finished vLLM output into the caller's result; runs in the engine's thread.

    Raises:
        Whatever vLLM raises while it starts.
    """

    def __init__(self, args: dict[str, Any], threads: int, read: Callable[[Any], T]) -> None:
        self._read = read
        self._wake = threading.Condition()
        self._arrived: list[_Job[T]] = []
        self._cancelled: list[str] = []
        self._jobs: dict[str, _Job[T]] = {}
        self._ids = itertools.count()
        self._dead: BaseException | None = None
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(args, threads, started), name="vllm", daemon=True)
        self._thread.start()
        started.wait()
        if self._dead is not None:
            raise self._dead
        atexit.register(self.close)

    async def submit(self, prompt: Tokens, params: SamplingParams | PoolingParams) -> T:
        """Run one sequence. Cancelling the call frees its memory in the engine.

        Raises:
            EngineDied: the engine failed, now or earlier, or was closed.
        """
        loop = asyncio.get_running_loop()
        job = _Job(str(next(self._ids)), prompt, params, loop, loop.create_future())
        with self._wake:
            self._check_alive()
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
        """Fail what is pending with `EngineDied`, end the thread and free the engine's memory. May be called twice."""
        with self._wake:
            if self._dead is None:
                self._dead = EngineDied("the engine was closed")
            self._wake.notify()
        self._thread.join()
        atexit.unregister(self.close)

    def _check_alive(self) -> None:
        if self._dead is not None:
            raise EngineDied(f"engine is gone: {self._dead}") from self._dead

    def _run(self, args: dict[str, Any], threads: int, started: threading.Event) -> None:
        try:
            self._engine = self._build(args, threads)
        except BaseException as error:
            self._dead = error
            return
        finally:
            started.set()
        try:
            self._drive()
        except BaseException as error:
            with self._wake:
                self._dead = self._dead or error
        self._fail_pending()
        self._shut_down()

    def _build(self, args: dict[str, Any], threads: int) -> LLMEngine:
        # OpenMP's thread count belongs to the calling thread, so it is set in the thread that will step the engine.
        if threads:
            _set_num_threads(threads)
        with _turns.take():
            engine = LLMEngine.from_engine_args(EngineArgs(**args))
            # vLLM on CPU replaces this function by one that only warns; others in the process still need it.
            torch.set_num_threads = _set_num_threads
            _alive.add(id(self))
        return engine

    def _drive(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._arrived or self._cancelled or self._jobs or self._dead)
                if self._dead is not None:
                    return
                arrived, self._arrived = self._arrived, []
                cancelled, self._cancelled = self._cancelled, []
            with _turns.take():
                self._admit(arrived)
                self._abort(cancelled)
                outputs = self._engine.step()
            self._resolve(outputs)

    def _admit(self, jobs: list[_Job[T]]) -> None:
        for job in jobs:
            try:
                self._engine.add_request(job.id, tokens_input(list(job.prompt)), job.params)
            except Exception as error:  # vLLM refuses this request; the others go on
                _settle([(job, error)])
            else:
                self._jobs[job.id] = job

    def _abort(self, ids: list[str]) -> None:
        held = [id for id in ids if self._jobs.pop(id, None) is not None]
        if held:
            self._engine.abort_request(held)

    def _resolve(self, outputs: list[Any]) -> None:
        done: list[tuple[_Job[T], T | BaseException]] = []
        for output in outputs:
            job = self._jobs.pop(output.request_id, None) if output.finished else None
            if job is not None:
                done.append((job, self._read(output)))
        _settle(done)

    def _fail_pending(self) -> None:
        with self._wake:
            pending = [*self._jobs.values(), *self._arrived]
            self._jobs, self._arrived = {}, []
        error = EngineDied(f"engine is gone: {self._dead}")
        error.__cause__ = self._dead
        _settle([(job, error) for job in pending])

    def _shut_down(self) -> None:
        with _turns.take():
            _alive.discard(id(self))
            # vLLM's shutdown tears down the process group that the other engines of this process still use.
            if not _alive:
                self._engine.engine_core.shutdown()
            del self._engine
            gc.unfreeze()  # vLLM froze its objects when it started
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


def _settle(results: list[tuple[_Job[T], T | BaseException]]) -> None:
    """Hand results to their futures, with one wake-up for each asyncio loop."""

    def deliver(batch: list[tuple[_Job[T], T | BaseException]]) -> None:
        for job, result in batch:
            if job.future.done():
                continue
            if isinstance(result, BaseException):
                job.future.set_exception(result)
            else:
                job.future.set_result(result)

    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[_Job[T], T | BaseException]]] = defaultdict(list)
    for job, result in results:
        by_loop[job.loop].append((job, result))
    for loop, batch in by_loop.items():
        if not loop.is_closed():
            loop.call_soon_threadsafe(deliver, batch)


def _engine_args(model: str, engine: Engine) -> dict[str, Any]:
    args: dict[str, Any] = {
        "model": model,
        "dtype": engine.dtype,
        "max_model_len": engine.max_model_len,
        "max_num_seqs": engine.max_num_seqs,
        "tensor_parallel_size": engine.tensor_parallel_size,
        "enforce_eager": engine.enforce_eager,
        "enable_prefix_caching": True,
        "skip_tokenizer_init": True,
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
    }
    if current_platform.is_cpu():
        # A prompt is prefilled in one piece: vLLM samples after every piece and then rewinds the sequence's random
        # generator, which torch cannot do on CPU (the engine dies with "CPU Generator does not use offset").
        args["enable_chunked_prefill"] = False
        args["max_num_batched_tokens"] = max(CPU_BATCH, engine.max_model_len, engine.max_num_seqs)
        args["kv_cache_memory_bytes"] = int(engine.kv_cache_gib * GIB)
        args["block_size"] = CPU_BLOCK
    else:
        args["gpu_memory_utilization"] = engine.gpu_memory_utilization
    return args


class VllmPolicy:
    """A causal language model that extends prefixes; implements `interface.Policy`.

    Args:
        model: folder or hub id of a causal language model.
        engine: its engine's configuration.
    """

    def __init__(self, model: str, engine: Engine) -> None:
        self.usage = Usage()
        self.max_model_len = engine.max_model_len
        self.loop = EngineLoop(_engine_args(model, engine), engine.threads, self._read)
        self._ends = _end_tokens(self.loop)

    async def extend(self, prefix: Tokens, sampling: Sampling, seed: int) -> Completion:
        """Sample a continuation of `prefix`, reproducible from `seed`, of at most `sampling.max_tokens` tokens or as many as fit.

        Raises:
            ValueError: `prefix` is empty or leaves no room.
            EngineDied: the engine is gone.
        """
        room = self.max_model_len - len(prefix)
        if not prefix or room < 1:
            raise ValueError(
                f"prefix has {len(prefix)} tokens; an extension needs 1 to {self.max_model_len - 1} "
                f"(max_model_len - 1): shorten the prefix or raise Engine.max_model_len"
            )
        params = SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=min(sampling.max_tokens, room),
            seed=seed if sampling.temperature > 0 else None,
            stop_token_ids=[*self._ends, *sampling.stop_token_ids],
            logprobs=0,
            flat_logprobs=True,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
            skip_clone=True,
        )
        return await self.loop.submit(prefix, params)

    def close(self) -> None:
        """End the engine and free its memory."""
        self.loop.close()

    def _read(self, output: Any) -> Completion:
        made = output.outputs[0]
        tokens = tuple(made.token_ids)
        cached = output.num_cached_tokens or 0
        self.usage.generated += len(tokens)
        self.usage.cached += cached
        self.usage.prefilled += len(output.prompt_token_ids) - cached
        mean = made.cumulative_logprob / len(tokens) if tokens else 0.0
        finished = bool(tokens) and tokens[-1] in self._ends
        return Completion(tokens, finished, "stop" if made.finish_reason == "stop" else "length", mean)


class VllmValue:
    """A value model that scores prefixes; implements `interface.Value`.

    Args:
        model: folder or hub id that `ValueModel.from_pretrained` would take.
        engine: its engine's configuration.
    """

    def __init__(self, model: str, engine: Engine) -> None:
        self.usage = Usage()
        self.max_model_len = engine.max_model_len
        # The released checkpoint has the layout but another name for it.
        args = {**_engine_args(model, engine), "runner": "pooling", "hf_overrides": {"architectures": [ARCHITECTURE]}}
        self.loop = EngineLoop(args, engine.threads, self._read)
        self._params = PoolingParams(task="classify", use_activation=True)

    async def score(self, tokens: Tokens) -> Score:
        """Read the value at the last of `tokens`; only what follows a cached prefix is forwarded.

        Raises:
            ValueError: `tokens` is empty or too long.
            EngineDied: the engine is gone.
        """
        if not 0 < len(tokens) <= self.max_model_len:
            raise ValueError(
                f"sequence has {len(tokens)} tokens; scoring takes 1 to {self.max_model_len} (max_model_len): "
                f"shorten it or raise Engine.max_model_len"
            )
        return await self.loop.submit(tokens, self._params)

    def close(self) -> None:
        """End the engine and free its memory."""
        self.loop.close()

    def _read(self, output: Any) -> Score:
        cached = output.num_cached_tokens or 0
        self.usage.cached += cached
        self.usage.scored += len(output.prompt_token_ids) - cached
        probs = tuple(output.outputs.data.tolist())
        return Score(probs[CORRECT], probs)


def _end_tokens(loop: EngineLoop[Any]) -> frozenset[int]:
    """End-of-sequence tokens of the engine's model, from its generation config, else from its config."""
    model = loop._engine.model_config
    found = model.try_get_generation_config().get("eos_token_id")
    if found is None:
        found = getattr(model.hf_text_config, "eos_token_id", None)
    if found is None:
        raise ValueError(f"{model.model} names no eos_token_id, so no answer could end: add it to generation_config.json")
    return frozenset([found] if isinstance(found, int) else found)
