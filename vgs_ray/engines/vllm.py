"""vLLM engines: `VllmPolicy` extends prefixes and `VllmValue` scores them.

In: token tuples, from any asyncio event loop. Out: `Completion` and `Score`, with the token counts that vLLM reports. Each engine
runs in this process, in a thread of its own. vLLM batches the sequences of concurrent calls and caches prefixes.
"""

from __future__ import annotations

import gc
import math
import os
from functools import partial
from typing import Any

# torch and vLLM read these when they are imported. An engine in a process of its own would import both again.
os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")  # each start would warn about settings that are intended
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

import torch
from vllm import PoolingParams
from vllm.engine.arg_utils import EngineArgs
from vllm.exceptions import VLLMClientError
from vllm.platforms import current_platform
from vllm.v1.engine.llm_engine import LLMEngine
from vllm.v1.sample import sampler

from vgs_ray.config import Engine, Sampling
from vgs_ray.data.tokens import Tokens
from vgs_ray.engines.facts import end_tokens, running_sequences, sampled_so_far, vocabulary_of
from vgs_ray.engines.interface import (
    Completion,
    FinishReason,
    Interrupted,
    SamplingWithLogprobs,
    Score,
    Usage,
    check_scored,
    check_tokens,
    refused_grammars,
    room_for,
)
from vgs_ray.engines.loop import EngineLoop
from vgs_ray.engines.vllm_arguments import engine_args, grammar_args, sampling_params
from vgs_ray.value.model import ARCHITECTURE, CORRECT
from vgs_ray.value.vllm_plugin import REWARD_ARCHITECTURE

CLASSIFIERS = ("ForSequenceClassification", "ForTokenClassification")
"""Suffixes of the names of transformers' classifiers. Only the heads of the second kind have a bias."""

if current_platform.is_cpu():
    # vLLM compiles this comparison, with g++, when log-probabilities are first asked for. That takes each process 2 s.
    sampler.batched_count_greater_than = sampler.batched_count_greater_than._torchdynamo_orig_callable

_alive: set[int] = set()
_set_num_threads = torch.set_num_threads


class VllmPolicy:
    """A causal language model that extends prefixes; implements `interface.Policy`.

    Args:
        model: folder or hub id of a causal language model.
        engine: settings of the engine.
        logprobs: whether to compute `Completion.mean_logprob`, which costs 7% of the throughput of a tiny model. NaN without.
        shared: whether another engine runs in this process, see `loop.step_lock`.
        grammars: whether calls may have a `SamplingWithGrammar`. vLLM then loads the tokenizer.

    Raises:
        ValueError: the model has no end-of-sequence token.
        Exception: from vLLM, if the engine cannot start.
    """

    def __init__(
        self, model: str, engine: Engine, logprobs: bool = True, shared: bool = False, grammars: bool = False
    ) -> None:
        self.usage = Usage()
        self.max_model_len = engine.max_model_len
        self._logprobs = 0 if logprobs else None  # 0: of the sampled token only
        self._end_tokens: frozenset[int] = frozenset()
        args = self._engine_args(model, engine) | (grammar_args() if grammars else {})
        args |= {"async_scheduling": False} if shared else {}
        self.loop = _start(args, engine, self._read)
        self._vocabulary = vocabulary_of(self.loop.engine)
        try:
            self._end_tokens = end_tokens(self.loop.engine)
        except ValueError:
            self.close()
            raise

    async def extend(self, prefix: Tokens, sampling: Sampling, seed: int) -> Completion:
        """Sample at most `sampling.max_tokens` tokens after `prefix`, fewer if `max_model_len` is reached.

        Equal seeds give equal tokens. Cancelling the call frees its memory in the engine.

        Raises:
            ValueError: `prefix` is empty, or as long as `max_model_len`.
            UnknownToken: a token id is outside the vocabulary.
            UnusableGrammar: the engine refuses the grammar of the call.
            EngineDied: the engine is gone.
        """
        room = room_for(prefix, sampling.max_tokens, self.max_model_len)
        check_tokens(prefix, self._vocabulary)
        ends = [*self._end_tokens, *sampling.stop_token_ids]
        each = isinstance(sampling, SamplingWithLogprobs)
        logprobs = 0 if each else self._logprobs
        params = sampling_params(sampling, seed, max_tokens=room, stop_token_ids=ends, logprobs=logprobs)
        with refused_grammars(sampling, VLLMClientError):
            return await self.loop.submit(prefix, params, partial(self._read, each=each), self._interrupted)

    @property
    def kv_usage(self) -> float:
        """Share of the KV cache that running sequences use, 0 to 1. Blocks kept only for later prefixes count as free."""
        engine: Any = self.loop.engine
        return float(engine.engine_core.engine_core.scheduler.kv_cache_manager.usage)

    def close(self) -> None:
        """Stop the engine and free its memory."""
        self.loop.close()

    def _interrupted(self, id: str) -> Interrupted:
        partial = sampled_so_far(self.loop.engine, id)
        self.usage.generated += len(partial.tokens)
        self.usage.prefilled += partial.prefilled
        return Interrupted(partial)

    def _engine_args(self, model: str, engine: Engine) -> dict[str, Any]:
        return engine_args(model, engine)

    def _read(self, output: Any, each: bool = False) -> Completion:
        """The completion, if desired with the log-probability of each token."""
        made = output.outputs[0]
        if made.finish_reason == "error":
            raise ValueError("vLLM ended the sequence: the vocabulary has no token that the grammar allows")
        completion = self._completion(
            output, tuple(made.token_ids), made.cumulative_logprob, stopped=made.finish_reason == "stop"
        )
        return completion._replace(logprobs=tuple(made.logprobs.logprobs)) if each else completion

    def _completion(self, output: Any, tokens: Tokens, logprob: float | None, stopped: bool) -> Completion:
        """Count the tokens of an output. `logprob` is the sum over `tokens`."""
        cached = output.num_cached_tokens or 0
        self.usage.generated += len(tokens)
        self.usage.cached += cached
        prefilled = len(output.prompt_token_ids) - cached
        self.usage.prefilled += prefilled
        mean_logprob = math.nan if logprob is None else logprob / max(len(tokens), 1)
        finished = bool(tokens) and tokens[-1] in self._end_tokens
        reason: FinishReason = "stop" if stopped else "length"
        return Completion(tokens, finished, reason, mean_logprob, prefilled)


class VllmValue:
    """A value model that scores prefixes; implements `interface.Value`.

    A process reward model works too: its value is the probability of class 1 at the last token, or the sigmoid of a single
    output.

    Args:
        model: folder or hub id of a `ValueModel`, or of a Qwen2, Qwen3 or Llama classifier of transformers
            (`...ForSequenceClassification`, `...ForTokenClassification`).
        engine: settings of the engine.

    Raises:
        Exception: from vLLM, if the engine cannot start.
    """

    def __init__(self, model: str, engine: Engine) -> None:
        self.usage = Usage()
        self.max_model_len = engine.max_model_len
        args = {**engine_args(model, engine), "runner": "pooling", "hf_overrides": _overrides(model)}
        self.loop = _start(args, engine, self._read)
        self._vocabulary = vocabulary_of(self.loop.engine)
        self._last_token = PoolingParams(task="classify", use_activation=True)
        self._each_token = PoolingParams(task="token_classify", use_activation=True)

    async def score(self, tokens: Tokens) -> Score:
        """P(correct) at the last token. Tokens of a cached prefix are not forwarded again.

        Raises:
            ValueError: `tokens` is empty or longer than `max_model_len`.
            UnknownToken: a token id is outside the vocabulary.
            EngineDied: the engine is gone.
        """
        check_scored(tokens, self.max_model_len, self._vocabulary)
        [score] = await self.loop.submit(tokens, self._last_token)
        return score

    async def score_each(self, tokens: Tokens) -> list[Score]:
        """P(correct) after each token, in one forward pass over all tokens: the cache holds no values.

        Raises:
            ValueError: `tokens` is empty or longer than `max_model_len`.
            UnknownToken: a token id is outside the vocabulary.
            EngineDied: the engine is gone.
        """
        check_scored(tokens, self.max_model_len, self._vocabulary)
        return await self.loop.submit(tokens, self._each_token)

    def close(self) -> None:
        """Stop the engine and free its memory."""
        self.loop.close()

    def _read(self, output: Any) -> list[Score]:
        """The score of the last token, or of each token; each counts an equal part of the forwarded tokens."""
        cached = output.num_cached_tokens or 0
        self.usage.cached += cached
        scored = len(output.prompt_token_ids) - cached
        self.usage.scored += scored
        probs = output.outputs.data
        rows = probs.tolist() if probs.ndim == 2 else [probs.tolist()]
        return [_score(tuple(row), scored // len(rows)) for row in rows]


def _score(probs: tuple[float, ...], scored: int) -> Score:
    # A single output is P(correct) itself.
    return Score(probs[0], (), scored) if len(probs) == 1 else Score(probs[CORRECT], probs, scored)


def _overrides(model: str) -> dict[str, Any]:
    """Overrides of config.json that select this project's model classes."""
    from transformers import AutoConfig

    [name] = AutoConfig.from_pretrained(model).architectures or [""]
    if name.endswith(CLASSIFIERS):
        return {"architectures": [REWARD_ARCHITECTURE], "score_bias": name.endswith(CLASSIFIERS[1])}
    # The published checkpoint has the same layout under another architecture name.
    return {"architectures": [ARCHITECTURE]}


def _start(args: dict[str, Any], settings: Engine, read: Any) -> EngineLoop[Any]:
    def build() -> LLMEngine:
        # OpenMP's number of threads is a property of the calling thread, so it is set in the thread that steps the engine.
        if settings.threads:
            _set_num_threads(settings.threads)
        engine = LLMEngine.from_engine_args(EngineArgs(**args))
        # vLLM on CPU replaces this function by one that only warns, but the rest of the process needs it.
        torch.set_num_threads = _set_num_threads
        _alive.add(id(engine))
        return engine

    return EngineLoop(build, _release, read, settings.step_timeout_s, running_sequences)


def _release(engine: Any) -> None:
    _alive.discard(id(engine))
    # vLLM's shutdown ends the process group, which other engines of this process still use.
    if not _alive:
        engine.engine_core.shutdown()
    engine.engine_core = engine.model_executor = None
    gc.unfreeze()  # vLLM froze its objects when it started
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
