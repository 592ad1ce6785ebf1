"""What the endpoint consists of on Ray Serve: search replicas, and the engines in their processes or in replicas of their own.

In: a recipe and a value model. Out: a Ray Serve application. The tree of a search lives in its search replica, so an engine's
replica that dies loses no search: its blocks are asked again of another one, with the same seeds.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from functools import partial
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve.config import AutoscalingConfig, RequestRouterConfig
from ray.serve.handle import DeploymentHandle

from pipelines.actors.engine_start import start_slot
from pipelines.serving.ray_metrics import RayMetrics
from pipelines.serving.remote_engines import RemotePolicy, RemoteValue
from vgs_ray.answers.judge import Judge
from vgs_ray.config import Engine, Recipe, Resources, Sampling
from vgs_ray.data.tokens import Tokens
from vgs_ray.engines import build_policy, build_value
from vgs_ray.engines.interface import Completion, Policy, Score, Value
from vgs_ray.engines.vocabularies import shared_vocabulary
from vgs_ray.models import model_path
from vgs_ray.prompts import load_tokenizer, prompt_tokens, response_text
from vgs_ray.search.flops import ModelSizes, model_sizes
from vgs_ray.serve.access import key_digests
from vgs_ray.serve.app import create_app
from vgs_ray.serve.searcher import Searcher

DRAIN_S = 60.0
"""How long searches that are under way may take when the endpoint ends."""
TOLD_S = 1.0
"""Between an engine's failure and the end of its process: its calls come back as failed, so that nobody repeats them."""
SPARE = 64
"""Requests that a search replica takes beside searches of one beam each and those that wait: metrics, health, what it refuses.

With them the replica itself decides when there are too many beams, and says 429 and when to come again; Ray Serve would say 503.
"""
SEARCH_CPUS = 0.1
"""CPUs that Ray reserves for a search replica without engines."""
MAX_QUEUED = 256
"""Requests that wait for a replica while there is none; more are refused with 503."""
STICKY = RequestRouterConfig(request_router_class="ray.serve.experimental.consistent_hash_router.ConsistentHashRouter")
"""Blocks of one search go where its prefixes are cached, and elsewhere only while that replica is full or gone."""
BUSY = 0.7
"""Share of an engine's batch that autoscaling keeps filled with beams."""
UPSCALE_S = 10.0
"""So long it has to be fuller than that before an engine is added. Loading one takes longer, so nothing is gained by Ray's 30."""

log = logging.getLogger(__name__)


class PolicyReplica:
    """A policy engine for the searches of all search replicas."""

    def __init__(self, model: str, engine: Engine, resources: Resources) -> None:
        with start_slot(resources):
            self.policy = build_policy(model, engine, logprobs=False)
        end_with(self.policy)

    async def extend(self, prefix: Tokens, sampling: Sampling, seed: int) -> Completion:
        """As `Policy.extend`. Cancelling the call aborts the sequence."""
        return await self.policy.extend(prefix, sampling, seed)

    async def held(self) -> tuple[int, float]:
        """Sequences that the engine holds, and the share of its cache's memory that they hold."""
        return self.policy.loop.unfinished, self.policy.kv_usage


class ValueReplica:
    """A value engine for the searches of all search replicas."""

    def __init__(self, model: str, engine: Engine, resources: Resources, policy: str) -> None:
        with start_slot(resources):
            self.value = build_value(model, engine, policy)
        end_with(self.value)

    async def score(self, tokens: Tokens) -> Score:
        """As `Value.score`. Cancelling the call aborts the sequence."""
        return await self.value.score(tokens)

    async def score_each(self, tokens: Tokens) -> list[Score]:
        """As `Value.score_each`."""
        return await self.value.score_each(tokens)


def end_with(*engines: Policy | Value) -> None:
    """Have this process end when one of its engines fails; its calls are told first.

    Ray Serve replaces a replica at once when its process is gone, and after half a minute when it is ill.
    """
    for engine in engines:
        loop = getattr(engine, "loop", None)  # a scorer that guesses has none
        if loop is not None:
            threading.Thread(target=_end_after, args=(loop.failed,), name="end with engine", daemon=True).start()


def _end_after(failed: threading.Event) -> None:
    failed.wait()
    log.error("an engine failed; the replica ends")
    time.sleep(TOLD_S)
    logging.shutdown()
    os._exit(1)


def engines(recipe: Recipe, value_folder: str) -> tuple[Policy, Value]:
    """Both engines of the endpoint, in this process."""
    model = model_path(recipe.policy.model)
    with start_slot(recipe.serve.resources):
        policy = build_policy(model, recipe.serve.policy_engine, logprobs=False)
        value = build_value(value_folder, recipe.serve.value_engine, model)
    end_with(policy, value)
    return policy, value


def searcher(recipe: Recipe, value_folder: str, policy: Policy, value: Value) -> Searcher:
    """What searches with these engines as the recipe says; `value_folder` is the value model behind `value`."""
    tokenizer = load_tokenizer(model_path(recipe.policy.model))
    return Searcher(
        policy=policy,
        value=value,
        encode=partial(prompt_tokens, tokenizer, instruction=recipe.instruction),
        tokenize=lambda text: tuple(tokenizer(text, add_special_tokens=False)["input_ids"]),
        decode=partial(response_text, tokenizer),
        judge=Judge(workers=1, timeout_s=recipe.judge.timeout_s, memory_gib=recipe.judge.memory_gib),
        context=min(recipe.serve.policy_engine.max_model_len, recipe.serve.value_engine.max_model_len),
        vocabulary=shared_vocabulary(recipe.policy.model, value_folder),
        sizes=_sizes(recipe.policy.model, value_folder),
    )


def _sizes(policy: str, value_folder: str) -> ModelSizes | None:
    """None where an engine serves a model whose FLOPs nobody counts: that is no reason not to serve it."""
    try:
        return model_sizes(policy, value_folder)
    except ValueError as error:
        log.warning("replies will have no FLOPs: %s", error)
        return None


class Endpoint:
    """A search replica: the HTTP application, with its own engines or with those of other replicas."""

    def __init__(
        self,
        recipe: Recipe,
        value_folder: str,
        keys: tuple[bytes, ...],
        policies: DeploymentHandle[PolicyReplica] | None = None,
        values: DeploymentHandle[ValueReplica] | None = None,
    ) -> None:
        settings = recipe.serve
        self.settings, self.keys = settings, keys
        if settings.log_requests:
            logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
            logging.getLogger("vgs_ray.serve").setLevel(logging.INFO)
        if policies and values:
            limit_s = settings.block_timeout_s
            remote = RemotePolicy(policies, limit_s), RemoteValue(values, limit_s)
            self.searcher = searcher(recipe, value_folder, *remote)
        else:
            self.searcher = searcher(recipe, value_folder, *engines(recipe, value_folder))

    def __serve_build_asgi_app__(self) -> FastAPI:
        return create_app(self.searcher, self.settings, RayMetrics(), self.keys)

    async def check_health(self) -> None:
        """Called by Ray Serve, which replaces a replica that raises. A slow engine is busy, not dead."""
        if self.settings.layout == "apart":
            return  # engines' replicas are watched themselves; their death is no fault of this one
        failed = {name: state for name, state in (await self.searcher.probe()).items() if state.startswith("failed")}
        if failed:
            raise RuntimeError(f"an engine is gone: {failed}")


def application(recipe: Recipe, value_folder: str) -> serve.Application:
    """The endpoint as a Ray Serve application."""
    settings = recipe.serve
    keys = key_digests()  # on a cluster, replicas have the environment of their node, not that of this process
    together = settings.layout == "together"
    search = serve.deployment(
        serve.ingress()(Endpoint),
        name="search",
        num_replicas=settings.resources.replicas if together else settings.search_replicas,
        max_ongoing_requests=settings.max_beams + settings.max_waiting + SPARE,
        max_queued_requests=MAX_QUEUED,
        max_constructor_retry_count=1,
        graceful_shutdown_wait_loop_s=0.5,
        graceful_shutdown_timeout_s=DRAIN_S,
        ray_actor_options=_options(settings.resources) if together else {"num_cpus": SEARCH_CPUS},
    )
    if together:
        return search.bind(recipe, value_folder, keys)
    model = model_path(recipe.policy.model)
    policies = _engine_deployment(
        PolicyReplica, "policy", settings.policy_engine, settings.policy_resources, settings.policy_max_replicas
    )
    values = _engine_deployment(
        ValueReplica, "value", settings.value_engine, settings.value_resources, settings.value_max_replicas
    )
    return search.bind(
        recipe,
        value_folder,
        keys,
        policies.bind(model, settings.policy_engine, settings.policy_resources),
        values.bind(value_folder, settings.value_engine, settings.value_resources, model),
    )


def _engine_deployment(replica: type, name: str, engine: Engine, resources: Resources, most: int) -> serve.Deployment:
    """Replicas with one engine each: `resources.replicas` of them, or up to `most` under load.

    An ongoing request is a beam in flight, so that is what autoscaling counts.
    """
    size: dict[str, Any] = {"num_replicas": resources.replicas}
    if most > resources.replicas:
        scaling = AutoscalingConfig(
            min_replicas=resources.replicas, max_replicas=most, target_ongoing_requests=BUSY * engine.max_num_seqs,
            upscale_delay_s=UPSCALE_S,
        )  # fmt: skip
        size = {"autoscaling_config": scaling}
    return serve.deployment(
        replica,
        name=name,
        max_ongoing_requests=engine.max_num_seqs,
        max_constructor_retry_count=1,
        request_router_config=STICKY,
        graceful_shutdown_wait_loop_s=0.5,
        graceful_shutdown_timeout_s=DRAIN_S,
        ray_actor_options=_options(resources),
        **size,
    )


def _options(resources: Resources) -> dict[str, Any]:
    """What Ray reserves for one replica."""
    return {"num_cpus": resources.num_cpus, "num_gpus": resources.num_gpus}
