"""Start engines: `build_policy` and `build_value` turn a model and a `config.Engine` into a running `Policy` or `Value`, and
`build_engines` starts both for a search.

`interface` defines the two protocols, `vllm` implements them, and `loop` is the thread that steps an engine. `served` is a policy
on servers that others started. vLLM is imported when an engine starts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from vgs_ray import config
from vgs_ray.engines.random_value import RandomValue
from vgs_ray.fast_imports import fast_imports
from vgs_ray.models import OWN_HEAD, RANDOM
from vgs_ray.models.folder import on_this_machine

if TYPE_CHECKING:
    from vgs_ray.engines.one_pass import VllmPolicyValue
    from vgs_ray.engines.served import ServedPolicy
    from vgs_ray.engines.vllm import VllmPolicy, VllmValue
    from vgs_ray.engines.vocabularies import TranslatedValue


class Engines(NamedTuple):
    """The engines of a search; `policy is value` if one engine is both."""

    policy: VllmPolicy | ServedPolicy
    value: VllmValue | VllmPolicyValue | RandomValue | TranslatedValue

    def close(self) -> None:
        """Stop each engine once and free its memory."""
        self.policy.close()
        if self.value is not self.policy:
            self.value.close()


def build_engines(
    policy: str,
    value: str,
    policy_engine: config.Engine,
    value_engine: config.Engine,
    logprobs: bool = True,
    grammars: bool = False,
) -> Engines:
    """Start the engines of a search, and wait until they are ready. Call `close()` to stop them.

    Args:
        policy: folder, URL or hub id of the policy.
        value: folder, URL or hub id of the value model, `random`, or `OWN_HEAD` for the value head of the policy itself: then one
            engine with the settings `policy_engine` is both, and its completions have a `score`.
        policy_engine: configuration of the policy's engine.
        value_engine: configuration of the value model's engine.
        logprobs, grammars: as in `VllmPolicy`.

    Raises:
        ValueError: `value` is `OWN_HEAD` and the policy has no value head.
    """
    if value == OWN_HEAD:
        with fast_imports():
            from vgs_ray.engines.one_pass import VllmPolicyValue

        both = VllmPolicyValue(on_this_machine(policy), policy_engine, grammars)
        return Engines(both, both)
    started = build_policy(policy, policy_engine, logprobs, shared=value != RANDOM, grammars=grammars)
    try:
        return Engines(started, build_value(value, value_engine, policy))
    except BaseException:
        started.close()
        raise


def build_policy(
    model: str, engine: config.Engine, logprobs: bool = True, shared: bool = False, grammars: bool = False
) -> VllmPolicy | ServedPolicy:
    """Start a vLLM engine that extends prefixes, or connect to the servers `engine.urls`, and wait until it is ready. Call
    `close()` to stop it.

    Args:
        model: folder, URL or hub id of a causal language model.
        engine: its configuration.
        logprobs, shared, grammars: as in `VllmPolicy`. Servers always accept grammars.
    """
    if engine.urls:
        from vgs_ray.engines.served import ServedPolicy

        return ServedPolicy(model, engine, logprobs)
    with fast_imports():
        from vgs_ray.engines.vllm import VllmPolicy

    return VllmPolicy(on_this_machine(model), engine, logprobs, shared, grammars)


def build_value(model: str, engine: config.Engine, policy: str = "") -> VllmValue | RandomValue | TranslatedValue:
    """Start a vLLM engine that scores prefixes, and wait until it is ready. Call `close()` to stop it.

    Args:
        model: folder, URL or hub id of a saved `ValueModel` or of a transformers classifier; `random` needs no engine.
        engine: its configuration.
        policy: folder, URL or hub id of the policy. If its vocabulary differs from the value model's, tokens are translated.
    """
    if model == RANDOM:
        return RandomValue()
    with fast_imports():
        from vgs_ray.engines.vllm import VllmValue
        from vgs_ray.engines.vocabularies import TranslatedValue, find_translation

    translation = find_translation(policy, model) if policy else None
    value = VllmValue(on_this_machine(model), engine)
    return TranslatedValue(value, translation) if translation else value
