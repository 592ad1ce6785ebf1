"""Engines behind two async calls on tokens.

In: a model's folder or hub id and a `config.Engine`. Out: a running `Policy` or `Value`.
vLLM is imported inside the calls only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vgs_ray import config
from vgs_ray.engines.baselines import RandomValue, Translated
from vgs_ray.models import RANDOM

if TYPE_CHECKING:
    from vgs_ray.engines.vllm import VllmPolicy, VllmValue


def build_policy(model: str, engine: config.Engine, logprobs: bool = True) -> VllmPolicy:
    """Start a vLLM engine that extends prefixes; ready when it returns. `close()` ends it."""
    from vgs_ray.engines.vllm import VllmPolicy

    return VllmPolicy(model, engine, logprobs)


def build_value(model: str, engine: config.Engine, policy: str = "") -> VllmValue | RandomValue | Translated:
    """Start a vLLM engine that scores prefixes; ready when it returns. `close()` ends it.

    Args:
        model: folder or hub id of a saved `ValueModel` or of a classifier of transformers; `random` scores at random.
        engine: its configuration.
        policy: folder or hub id of the policy; where its vocabulary is another one, tokens are translated through their text.
    """
    if model == RANDOM:
        return RandomValue()
    from vgs_ray.engines.vllm import VllmValue
    from vgs_ray.prompts import translation

    translate = translation(policy, model) if policy else None
    value = VllmValue(model, engine)
    return Translated(value, *translate) if translate else value
