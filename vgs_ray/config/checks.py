"""Whether a recipe can run: every field within its range, fields that fit together, names and folders that can be used.

In: a full recipe, from the command line or built in code. Out: nothing, or one line for each mistake. Nothing is started,
written or fetched.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pydantic import ConfigDict, ValidationError, create_model

from vgs_ray.config import Engine, Evaluate, Recipe, RollIn, Serve
from vgs_ray.config.lengths import length_faults
from vgs_ray.data.source_names import label_of
from vgs_ray.errors import UserError

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")
"""Also `s3:/bucket`, to which a path library shortens `s3://bucket`."""
_STRICT = ConfigDict(strict=True, revalidate_instances="always", allow_inf_nan=False)
# A standard dataclass has no configuration of its own, so it takes that of the model around it.
_RANGES: Any = create_model("Ranges", __config__=_STRICT, recipe=(Recipe, ...))


def check_recipe(recipe: Recipe) -> None:
    """Refuse a recipe that can't run.

    Raises:
        UserError: each mistake with the field, its value, the rule and the remedy, on one line.
    """
    if wrong := list(_ranges(recipe)) or list(_relations(recipe)):
        raise UserError("; ".join(wrong))


def _ranges(recipe: Recipe) -> Iterator[str]:
    """Fields of a wrong type or out of their range; `vgs_ray.config.ranges` has the ranges."""
    try:
        _RANGES.__pydantic_validator__.validate_python({"recipe": recipe})
    except ValidationError as error:
        for found in error.errors(include_url=False):
            if found["type"] == "too_short" and found["input"]:
                continue  # its items are wrong, and are named
            name = ".".join(map(str, found["loc"][1:]))
            rule = re.sub(r"^\w+ should ", "must ", found["msg"]).partition(" after validation")[0]
            yield f"{name} is {found['input']!r}; it {rule}: pass another {_option(name)}"


def _option(field: str) -> str:
    """The option that sets a field; an item of a list is set with the whole list."""
    return f"--{re.sub(r'[.][0-9]+$', '', field).replace('_', '-')}"


def _relations(recipe: Recipe) -> Iterator[str]:
    """Rules over more than one field, or over the text of one."""
    yield from _places(recipe)
    yield from _uploads(recipe)
    yield from _generators(recipe.roll_in)
    yield from _engines(recipe)
    yield from length_faults(recipe)
    yield from _evaluation(recipe.evaluate)
    yield from _endpoint(recipe.serve)
    if not (recipe.clean.answer_column or recipe.clean.solution_column):
        yield (
            "clean.answer_column and clean.solution_column are both empty; answers come from one of them: "
            "pass --clean.answer-column or --clean.solution-column"
        )
    if recipe.train.min_workers > recipe.train.workers:
        yield (
            f"train.min_workers is {recipe.train.min_workers} and train.workers is {recipe.train.workers}; the least can't be "
            "more than the most: lower --train.min-workers or raise --train.workers"
        )


def _places(recipe: Recipe) -> Iterator[str]:
    """Names and folders that this program makes or reads."""
    name = recipe.run_name or recipe.name
    if not NAME.fullmatch(name):
        yield (
            f"run_name is {name!r}; it names one folder, with at most 100 letters, digits, '_', '-' and '.', and no '.' "
            "or '-' at the start: pass another --run-name"
        )
    if URL.match(recipe.root) or not recipe.root.isprintable():
        yield (
            f"root is {recipe.root!r}; runs are kept in a folder of a POSIX file system that all nodes share, and object "
            "stores are not supported yet: pass --root FOLDER, such as /mnt/shared/runs"
        )
    folders = {
        "evaluate.benchmark_folder": recipe.evaluate.benchmark_folder,
        "import_vm.source": recipe.import_vm.source,
        "clean.source": recipe.clean.source,
        "evaluate.value_model": recipe.evaluate.value_model,
        "serve.value_model": recipe.serve.value_model,
        "roll_out.model": recipe.roll_out.model,
        "train.init": recipe.train.init,
        **{f"roll_in.generators.{i}.model": each.model for i, each in enumerate(recipe.roll_in.generators)},
        **{f"clean.exclude.{i}": each for i, each in enumerate(recipe.clean.exclude)},
        **{f"evaluate.benchmarks.{i}": each for i, each in enumerate(recipe.evaluate.benchmarks)},
    }
    for field, value in folders.items():
        if "://" in value:
            yield (
                f"{field} is {value!r}; URLs are not read: download it, and pass the local path or the Hugging Face id with "
                f"{_option(field)}"
            )


def _uploads(recipe: Recipe) -> Iterator[str]:
    """Names on Hugging Face that results go to; asked now, as training ends days later."""
    account, repository = recipe.export.hub, recipe.train.push_to
    if account and not NAME.fullmatch(account):
        yield f"export.hub is {account!r}; it is an account or organisation alone, such as my-team: pass another --export.hub"
    if repository and not re.fullmatch(rf"{NAME.pattern}/{NAME.pattern}", repository):
        yield f"train.push_to is {repository!r}; it is a repository such as my-team/my-model: pass another --train.push-to"


def _generators(config: RollIn) -> Iterator[str]:
    names = [generator.name for generator in config.generators]
    if len(set(names)) < len(names):
        yield (
            f"roll_in.generators have the names {', '.join(names)}; the ids of roll-ins are made from the names, so each must "
            "occur once: rename one with --roll-in.generators.N.name, or remove it from the recipe"
        )
    if names and not sum(generator.share for generator in config.generators) > 0:
        yield "roll_in.generators have only shares of 0; one of them must write: raise --roll-in.generators.N.share"


def engines_of(recipe: Recipe) -> dict[str, Engine]:
    """Every engine of a recipe, by its field."""
    own = {f"roll_in.generators.{i}": each.engine for i, each in enumerate(recipe.roll_in.generators)}
    return {
        "roll_in.engine": recipe.roll_in.engine,
        **{f"{name}.engine": engine for name, engine in own.items() if engine},
        "roll_out.engine": recipe.roll_out.engine,
        "evaluate.policy_engine": recipe.evaluate.policy_engine,
        "evaluate.value_engine": recipe.evaluate.value_engine,
        "serve.policy_engine": recipe.serve.policy_engine,
        "serve.value_engine": recipe.serve.value_engine,
    }


def _engines(recipe: Recipe) -> Iterator[str]:
    whole = {f"{name}.num_gpus": engine.num_gpus for name, engine in engines_of(recipe).items()}
    for name, gpus in (whole | {"train.gpus_per_worker": recipe.train.gpus_per_worker}).items():
        if gpus > 1 and gpus % 1:
            yield f"{name} is {gpus:g}; Ray gives a part of one GPU or whole ones: pass {_option(name)} {int(gpus)}"
    for name, engine in engines_of(recipe).items():
        if engine.num_gpus and engine.tensor_parallel_size > max(1, engine.num_gpus):
            yield (
                f"{name}.tensor_parallel_size is {engine.tensor_parallel_size} and {name}.num_gpus {engine.num_gpus:g}; an "
                f"engine that is split over GPUs needs all of them: pass {_option(name)}.num-gpus {engine.tensor_parallel_size}"
            )
    for name, policy, value in (
        ("evaluate", recipe.evaluate.policy_engine, recipe.evaluate.value_engine),
        ("serve", recipe.serve.policy_engine, recipe.serve.value_engine),
    ):
        taken = policy.gpu_memory_utilization + value.gpu_memory_utilization
        if 0 < policy.num_gpus < 1 and 0 < value.num_gpus <= 1 - policy.num_gpus and taken > 1:
            yield (
                f"{name}.policy_engine and {name}.value_engine share a GPU and take {taken:g} of its memory together "
                f"(gpu_memory_utilization); at most 1 is there: lower --{name}.policy-engine.gpu-memory-utilization"
            )


def _evaluation(config: Evaluate) -> Iterator[str]:
    labels = [label_of(name) for name in config.benchmarks]
    if len(set(labels)) < len(labels):
        yield (
            f"evaluate.benchmarks is {', '.join(config.benchmarks)}, which reports call {', '.join(labels)}; each name may "
            "occur once: remove or rename one with --evaluate.benchmarks"
        )
    most, width, reach = max(config.budgets), config.beam.keep * config.beam.branch, config.beam.budget
    if most > config.samples:
        yield (
            f"evaluate.budgets has {most} and evaluate.samples is {config.samples}; a budget needs so many samples: raise "
            "--evaluate.samples or lower --evaluate.budgets"
        )
    if wrong := [budget for budget in config.budgets if budget % width or budget > reach]:
        yield (
            f"evaluate.budgets has {', '.join(map(str, wrong))}; a budget of the guided search is a multiple of "
            f"evaluate.beam's keep * branch ({width}), up to keep * branch * groups ({reach}): change --evaluate.budgets or "
            "--evaluate.beam.groups"
        )
    if 0 < config.confidence <= 0.5:
        yield (
            f"evaluate.confidence is {config.confidence}; it must be over 0.5, or 0 for no adaptive votes: pass "
            "--evaluate.confidence 0.95"
        )
    names = [variant.name for variant in config.variants]
    if len(set(names)) < len(names):
        yield f"evaluate.variants have the names {', '.join(names)}; each may occur once: rename one in the recipe"


def _endpoint(config: Serve) -> Iterator[str]:
    if config.beam.budget > config.max_budget:
        yield (
            f"serve.beam has a budget of {config.beam.budget} (keep * branch * groups) and serve.max_budget is "
            f"{config.max_budget}; a request that names no search takes that beam: lower --serve.beam.groups or raise "
            "--serve.max-budget"
        )
    grown = (
        ("policy", config.policy_max_replicas, config.policy_engine),
        ("value", config.value_max_replicas, config.value_engine),
    )
    for name, most, engine in grown:
        if 0 < most < engine.replicas:
            yield (
                f"serve.{name}_max_replicas is {most} and serve.{name}_engine.replicas {engine.replicas}; it must be at least "
                f"as many, or 0 to keep their number: raise --serve.{name}-max-replicas"
            )
