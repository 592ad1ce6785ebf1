"""Engines of the endpoint: in the process of a search replica, or in Ray Serve replicas of their own."""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import Any

from ray import serve
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy, RequestRouterConfig

from pipelines.actors.engine_start import exit_if_stuck, start_slot
from pipelines.placement import engine_options
from pipelines.serving.call_batches import BatchReplica, replicas_for_calls
from vgs_ray.config import Engine, Recipe, Resources, Sampling
from vgs_ray.data.tokens import Tokens
from vgs_ray.engines import build_engines, build_policy, build_value
from vgs_ray.engines.facts import cache_block
from vgs_ray.engines.interface import Completion, Policy, Score, Value
from vgs_ray.models import OWN_HEAD, model_path
from vgs_ray.models.checks import evaluated_policy

DRAIN_S = 60.0
"""Time that running searches have to finish when the endpoint ends."""
EXIT_DELAY_S = 1.0
"""Time between an engine's failure and the exit of its process, in which its calls receive the error."""
STICKY_ROUTER = RequestRouterConfig(
    request_router_class="ray.serve.experimental.consistent_hash_router.ConsistentHashRouter"
)
"""Sends the blocks of one search to the replica that caches its prefixes, unless that replica is full or gone."""
TARGET_LOAD = 0.7
"""Share of an engine's batch that autoscaling keeps filled."""
UPSCALE_S = 10.0
"""Time above the target load until a replica is added. Ray's default of 30 s would only delay it: loading an engine is slow."""

log = logging.getLogger(__name__)


class PolicyReplica(BatchReplica):
    """A policy engine, which all search replicas share."""

    def __init__(self, model: str, engine: Engine, resources: Resources, logprobs: bool) -> None:
        super().__init__(engine.max_num_seqs)
        with start_slot(resources):
            self.policy: Any = build_policy(model, engine, logprobs, grammars=True)
        exit_on_failure(self.policy)
        exit_if_stuck(self.policy)

    async def extend(self, prefix: Tokens, sampling: Sampling, seed: int) -> Completion:
        """As `Policy.extend`. Cancelling the call aborts the sequence."""
        return await self.policy.extend(prefix, sampling, seed)

    async def policy_cache_block(self) -> int:
        """Number of tokens in a block of the engine's cache."""
        return cache_block(self.policy)

    async def load(self) -> tuple[int, float]:
        """Number of unfinished sequences, and the used share of the KV cache."""
        return self.policy.loop.unfinished, self.policy.kv_usage


class ValueReplica(BatchReplica):
    """A value engine, which all search replicas share."""

    def __init__(self, model: str, engine: Engine, resources: Resources, policy: str) -> None:
        super().__init__(engine.max_num_seqs)
        with start_slot(resources):
            self.value: Any = build_value(model, engine, policy)
        exit_on_failure(self.value)
        exit_if_stuck(self.value)

    async def score(self, tokens: Tokens) -> Score:
        """As `Value.score`. Cancelling the call aborts the sequence."""
        return await self.value.score(tokens)

    async def score_each(self, tokens: Tokens) -> list[Score]:
        """As `Value.score_each`."""
        return await self.value.score_each(tokens)

    async def value_cache_block(self) -> int:
        """Number of tokens in a block of the engine's cache."""
        return cache_block(self.value)


class PolicyValueReplica(PolicyReplica, ValueReplica):
    """An engine of a policy with a value head, which all search replicas share."""

    def __init__(self, model: str, engine: Engine, resources: Resources) -> None:
        BatchReplica.__init__(self, engine.max_num_seqs)
        with start_slot(resources):
            self.policy, self.value = build_engines(model, OWN_HEAD, engine, engine, grammars=True)
        exit_on_failure(self.policy)
        exit_if_stuck(self.policy)


def engine_deployment(
    replica: type, name: str, engine: Engine, resources: Resources, max_replicas: int
) -> serve.Deployment:
    """Replicas with one engine each: `resources.replicas` of them, or up to `max_replicas` under load.

    Autoscaling counts calls, that is beams in flight, not requests of Ray Serve, which are batches of them.
    """
    scaling = AutoscalingPolicy(policy_function=replicas_for_calls)
    return serve.deployment(
        replica,
        name=name,
        max_ongoing_requests=engine.max_num_seqs,
        max_constructor_retry_count=1,
        request_router_config=STICKY_ROUTER,
        graceful_shutdown_wait_loop_s=0.5,
        graceful_shutdown_timeout_s=DRAIN_S,
        ray_actor_options=engine_options(resources),
        **number_of_replicas(resources.replicas, max_replicas, TARGET_LOAD * engine.max_num_seqs, policy=scaling),
    )


def number_of_replicas(replicas: int, max_replicas: int, target: float, **others: Any) -> dict[str, Any]:
    """Options of a deployment with `replicas` replicas, or up to `max_replicas` of them under load.

    Args:
        replicas: their number without load.
        max_replicas: autoscaling is off unless this is larger.
        target: ongoing requests of each replica that autoscaling aims at.
        others: other settings of `AutoscalingConfig`.
    """
    if max_replicas <= replicas:
        return {"num_replicas": replicas}
    scaling = AutoscalingConfig(
        min_replicas=replicas, max_replicas=max_replicas, target_ongoing_requests=target, upscale_delay_s=UPSCALE_S,
        **others,
    )  # fmt: skip
    return {"autoscaling_config": scaling}


def local_engines(recipe: Recipe, value_folder: str) -> tuple[Policy, Value]:
    """The engines of policy and value in this process, or the one that is both."""
    model, settings = model_path(evaluated_policy(recipe)), recipe.serve
    with start_slot(settings.resources):
        engines = build_engines(
            model, value_folder, settings.policy_engine, settings.value_engine, logprobs=settings.beam.needs_logprobs,
            grammars=True,
        )  # fmt: skip
    exit_on_failure(*engines)
    exit_if_stuck(*engines)
    return engines


def exit_on_failure(*engines: Policy | Value) -> None:
    """Exit this process after one of its engines fails.

    Ray Serve replaces a replica at once if its process exits, but takes half a minute to notice an unhealthy one.
    """
    for engine in engines:
        loop = getattr(engine, "loop", None)  # a random scorer has none
        if loop is not None:
            threading.Thread(target=_exit_after, args=(loop.failed,), name="exit on failure", daemon=True).start()


def _exit_after(failed: threading.Event) -> None:
    failed.wait()
    log.error("an engine failed; its replica exits")
    time.sleep(EXIT_DELAY_S)
    logging.shutdown()
    os._exit(1)
