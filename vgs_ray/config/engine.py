"""One vLLM engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from vgs_ray.config.identity import OPERATION
from vgs_ray.config.ranges import NonEmptyStr, NonNegativeInt, PositiveFloat, PositiveInt, PositiveShare


@dataclass(frozen=True)
class Engine:
    """Settings of one vLLM engine. `Resources` has what Ray reserves for it."""

    max_model_len: PositiveInt = 17408
    """Maximum length of a sequence in tokens, with its prompt."""
    dtype: Literal["bfloat16", "float32", "auto"] = "bfloat16"
    """Data type of the weights and activations."""
    tensor_parallel_size: Annotated[PositiveInt, OPERATION] = 1
    """Number of GPUs that the engine is split over."""
    max_num_seqs: Annotated[PositiveInt, OPERATION] = 256
    """Maximum number of sequences in a batch."""
    max_num_batched_tokens: Annotated[PositiveInt, OPERATION] = 8192
    """Maximum number of tokens of one step on a GPU. More speeds up long prompts, and needs memory."""
    step_timeout_s: Annotated[PositiveFloat, OPERATION] = 600.0
    """Time limit in seconds of a step or a call to `urls`. A stuck engine ends its process, and Ray starts another one."""
    gpu_memory_utilization: Annotated[PositiveShare, OPERATION] = 0.9
    """Share of a GPU's memory to use."""
    kv_cache_gib: Annotated[PositiveFloat, OPERATION] = 1.0
    """Size of the KV cache in GiB on a CPU."""
    enforce_eager: Annotated[bool, OPERATION] = False
    """Skip compilation and CUDA graphs, to start faster."""
    threads: Annotated[NonNegativeInt, OPERATION] = 0
    """Number of CPU threads; 0 uses torch's default."""
    urls: Annotated[tuple[NonEmptyStr, ...], OPERATION] = ()
    """Addresses of `vllm serve` to use instead. Such as http://host:8000; for policies only, see docs/serving.md."""
