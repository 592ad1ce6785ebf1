"""The recipe's settings as vLLM's arguments: of an engine, and of one sequence. `vllm` sets the environment of vLLM first."""

from __future__ import annotations

from typing import Any

from vllm import SamplingParams
from vllm.config import StructuredOutputsConfig
from vllm.platforms import current_platform
from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

from vgs_ray.config import Engine, Sampling
from vgs_ray.engines.interface import SamplingWithGrammar

GIB = 1024**3
CPU_BLOCK = 32
"""Block size of the KV cache on CPU, in tokens: the smallest supported. With vLLM's default (128), short prefixes are never
cached."""
CPU_BATCH = 4096
"""Maximum number of tokens of one step on CPU, unless a single sequence may be longer."""


def sampling_params(sampling: Sampling, seed: int, **others: Any) -> SamplingParams:
    """vLLM's `SamplingParams` of one sequence, with `others` of its fields."""
    return SamplingParams(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        min_p=sampling.min_p,
        repetition_penalty=sampling.repetition_penalty,
        seed=seed if sampling.temperature > 0 else None,
        flat_logprobs=True,
        detokenize=False,
        structured_outputs=_structured_outputs(sampling),
        output_kind=RequestOutputKind.FINAL_ONLY,
        skip_clone=True,
        **others,
    )


def grammar_args() -> dict[str, Any]:
    """More of vLLM's `EngineArgs`, for an engine whose calls may have grammars."""
    # With free whitespace, small models write lines without end between two values.
    outputs = StructuredOutputsConfig(backend="xgrammar", disable_any_whitespace=True)
    return {"skip_tokenizer_init": False, "structured_outputs_config": outputs}


def _structured_outputs(sampling: Sampling) -> StructuredOutputsParams | None:
    if not isinstance(sampling, SamplingWithGrammar):
        return None
    return StructuredOutputsParams(**{sampling.grammar.kind: sampling.grammar.text})


def engine_args(model: str, engine: Engine) -> dict[str, Any]:
    """vLLM's `EngineArgs` for a model on this machine."""
    args: dict[str, Any] = {
        "model": model,
        "dtype": engine.dtype,
        "max_model_len": engine.max_model_len,
        "max_num_seqs": engine.max_num_seqs,
        "tensor_parallel_size": engine.tensor_parallel_size,
        # By default, vLLM in a Ray actor would start Ray workers of its own.
        "distributed_executor_backend": "uni" if engine.tensor_parallel_size == 1 else "mp",
        "enforce_eager": engine.enforce_eager,
        "enable_prefix_caching": True,
        "skip_tokenizer_init": True,
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
    }
    if not current_platform.is_cpu():
        batched = max(engine.max_num_batched_tokens, engine.max_num_seqs)  # vLLM refuses fewer
        return args | {"gpu_memory_utilization": engine.gpu_memory_utilization, "max_num_batched_tokens": batched}
    return {
        **args,
        "kv_cache_memory_bytes": int(engine.kv_cache_gib * GIB),
        "block_size": CPU_BLOCK,
        # With chunked prefill, vLLM samples after each chunk and rewinds the sequence's random generator. torch cannot do that
        # on CPU: the engine would fail with "CPU Generator does not use offset".
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(CPU_BATCH, engine.max_model_len, engine.max_num_seqs),
    }
