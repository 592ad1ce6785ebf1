"""Engines and the resources of the actors that hold them: GPUs that suffice, and fields that the endpoint's layout reads."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from vgs_ray.config.node_labels import label_fault
from vgs_ray.errors import UserError, option_name

if TYPE_CHECKING:
    from vgs_ray.config import Evaluate, Recipe, RollIn, Serve, Trees

LAYOUT_FIELDS = {
    "together": ("resources",),
    "apart": (
        "search_replicas", "policy_resources", "value_resources", "policy_max_replicas", "value_max_replicas", "block_timeout_s",
    ),
}  # fmt: skip
"""Fields of `serve` that only one layout reads."""


def check_ignored_options(base: Recipe, recipe: Recipe) -> None:
    """Refuse options that the layout of the endpoint, the choice of the value model or the generators of roll-ins ignore.

    A recipe itself may have values for all of them.

    Args:
        base: the recipe before the options of the command line.
        recipe: the recipe with them.

    Raises:
        UserError: an option that only the other layout, a separate value model, or a generator without values of its own reads.
    """
    layout = recipe.serve.layout
    other = "together" if layout == "apart" else "apart"
    for name in LAYOUT_FIELDS[other]:
        if getattr(recipe.serve, name) != getattr(base.serve, name):
            own = ", ".join(f"serve.{field}" for field in LAYOUT_FIELDS[layout])
            raise UserError(
                f"serve.{name} is set, and serve.layout {layout!r} ignores it: set {own} instead, or pass --serve.layout {other}"
            )
    for stage in ("trees", "evaluate", "serve"):
        _check_value_fields(stage, base, recipe)
    _check_generator_fields(base.roll_in, recipe.roll_in)


def _check_value_fields(stage: str, base: Recipe, recipe: Recipe) -> None:
    """Refuse options of the value's engine if the policy's engine returns the values."""
    before, now = getattr(base, stage), getattr(recipe, stage)
    for name in ("value_engine", "value_resources", "value_max_replicas"):
        if recipe.uses_own_head(stage) and hasattr(now, name) and getattr(now, name) != getattr(before, name):
            raise UserError(
                f"{stage}.{name} is set, and the engine of the policy returns the values ({stage}.value_model): leave it out, or "
                f"pass a value model with {option_name(f'{stage}.value_model')}"
            )


def _check_generator_fields(base: RollIn, config: RollIn) -> None:
    """Refuse options for all generators of roll-ins if each has values of its own."""
    for name in ("engine", "resources"):
        own = all(getattr(generator, name) for generator in config.generators)
        if own and getattr(config, name) != getattr(base, name):
            raise UserError(
                f"roll_in.{name} is set, and every generator of the recipe has its own: set those, such as "
                f"{option_name(f'roll_in.generators.0.{name}')}.FIELD"
            )


def placement_faults(recipe: Recipe) -> Iterator[str]:
    """Mistakes in the GPUs and nodes of engines and workers, each with the value, the rule and the remedy."""
    pairs = list(_pairs(recipe))
    for name in dict.fromkeys(
        [*(f"{resources}.nodes" for _, resources in pairs), "train.nodes", "tune.nodes", "cpu_nodes"]
    ):
        if fault := label_fault(name, _value(recipe, name)):
            yield fault
    for name in dict.fromkeys(
        [*(f"{resources}.num_gpus" for _, resources in pairs), "train.gpus_per_worker", "tune.gpus_per_worker"]
    ):
        gpus = _value(recipe, name)
        if gpus > 1 and gpus % 1:
            yield f"{name} is {gpus:g}; Ray reserves a part of one GPU or whole GPUs: pass {option_name(name)} {int(gpus)}"
    for engine, resources in pairs:
        split, gpus = _value(recipe, f"{engine}.tensor_parallel_size"), _value(recipe, f"{resources}.num_gpus")
        if gpus and split > max(1, gpus):
            yield (
                f"{engine}.tensor_parallel_size is {split} and {resources}.num_gpus is {gpus:g}; an engine that is split over "
                f"GPUs needs all of them: pass {option_name(resources)}.num-gpus {split}"
            )
    for engine, resources in pairs:
        yield from _server_faults(recipe, engine, resources)
    if not recipe.uses_own_head("trees"):
        yield from _shared_memory("trees", recipe.trees, recipe.trees.resources.num_gpus > 0)
    if not recipe.uses_own_head("evaluate"):
        yield from _shared_memory("evaluate", recipe.evaluate, recipe.evaluate.resources.num_gpus > 0)
    if not recipe.uses_own_head("serve"):
        yield from _shared_memory("serve", recipe.serve, _share_a_gpu(recipe.serve))


def _server_faults(recipe: Recipe, engine: str, resources: str) -> Iterator[str]:
    """Mistakes in an engine that stands for servers."""
    urls, option = _value(recipe, f"{engine}.urls"), f"{option_name(engine)}.urls"
    if not urls:
        return
    if wrong := [url for url in urls if not re.fullmatch(r"https?://[^\s/]+(/\S*)?", url)]:
        yield f"{engine}.urls has {wrong[0]!r}; an address is http://HOST:PORT or https://HOST: change {option}"
    if engine.endswith("value_engine"):
        yield f"{engine}.urls is {', '.join(urls)}; a value model needs an engine of its own: leave {option} out"
    elif engine.endswith("policy_engine") and recipe.uses_own_head(engine.partition(".")[0]):
        yield f"{engine}.urls is {', '.join(urls)}; no server returns the values of the policy's own head: leave {option} out"
    elif (gpus := _value(recipe, f"{resources}.num_gpus")) and not engine.endswith("policy_engine"):
        yield f"{resources}.num_gpus is {gpus:g}, and {engine}.urls needs no GPU: pass {option_name(resources)}.num-gpus 0"
    if engine == "serve.policy_engine" and recipe.serve.layout == "apart":
        yield f"{engine}.urls is {', '.join(urls)} and serve.layout is 'apart': pass --serve.layout together"


def _pairs(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """The fields of each engine and of the resources of its actor."""
    yield "roll_in.engine", "roll_in.resources"
    yield "roll_out.engine", "roll_out.resources"
    for index, generator in enumerate(recipe.roll_in.generators):
        own = f"roll_in.generators.{index}"
        yield (
            f"{own}.engine" if generator.engine else "roll_in.engine",
            f"{own}.resources" if generator.resources else "roll_in.resources",
        )
        if generator.value_engine:
            yield f"{own}.value_engine", f"{own}.resources" if generator.resources else "roll_in.resources"
    for kind in ("policy", "value"):
        yield f"trees.{kind}_engine", "trees.resources"
        yield f"evaluate.{kind}_engine", "evaluate.resources"
        yield (
            f"serve.{kind}_engine",
            "serve.resources" if recipe.serve.layout == "together" else f"serve.{kind}_resources",
        )


def _value(recipe: Recipe, name: str) -> Any:
    """The value of a field such as `roll_in.generators.0.engine.threads`."""
    value: Any = recipe
    for part in name.split("."):
        value = value[int(part)] if part.isdecimal() else getattr(value, part)
    return value


def _share_a_gpu(config: Serve) -> bool:
    """Whether the policy and the value engine of the endpoint use the same GPU."""
    if config.layout == "together":
        return config.resources.num_gpus > 0
    policy, value = config.policy_resources.num_gpus, config.value_resources.num_gpus
    return 0 < policy < 1 and 0 < value <= 1 - policy


def _shared_memory(name: str, config: Trees | Evaluate | Serve, shared: bool) -> Iterator[str]:
    total = config.policy_engine.gpu_memory_utilization + config.value_engine.gpu_memory_utilization
    if shared and total > 1:
        yield (
            f"{name}.policy_engine and {name}.value_engine share a GPU and use {total:g} of its memory (gpu_memory_utilization); "
            f"the sum must be at most 1: lower --{name}.policy-engine.gpu-memory-utilization"
        )
