"""What a vLLM engine knows about its model and its cache. This module does not import vLLM."""

from __future__ import annotations

import math
from typing import Any


def cache_tokens(*engines: object) -> float:
    """Number of tokens that the KV cache of each of these engines holds: infinite if none has one, like a random scorer."""
    caches = [each.loop.engine.vllm_config.cache_config for each in engines if hasattr(each, "loop")]
    return min((cache.num_gpu_blocks * cache.block_size for cache in caches), default=math.inf)


def vocabulary_of(engine: Any) -> int:
    """Number of token ids of the engine's model. Its embedding may have more rows, for padding."""
    return int(engine.model_config.get_vocab_size())


def end_tokens(engine: Any) -> frozenset[int]:
    """End-of-sequence tokens of the engine's model, from its generation config, else from its config."""
    model = engine.model_config
    ids = model.try_get_generation_config().get("eos_token_id")
    if ids is None:
        ids = getattr(model.hf_text_config, "eos_token_id", None)
    if ids is None:
        raise ValueError(f"{model.model} has no eos_token_id, so no answer would end: add it to its config.json")
    return frozenset([ids] if isinstance(ids, int) else ids)
