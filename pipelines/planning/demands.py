"""What each stage of a recipe asks of a cluster: engines, workers and tasks that run at the same time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from pipelines.clean import CHECK_CPUS
from pipelines.placement import DATA_CPUS
from pipelines.roll_in import assign_generators
from pipelines.verify import JUDGE_CPUS
from vgs_ray.config import Engine, Generator, Recipe, Resources, Train, Tune
from vgs_ray.config.node_labels import nodes_of
from vgs_ray.config.train import shard_count
from vgs_ray.evaluate.engine_memory import GIB, gpu_gib
from vgs_ray.evaluate.placement import Demand, Group, candidates
from vgs_ray.models import RANDOM
from vgs_ray.value.training.memory import Activations, training_bytes, value_model_weights

ConfigOf = Callable[[str], dict[str, Any]]
"""Gives the values of a model's config.json."""


def demands_of(recipe: Recipe, stage: str, config_of: ConfigOf, groups: Sequence[Group]) -> list[Demand]:
    """The demands of a stage on a cluster with these groups, the main ones first."""
    tasks = Demand(f"tasks of stage {stage}", "", 1, DATA_CPUS, nodes=nodes_of(recipe, stage))
    if stage == "serve":
        return _endpoint(recipe, config_of)
    if stage == "train":
        return [_training(recipe.train, config_of, groups)]
    if stage == "tune":
        return [_workers(stage, recipe.tune)]
    if stage == "roll_in":
        return [*(generator_demand(recipe, index, config_of) for index in used_generators(recipe)), tasks]
    if stage == "roll_out":
        engines = [(recipe.policy.model, recipe.roll_out.engine)]
        return [_actors("roll_out.resources", recipe.roll_out.resources, engines, recipe, config_of), tasks]
    if stage in ("trees", "evaluate"):
        resources = getattr(recipe, stage).resources
        return [_actors(f"{stage}.resources", resources, _engines(recipe, stage), recipe, config_of), tasks]
    if stage in ("clean", "verify"):
        field, cpus = f"{stage}.workers", CHECK_CPUS if stage == "clean" else JUDGE_CPUS
        return [Demand(field, field, getattr(recipe, stage).workers, cpus, nodes=recipe.cpu_nodes), tasks]
    return [tasks]


def _training(config: Train, config_of: ConfigOf, groups: Sequence[Group]) -> Demand:
    """The workers of stage train. Their memory depends on how many of them share a copy of the model: by default, those of a
    node."""
    workers = _workers("train", config)
    if not config.gpus_per_worker:
        return workers
    on_nodes: set[int] = set()
    for group in candidates(groups, workers)[1]:
        most = min(int(group.gpus // config.gpus_per_worker), config.workers)
        on_nodes |= {most, config.workers % most} if most else set()
    shared = shard_count(config.shard_size, config.workers, math.gcd(*on_nodes))
    model = config_of(config.init)
    kind: Activations = "checkpoint" if config.activations == "auto" else config.activations
    needed = training_bytes(model, value_model_weights(model, config.trained_layers), config, shared, kind)
    return workers._replace(gpu_gib=needed / GIB)


def used_generators(recipe: Recipe) -> dict[int, int]:
    """The number of roll-ins of a problem that each generator samples, by its index, if it samples any."""
    generators = recipe.roll_in.generators
    assigned = assign_generators(generators, recipe.roll_in.per_problem)
    return {index: assigned.count(each) for index, each in enumerate(generators) if each in assigned}


def generator_demand(recipe: Recipe, index: int, config_of: ConfigOf) -> Demand:
    """The engines of one generator of roll-ins."""
    config = recipe.roll_in
    generator: Generator = config.generators[index]
    engine = generator.engine or config.engine
    engines = [(generator.model, engine)]
    if generator.search:
        engines.append((generator.value_model, generator.value_engine or engine))
    field = f"roll_in.generators.{index}.resources" if generator.resources else "roll_in.resources"
    return _actors(field, generator.resources or config.resources, engines, recipe, config_of)


def _engines(recipe: Recipe, stage: str) -> list[tuple[str, Engine]]:
    """The engine of the policy and, if there is one, that of a separate value model, each with its model."""
    config = getattr(recipe, stage)
    value = config.value_model or ("" if stage == "trees" else recipe.train.init)
    engines = [(recipe.policy.model, config.policy_engine)]
    if value not in ("", RANDOM) and not recipe.uses_own_head(stage):
        engines.append((value, config.value_engine))
    return engines


def _endpoint(recipe: Recipe, config_of: ConfigOf) -> list[Demand]:
    """The replicas with engines. Search replicas need little, and are where the policies are."""
    config, engines = recipe.serve, _engines(recipe, "serve")
    if config.layout == "together":
        return [_actors("serve.resources", config.resources, engines, recipe, config_of)]
    parts = zip((("policy", config.policy_resources), ("value", config.value_resources)), engines, strict=False)
    return [_actors(f"serve.{kind}_resources", part, [engine], recipe, config_of) for (kind, part), engine in parts]


def _actors(
    field: str, resources: Resources, engines: list[tuple[str, Engine]], recipe: Recipe, config_of: ConfigOf
) -> Demand:
    """Actors with these engines, which share their GPUs."""
    gib = 0.0
    if resources.num_gpus:
        gib = max(gpu_gib(config_of(model), engine, recipe.plan.sequences) for model, engine in engines)
    number, cpus, gpus = resources.replicas, resources.num_cpus, resources.num_gpus
    return Demand(field, f"{field}.replicas", number, cpus, gpus, resources.nodes, gib)


def _workers(stage: str, config: Train | Tune) -> Demand:
    return Demand(
        stage, f"{stage}.workers", config.workers, config.cpus_per_worker, config.gpus_per_worker, config.nodes
    )
