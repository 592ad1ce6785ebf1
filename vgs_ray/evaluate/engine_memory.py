"""GPU memory that an engine needs: weights, and a KV cache for some sequences of the maximum length."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vgs_ray.config import Engine
from vgs_ray.search.model_size import size_from_config

OVERHEAD_GIB = 2.0
"""Of each GPU: activations, CUDA graphs, communication. An assumption."""
GIB = 2**30


def weights_gib(config: Mapping[str, Any], engine: Engine) -> float:
    """Weights of a model, from the values of its config.json. The input embedding counts unless the output layer is the same."""
    size = size_from_config(config)
    embedding = 0 if config.get("tie_word_embeddings") else config["vocab_size"] * config["hidden_size"]
    return (size.params + embedding) * _bytes(engine) / GIB


def cache_gib(config: Mapping[str, Any], engine: Engine, sequences: int) -> float:
    """Keys and values of `sequences` sequences of `max_model_len` tokens, but not of more than the engine runs at once."""
    heads = config["num_attention_heads"]
    head = config.get("head_dim") or config["hidden_size"] // heads
    token = 2 * config["num_hidden_layers"] * config.get("num_key_value_heads", heads) * head * _bytes(engine)
    return token * engine.max_model_len * min(sequences, engine.max_num_seqs) / GIB


def gpu_gib(config: Mapping[str, Any], engine: Engine, sequences: int) -> float:
    """Memory in GiB that each GPU of the engine must have, of which the engine may use `gpu_memory_utilization`."""
    split = (weights_gib(config, engine) + cache_gib(config, engine, sequences)) / engine.tensor_parallel_size
    return (split + OVERHEAD_GIB) / engine.gpu_memory_utilization


def _bytes(engine: Engine) -> int:
    return 4 if engine.dtype == "float32" else 2
