"""What a vLLM engine knows about its model and its cache. This module does not import vLLM."""

from __future__ import annotations

import math
from typing import Any

from vgs_ray.engines.interface import Completion


def cache_tokens(*engines: object) -> float:
    """Number of tokens that the KV cache of each of these engines holds: infinite if none has one, like a random scorer."""
    caches = [each.loop.engine.vllm_config.cache_config for each in engines if hasattr(each, "loop")]
    return min((cache.num_gpu_blocks * cache.block_size for cache in caches), default=math.inf)


def cache_block(*engines: object) -> int:
    """Number of tokens in a block of these engines' KV caches, or the common multiple of several; 1 if none has a cache."""
    sizes = [each.loop.engine.vllm_config.cache_config.block_size for each in engines if hasattr(each, "loop")]
    return math.lcm(*sizes)


def running_sequences(engine: Any) -> int:
    """Number of sequences in the engine's batch."""
    return len(engine.engine_core.engine_core.scheduler.running)


def sampled_so_far(engine: Any, id: str) -> Completion:
    """What a running sequence of this engine has cost. The step that runs now may add one more token.

    Args:
        engine: of a policy; None after it was closed.
        id: with which the sequence was added.
    """
    names = engine.output_processor.external_req_ids.get(id) if engine else None
    request = engine.engine_core.engine_core.scheduler.requests.get(names[0]) if names else None
    state = engine.output_processor.request_states.get(names[0]) if names else None
    if request is None or state is None or not request.output_token_ids:  # it waits, or its prefix is being forwarded
        return Completion((), False, "length", math.nan)
    tokens, prefilled = tuple(request.output_token_ids), state.prompt_len - state.num_cached_tokens
    return Completion(tokens, False, "length", math.nan, prefilled)


def vocabulary_of(engine: Any) -> int:
    """Number of token ids of the engine's model. Its embedding may have more rows, for padding."""
    return int(engine.model_config.get_vocab_size())


def end_tokens(engine: Any) -> frozenset[int]:
    """End-of-sequence tokens of the engine's model, from its generation config, else from its config."""
    model = engine.model_config
    ids = model.try_get_generation_config().get("eos_token_id")
    if ids is None:
        ids = getattr(model.hf_text_config, "eos_token_id", None)
    return end_token_set(model.model, ids)


def end_token_set(model: str, ids: int | list[int] | None) -> frozenset[int]:
    """The value of `eos_token_id` as a set.

    Raises:
        ValueError: it is missing.
    """
    if ids is None:
        raise ValueError(f"{model} has no eos_token_id, so no answer would end: add it to its config.json")
    return frozenset([ids] if isinstance(ids, int) else ids)
