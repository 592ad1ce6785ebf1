"""The endpoint as a Ray Serve application: search replicas, and engines in the same processes or in replicas of their own.

In: a recipe and a value model. Out: a Ray Serve application. A search replica holds the trees of its searches. If an engine
replica dies, its calls are repeated on another one with the same seeds, so no search is lost.
"""

from __future__ import annotations

import asyncio
import logging
import math
from dataclasses import replace
from functools import partial
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle

from pipelines.answer_probabilities import read_probabilities
from pipelines.placement import engine_options
from pipelines.serving.engine_replicas import (
    DRAIN_S,
    TARGET_LOAD,
    PolicyReplica,
    PolicyValueReplica,
    ValueReplica,
    engine_deployment,
    local_engines,
    number_of_replicas,
)
from pipelines.serving.ray_metrics import RayMetrics
from pipelines.serving.remote_engines import RemotePolicy, RemoteValue
from pipelines.serving.shared_admission import AdmissionReplica, SharedAdmission, admission_application
from vgs_ray.answers.judge import Judge
from vgs_ray.config import Recipe, Serve
from vgs_ray.engines.facts import cache_block
from vgs_ray.engines.interface import Policy, Value
from vgs_ray.engines.vocabularies import shared_vocabulary
from vgs_ray.models import OWN_HEAD, model_path
from vgs_ray.models.checks import evaluated_policy
from vgs_ray.prompts import delimiter_tokens, load_tokenizer, prompt_tokens, response_text
from vgs_ray.search.flops import ModelSizes, model_sizes
from vgs_ray.serve.access import key_digests
from vgs_ray.serve.app import create_app
from vgs_ray.serve.searcher import Searcher

SPARE_REQUESTS = 64
"""Requests that a search replica accepts in addition to its searches: metrics, health checks, and searches that it refuses.

They let the replica refuse searches itself, with 429 and a Retry-After header. Ray Serve would reply with 503.
"""
SEARCH_CPUS = 0.1
"""CPUs that Ray reserves for a search replica without engines."""
MAX_QUEUED = 256
"""Requests that wait while there is no replica. Further requests get 503."""

log = logging.getLogger(__name__)


class Endpoint:
    """A search replica: the HTTP application, with its own engines or with handles of engine replicas."""

    def __init__(
        self,
        recipe: Recipe,
        value_folder: str,
        keys: tuple[bytes, ...],
        policies: DeploymentHandle[PolicyReplica] | None = None,
        values: DeploymentHandle[Any] | None = None,
        admission: DeploymentHandle[AdmissionReplica] | None = None,
    ) -> None:
        settings = recipe.serve
        self.settings, self.keys = settings, keys
        self.admission = (
            SharedAdmission(admission, serve.get_replica_context().replica_id.unique_id) if admission else None
        )
        # Ray writes the standard error of a replica to a file worker-*.err.
        logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
        if settings.log_requests:
            logging.getLogger("vgs_ray.serve").setLevel(logging.INFO)
        if policies and values:
            limit_s = settings.block_timeout_s
            remote = RemotePolicy(policies, limit_s), RemoteValue(values, limit_s)
            self.searcher = build_searcher(recipe, value_folder, *remote)
        else:
            self.searcher = build_searcher(recipe, value_folder, *local_engines(recipe, value_folder))

    def __serve_build_asgi_app__(self) -> FastAPI:
        take = self.admission.take if self.admission else None
        return create_app(self.searcher, self.settings, RayMetrics(), self.keys, take)

    async def check_health(self) -> None:
        """Called by Ray Serve at the start and from then on; it replaces the replica if this raises. A slow engine counts as
        healthy."""
        if self.admission:
            self.admission.start()
        if self.settings.layout == "apart":
            return  # Ray Serve checks the engines' replicas themselves
        failed = {name: state for name, state in (await self.searcher.probe()).items() if state.startswith("failed")}
        if failed:
            raise RuntimeError(f"an engine is unavailable: {failed}")


def build_searcher(recipe: Recipe, value_folder: str, policy: Policy, value: Value) -> Searcher:
    """A searcher with these engines; `value_folder` is the model of `value`."""
    model, settings = evaluated_policy(recipe), recipe.serve
    tokenizer = load_tokenizer(model_path(model))
    engines = [settings.policy_engine] if value_folder == OWN_HEAD else [settings.policy_engine, settings.value_engine]
    return Searcher(
        policy=policy,
        value=value,
        encode=partial(prompt_tokens, tokenizer, instruction=recipe.instruction),
        tokenize=lambda text: tuple(tokenizer(text, add_special_tokens=False)["input_ids"]),
        decode=partial(response_text, tokenizer),
        judge=Judge(workers=1, timeout_s=recipe.judge.timeout_s, memory_gib=recipe.judge.memory_gib),
        context=min(engine.max_model_len for engine in engines),
        vocabulary=shared_vocabulary(model, value_folder),
        sizes=known_sizes(model, value_folder),
        block_ends=delimiter_tokens(tokenizer, settings.beam.delimiter),
        cache_block=partial(_cache_block, policy, value),
        probabilities=read_probabilities(recipe),
    )


async def _cache_block(policy: Policy, value: Value) -> int:
    if isinstance(policy, RemotePolicy) and isinstance(value, RemoteValue):
        return math.lcm(*await asyncio.gather(policy.cache_block(), value.cache_block()))
    return cache_block(policy, value)


def known_sizes(policy: str, value_folder: str) -> ModelSizes | None:
    """Sizes of both models for FLOPs; None for an architecture whose FLOPs cannot be counted."""
    try:
        return model_sizes(policy, value_folder)
    except ValueError as error:
        log.warning("replies will have no FLOPs: %s", error)
        return None


def application(recipe: Recipe, value_folder: str) -> serve.Application:
    """The Ray Serve application of a recipe."""
    settings = recipe.serve
    keys = key_digests()  # on a cluster, replicas have the environment of their node, not of this process
    together = settings.layout == "together"
    engines = (None, None) if together else engine_applications(recipe, value_folder)
    admission = admission_application(settings) if most_search_replicas(settings) > 1 else None
    return search_deployment(Endpoint, settings).bind(recipe, value_folder, keys, *engines, admission)


def most_search_replicas(settings: Serve) -> int:
    """The number of search replicas under load."""
    fixed = settings.resources.replicas if settings.layout == "together" else settings.search_replicas
    return max(fixed, settings.search_max_replicas)


def search_deployment(endpoint: type, settings: Serve) -> serve.Deployment:
    """The search replicas. Each search is one ongoing request of Ray Serve, also while it waits in the queue."""
    together = settings.layout == "together"
    # Without engines, search replicas run where the policies do. Their searches are lost with the node.
    resources = (
        settings.resources if together else replace(settings.policy_resources, num_cpus=SEARCH_CPUS, num_gpus=0.0)
    )
    fixed = settings.resources.replicas if together else settings.search_replicas
    searches_of_an_engine = settings.policy_engine.max_num_seqs / settings.beam.budget
    return serve.deployment(
        serve.ingress()(endpoint),
        name="search",
        max_ongoing_requests=settings.max_beams + settings.max_waiting + SPARE_REQUESTS,
        max_queued_requests=MAX_QUEUED,
        max_constructor_retry_count=1,
        graceful_shutdown_wait_loop_s=0.5,
        graceful_shutdown_timeout_s=DRAIN_S,
        ray_actor_options=engine_options(resources),
        **number_of_replicas(fixed, settings.search_max_replicas, max(TARGET_LOAD * searches_of_an_engine, 1.0)),
    )


def engine_applications(recipe: Recipe, value_folder: str) -> tuple[serve.Application, serve.Application]:
    """The replicas of the policy's engine and those of the value's; the same ones if the policy has a value head."""
    settings, model = recipe.serve, model_path(evaluated_policy(recipe))
    one, logprobs = value_folder == OWN_HEAD, settings.beam.needs_logprobs
    policies = engine_deployment(
        PolicyValueReplica if one else PolicyReplica, "policy", settings.policy_engine, settings.policy_resources,
        settings.policy_max_replicas,
    ).bind(model, settings.policy_engine, settings.policy_resources, *(() if one else (logprobs,)))  # fmt: skip
    if one:
        return policies, policies
    values = engine_deployment(
        ValueReplica, "value", settings.value_engine, settings.value_resources, settings.value_max_replicas
    ).bind(value_folder, settings.value_engine, settings.value_resources, model)
    return policies, values
