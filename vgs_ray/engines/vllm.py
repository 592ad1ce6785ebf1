"""`Policy` and `Value` behind vLLM: one in-process engine each, driven by a thread of its own.

In: token tuples, from any asyncio loop. Out: `Completion` and `Score`, with usage counted from what vLLM says it
forwarded. Callers submit single sequences; vLLM batches what is there, caches prefixes and never waits in lockstep.
"""

from __future__ import annotations

import gc
import math
import os
from typing import Any

# Read when torch and vLLM are imported. The engine stays in this process: another would import both once more.
os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")  # each start warns ten times about settings that are meant
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

import torch
from vllm import PoolingParams, SamplingParams
from vllm.engine.arg_utils import EngineArgs
from vllm.platforms import current_platform
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.llm_engine import LLMEngine

from vgs_ray.config import Engine, Sampling
from vgs_ray.data.tokens import Tokens
from vgs_ray.engines.interface import Completion, Score, Usage, check_tokens, room_for
from vgs_ray.engines.loop import EngineLoop
from vgs_ray.value.model import ARCHITECTURE, CORRECT
from vgs_ray.value.vllm_plugin import REWARD_ARCHITECTURE

GIB = 1024**3
CPU_BLOCK = 32
"""Tokens of one cached block on CPU, the smallest that it takes. vLLM's default (128) never hits on short texts."""
CPU_BATCH = 4096
"""Tokens that one step forwards at most on CPU, unless a single sequence may be longer."""

CLASSIFIERS = ("ForSequenceClassification", "ForTokenClassification")
"""Ends of the names of transformers' classifiers; the second kind has a bias."""

_alive: set[int] = set()
_set_num_threads = torch.set_num_threads


class VllmPolicy:
    """A causal language model that extends prefixes; implements `interface.Policy`.

    Args:
        model: folder or hub id of a causal language model.
        engine: its engine's configuration.
        logprobs: compute `Completion.mean_logprob`, which costs 7% of the throughput of a tiny model; nan without it.

    Raises:
        ValueError: the model names no end-of-sequence token.
        Exception: what vLLM raises when it cannot start.
    """

    def __init__(self, model: str, engine: Engine, logprobs: bool = True) -> None:
        self.usage = Usage()
        self.max_model_len = engine.max_model_len
        self._logprobs = 0 if logprobs else None  # 0: that of the sampled token alone
        self._ends: frozenset[int] = frozenset()
        self.loop = _start(engine_args(model, engine), engine.threads, self._read)
        self._vocabulary = vocabulary_of(self.loop.engine)
        try:
            self._ends = end_tokens(self.loop.engine)
        except ValueError:
            self.close()
            raise

    async def extend(self, prefix: Tokens, sampling: Sampling, seed: int) -> Completion:
        """Sample a continuation of `prefix`, reproducible from `seed`.

        It has at most `sampling.max_tokens` tokens, fewer where `max_model_len` leaves less. Cancelling frees memory.

        Raises:
            ValueError: `prefix` is empty or leaves no room.
            UnknownToken: it has an id that the model does not have.
            EngineDied: the engine is gone.
        """
        room = room_for(prefix, sampling.max_tokens, self.max_model_len)
        check_tokens(prefix, self._vocabulary)
        params = SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            min_p=sampling.min_p,
            repetition_penalty=sampling.repetition_penalty,
            max_tokens=room,
            seed=seed if sampling.temperature > 0 else None,
            stop_token_ids=[*self._ends, *sampling.stop_token_ids],
            logprobs=self._logprobs,
            flat_logprobs=True,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
            skip_clone=True,
        )
        return await self.loop.submit(prefix, params)

    @property
    def kv_usage(self) -> float:
        """Share of the cache's memory that sequences hold, 0 to 1; what is only kept for later prefixes is free."""
        engine: Any = self.loop.engine
        return float(engine.engine_core.engine_core.scheduler.kv_cache_manager.usage)

    def close(self) -> None:
        """End the engine and free its memory."""
        self.loop.close()

    def _read(self, output: Any) -> Completion:
        made = output.outputs[0]
        tokens = tuple(made.token_ids)
        cached = output.num_cached_tokens or 0
        self.usage.generated += len(tokens)
        self.usage.cached += cached
        prefilled = len(output.prompt_token_ids) - cached
        self.usage.prefilled += prefilled
        mean = math.nan if self._logprobs is None else made.cumulative_logprob / len(tokens) if tokens else 0.0
        finished = bool(tokens) and tokens[-1] in self._ends
        return Completion(tokens, finished, "stop" if made.finish_reason == "stop" else "length", mean, prefilled)


class VllmValue:
    """A value model that scores prefixes; implements `interface.Value`.

    A process reward model is read in the same way: its probability at the last token is the value. Of several classes index 1
    means correct, of one the sigmoid.

    Args:
        model: folder or hub id that `ValueModel.from_pretrained` would take, or of a Qwen2, Qwen3 or Llama classifier of
            transformers (`...ForSequenceClassification`, `...ForTokenClassification`).
        engine: its engine's configuration.

    Raises:
        Exception: what vLLM raises when it cannot start.
    """

    def __init__(self, model: str, engine: Engine) -> None:
        self.usage = Usage()
        self.max_model_len = engine.max_model_len
        args = {**engine_args(model, engine), "runner": "pooling", "hf_overrides": _overrides(model)}
        self.loop = _start(args, engine.threads, self._read)
        self._vocabulary = vocabulary_of(self.loop.engine)
        self._last = PoolingParams(task="classify", use_activation=True)
        self._each = PoolingParams(task="token_classify", use_activation=True)

    async def score(self, tokens: Tokens) -> Score:
        """Read the value at the last of `tokens`; only what follows a cached prefix is forwarded.

        Raises:
            ValueError: `tokens` is empty or too long.
            UnknownToken: it has an id that the model does not have.
            EngineDied: the engine is gone.
        """
        [score] = await self.loop.submit(self._checked(tokens), self._last)
        return score

    async def score_each(self, tokens: Tokens) -> list[Score]:
        """Read the value after each of `tokens` in one pass; caches hold no values, so that all of them are forwarded.

        Raises:
            ValueError: `tokens` is empty or too long.
            UnknownToken: it has an id that the model does not have.
            EngineDied: the engine is gone.
        """
        return await self.loop.submit(self._checked(tokens), self._each)

    def _checked(self, tokens: Tokens) -> Tokens:
        if not 0 < len(tokens) <= self.max_model_len:
            raise ValueError(
                f"sequence has {len(tokens)} tokens; scoring takes 1 to {self.max_model_len} (max_model_len): "
                f"shorten it or raise Engine.max_model_len"
            )
        check_tokens(tokens, self._vocabulary)
        return tokens

    def close(self) -> None:
        """End the engine and free its memory."""
        self.loop.close()

    def _read(self, output: Any) -> list[Score]:
        """The score of the last token, or one of each; what was forwarded is shared among them."""
        cached = output.num_cached_tokens or 0
        self.usage.cached += cached
        scored = len(output.prompt_token_ids) - cached
        self.usage.scored += scored
        read = output.outputs.data
        rows = read.tolist() if read.ndim == 2 else [read.tolist()]
        return [_score(tuple(probs), scored // len(rows)) for probs in rows]


def _score(probs: tuple[float, ...], scored: int) -> Score:
    # One output is P(correct) itself: there are no classes.
    return Score(probs[0], (), scored) if len(probs) == 1 else Score(probs[CORRECT], probs, scored)


def _overrides(model: str) -> dict[str, Any]:
    """What vLLM reads instead of config.json, so that it takes our implementation."""
    from transformers import AutoConfig

    [name] = AutoConfig.from_pretrained(model).architectures or [""]
    if name.endswith(CLASSIFIERS):
        return {"architectures": [REWARD_ARCHITECTURE], "score_bias": name.endswith(CLASSIFIERS[1])}
    # The released checkpoint has the layout of ours under another name, so the name is always ours.
    return {"architectures": [ARCHITECTURE]}


def engine_args(model: str, engine: Engine) -> dict[str, Any]:
    args: dict[str, Any] = {
        "model": model,
        "dtype": engine.dtype,
        "max_model_len": engine.max_model_len,
        "max_num_seqs": engine.max_num_seqs,
        "tensor_parallel_size": engine.tensor_parallel_size,
        # Left to itself, vLLM inside a Ray actor would start Ray workers of its own.
        "distributed_executor_backend": "uni" if engine.tensor_parallel_size == 1 else "mp",
        "enforce_eager": engine.enforce_eager,
        "enable_prefix_caching": True,
        "skip_tokenizer_init": True,
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
    }
    if not current_platform.is_cpu():
        return {**args, "gpu_memory_utilization": engine.gpu_memory_utilization}
    return {
        **args,
        "kv_cache_memory_bytes": int(engine.kv_cache_gib * GIB),
        "block_size": CPU_BLOCK,
        # A prompt is prefilled in one piece: vLLM samples after every piece and then rewinds the sequence's random
        # generator, which torch cannot do on CPU (the engine dies with "CPU Generator does not use offset").
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(CPU_BATCH, engine.max_model_len, engine.max_num_seqs),
    }


def _start(args: dict[str, Any], threads: int, read: Any) -> EngineLoop[Any]:
    def build() -> LLMEngine:
        # OpenMP's thread count belongs to the calling thread, so it is set in the one that will step the engine.
        if threads:
            _set_num_threads(threads)
        engine = LLMEngine.from_engine_args(EngineArgs(**args))
        # vLLM on CPU replaces this function by one that only warns; the rest of the process still needs it.
        torch.set_num_threads = _set_num_threads
        _alive.add(id(engine))
        return engine

    return EngineLoop(build, _release, read)


def _release(engine: Any) -> None:
    _alive.discard(id(engine))
    # vLLM's shutdown also ends the process group that the other engines of this process still use.
    if not _alive:
        engine.engine_core.shutdown()
    engine.engine_core = engine.model_executor = None
    gc.unfreeze()  # vLLM froze its objects when it started
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def vocabulary_of(engine: Any) -> int:
    """Token ids that the engine's model has, from 0 up. Its embedding may have more rows, without weights of the model."""
    return int(engine.model_config.get_vocab_size())


def end_tokens(engine: Any) -> frozenset[int]:
    """End-of-sequence tokens of the engine's model, from its generation config, else from its config."""
    model = engine.model_config
    found = model.try_get_generation_config().get("eos_token_id")
    if found is None:
        found = getattr(model.hf_text_config, "eos_token_id", None)
    if found is None:
        raise ValueError(f"{model.model} names no eos_token_id, so no answer could end: add it to its config.json")
    return frozenset([found] if isinstance(found, int) else found)
