"""Engines behind two async calls on tokens.

In: a model's folder or hub id and a `config.Engine`. Out: a running `Policy` or `Value`.
vLLM is imported inside the calls only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vgs_ray import config

if TYPE_CHECKING:
    from vgs_ray.engines.vllm import VllmPolicy, VllmValue


def build_policy(model: str, engine: config.Engine, logprobs: bool = True) -> VllmPolicy:
    """Start a vLLM engine that extends prefixes; ready when it returns. `close()` ends it."""
    from vgs_ray.engines.vllm import VllmPolicy

    return VllmPolicy(model, engine, logprobs)


def build_value(model: str, engine: config.Engine) -> VllmValue:
    """Start a vLLM engine that scores prefixes with a saved `ValueModel`; ready when it returns. `close()` ends it."""
    from vgs_ray.engines.vllm import VllmValue

    return VllmValue(model, engine)
