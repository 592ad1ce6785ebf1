"""Start engines: `build_policy` and `build_value` turn a model and a `config.Engine` into a running `Policy` or `Value`.

`interface` defines the two protocols, `vllm` implements them, and `loop` is the thread that steps an engine. vLLM is imported
when an engine starts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vgs_ray import config
from vgs_ray.engines.random_value import RandomValue
from vgs_ray.models import RANDOM

if TYPE_CHECKING:
    from vgs_ray.engines.vllm import VllmPolicy, VllmValue
    from vgs_ray.engines.vocabularies import TranslatedValue


def build_policy(model: str, engine: config.Engine, logprobs: bool = True) -> VllmPolicy:
    """Start a vLLM engine that extends prefixes, and wait until it is ready. Call `close()` to stop it.

    Args:
        model: folder or hub id of a causal language model.
        engine: its configuration.
        logprobs: as in `VllmPolicy`.
    """
    from vgs_ray.engines.vllm import VllmPolicy

    return VllmPolicy(model, engine, logprobs)


def build_value(model: str, engine: config.Engine, policy: str = "") -> VllmValue | RandomValue | TranslatedValue:
    """Start a vLLM engine that scores prefixes, and wait until it is ready. Call `close()` to stop it.

    Args:
        model: folder or hub id of a saved `ValueModel` or of a transformers classifier; `random` needs no engine.
        engine: its configuration.
        policy: folder or hub id of the policy. If its vocabulary differs from the value model's, tokens are translated.
    """
    if model == RANDOM:
        return RandomValue()
    from vgs_ray.engines.vllm import VllmValue
    from vgs_ray.engines.vocabularies import TranslatedValue, find_translation

    translation = find_translation(policy, model) if policy else None
    value = VllmValue(model, engine)
    return TranslatedValue(value, translation) if translation else value
