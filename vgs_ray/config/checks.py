"""Whether a recipe can run: fields within their ranges, fields that fit together, valid names and folders.

In: a full recipe, from the command line or built in code. Out: nothing, or one line for each mistake. Nothing is started,
written or downloaded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pydantic import ConfigDict, ValidationError, create_model

from vgs_ray.config import Evaluate, Recipe, RollIn, Serve, Tune
from vgs_ray.config.lengths import length_faults
from vgs_ray.config.placement import placement_faults
from vgs_ray.data.source_names import benchmark_label
from vgs_ray.data.storage import storage_path
from vgs_ray.errors import UserError, option_name

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_STRICT = ConfigDict(strict=True, revalidate_instances="always", allow_inf_nan=False)
# A standard dataclass has no configuration of its own, so it takes that of the model around it.
_RANGES: Any = create_model("Ranges", __config__=_STRICT, recipe=(Recipe, ...))


def check_recipe(recipe: Recipe) -> None:
    """Refuse a recipe that can't run.

    Raises:
        UserError: every mistake with the field, its value, the rule and the remedy, on one line.
    """
    if faults := list(_ranges(recipe)) or list(_relations(recipe)):
        raise UserError("; ".join(faults))


def _ranges(recipe: Recipe) -> Iterator[str]:
    """Fields of a wrong type or out of their range, as `vgs_ray.config.ranges` defines them."""
    try:
        _RANGES.__pydantic_validator__.validate_python({"recipe": recipe})
    except ValidationError as error:
        for fault in error.errors(include_url=False):
            if fault["type"] == "too_short" and fault["input"]:
                continue  # an item is wrong, and is named by itself
            name = ".".join(map(str, fault["loc"][1:]))
            rule = re.sub(r"^\w+ should ", "must ", fault["msg"]).partition(" after validation")[0]
            yield f"{name} is {fault['input']!r}; it {rule}: pass another {option_name(name)}"


def _relations(recipe: Recipe) -> Iterator[str]:
    """Rules over more than one field, or over the text of one."""
    yield from _places(recipe)
    yield from _uploads(recipe)
    yield from _generators(recipe.roll_in)
    yield from _labels(recipe)
    yield from _shared_layers(recipe)
    yield from placement_faults(recipe)
    yield from length_faults(recipe)
    yield from _evaluation(recipe.evaluate)
    yield from _endpoint(recipe.serve)
    if not (recipe.clean.answer_column or recipe.clean.solution_column):
        yield (
            "clean.answer_column and clean.solution_column are both empty; answers are read from one of them: "
            "pass --clean.answer-column or --clean.solution-column"
        )
    yield from _tuning(recipe.tune)
    if recipe.trees.search.back_up != "prefix":
        yield (
            f"trees.search.back_up is {recipe.trees.search.back_up!r}; only 'prefix' backs up the outcomes of answers: pass "
            "--trees.search.back-up prefix"
        )
    if recipe.train.activations == "budget" and not recipe.train.compile:
        yield (
            "train.activations is 'budget' and train.compile is False; only the compiler chooses what to keep: pass "
            "--train.compile, or --train.activations checkpoint"
        )
    if recipe.train.min_workers > recipe.train.workers:
        yield (
            f"train.min_workers is {recipe.train.min_workers} and train.workers is {recipe.train.workers}; the minimum can't be "
            "larger than the number of workers: lower --train.min-workers or raise --train.workers"
        )


def _places(recipe: Recipe) -> Iterator[str]:
    """Names and folders that the stages make or read."""
    name = recipe.run_name or recipe.name
    if not NAME.fullmatch(name):
        yield (
            f"run_name is {name!r}; it names one folder, with at most 100 letters, digits, '_', '-' and '.', and no '.' "
            "or '-' at the start: pass another --run-name"
        )
    if recipe.base_stages and (not NAME.fullmatch(recipe.base_run) or recipe.base_run == name):
        yield (
            f"base_run is {recipe.base_run!r} and run_name is {name!r}; stages {', '.join(recipe.base_stages)} are taken from "
            "another run in the same root: pass another --base-run or --run-name"
        )
    try:
        storage_path(recipe.root)
    except UserError as error:
        yield f"root: {error}"
    if not recipe.root.isprintable():
        yield f"root is {recipe.root!r}, which has a character that can't be printed: pass another --root"
    sources = {
        "evaluate.benchmark_folder": recipe.evaluate.benchmark_folder,
        "import_vm.source": recipe.import_vm.source,
        "clean.source": recipe.clean.source,
        **{f"clean.exclude.{i}": each for i, each in enumerate(recipe.clean.exclude)},
        **{f"evaluate.benchmarks.{i}": each for i, each in enumerate(recipe.evaluate.benchmarks)},
    }
    for stage in ("roll_in", "train", "trees", "tune", "evaluate", "serve"):
        sources |= recipe.models(stage)
    for field, value in sources.items():
        try:
            storage_path(value)
        except UserError as error:
            yield f"{field} is {value!r}: {error} with {option_name(field)}, or a Hugging Face id"


def _uploads(recipe: Recipe) -> Iterator[str]:
    """Names on Hugging Face to push to; checked early, because training ends days later."""
    account, repository = recipe.export.hub, recipe.train.push_to
    if account and not NAME.fullmatch(account):
        yield f"export.hub is {account!r}; it is an account or organization, such as my-team: pass another --export.hub"
    if repository and not re.fullmatch(rf"{NAME.pattern}/{NAME.pattern}", repository):
        yield f"train.push_to is {repository!r}; it is a repository such as my-team/my-model: pass another --train.push-to"


def _generators(config: RollIn) -> Iterator[str]:
    names = [generator.name for generator in config.generators]
    if len(set(names)) < len(names):
        yield (
            f"roll_in.generators have the names {', '.join(names)}; the ids of roll-ins contain the names, so each must "
            "occur once: rename one with --roll-in.generators.N.name, or remove it from the recipe"
        )
    for index, generator in enumerate(config.generators):
        if bool(generator.search) != bool(generator.value_model):
            yield (
                f"roll_in.generators.{index} has search {generator.search} and value_model {generator.value_model!r}; a guided "
                "search needs both, and a sample neither: set both or neither in the recipe"
            )
    if names and not sum(generator.share for generator in config.generators) > 0:
        yield "roll_in.generators have only shares of 0; one must be positive: raise --roll-in.generators.N.share"


def _labels(recipe: Recipe) -> Iterator[str]:
    """Roll-outs and their labels."""
    if not recipe.roll_out.cuts and not recipe.roll_out.whole:
        yield (
            "roll_out.cuts is 0 and roll_out.whole is False; stage roll_out would write no row: raise --roll-out.cuts or pass "
            "--roll-out.whole"
        )
    if recipe.train.loss in ("soft", "mse") and recipe.label.kind == "outcome":
        yield (
            f"train.loss is {recipe.train.loss} and label.kind is outcome; that loss needs a value for each token, and this kind "
            "has none: pass --label.kind token_values or --train.loss outcome"
        )
    if recipe.label.kind == "step_values" and not recipe.label.delimiter:
        yield (
            "label.kind is step_values and label.delimiter is empty; steps end at a delimiter: pass --label.delimiter TEXT"
        )


def _tuning(config: Tune) -> Iterator[str]:
    at_once = config.workers * config.micro_batch
    if config.batch_size % at_once:
        yield (
            f"tune.batch_size is {config.batch_size}; it must be a multiple of tune.workers * tune.micro_batch "
            f"({config.workers} * {config.micro_batch}): change --tune.micro-batch or --tune.batch-size"
        )
    elif config.paths % (config.batch_size // config.micro_batch):
        yield (
            f"tune.paths is {config.paths}; each forward pass of a step has as many, so it must be a multiple of "
            f"tune.batch_size / tune.micro_batch ({config.batch_size} / {config.micro_batch}), or 0: change --tune.paths or "
            "--tune.micro-batch"
        )
    if config.bf16 and not config.gpus_per_worker:
        yield (
            "tune.bf16 is True and tune.gpus_per_worker is 0; bfloat16 needs a GPU: pass --tune.no-bf16 or "
            "--tune.gpus-per-worker 1"
        )


def _shared_layers(recipe: Recipe) -> Iterator[str]:
    """A value model that shares its lower layers with the policy."""
    config, policy = recipe.train, recipe.policy.model
    if not config.share_policy:
        return
    if not config.trained_layers:
        yield (
            "train.share_policy is set and train.trained_layers is 0, which trains all layers; the others are shared with the "
            "policy: pass --train.trained-layers 1 or more"
        )
    if config.init != policy:
        yield (
            f"train.share_policy is set, train.init is {config.init!r} and policy.model {policy!r}; a value model that shares "
            f"layers starts from the policy: pass --train.init {policy}"
        )


def _evaluation(config: Evaluate) -> Iterator[str]:
    labels = [benchmark_label(name) for name in config.benchmarks]
    if len(set(labels)) < len(labels):
        yield (
            f"evaluate.benchmarks is {', '.join(config.benchmarks)}, which reports call {', '.join(labels)}; each name may "
            "occur once: remove or rename one with --evaluate.benchmarks"
        )
    most, width, reach = max(config.budgets), config.beam.width, config.beam.budget
    if most > config.samples:
        yield (
            f"evaluate.budgets has {most} and evaluate.samples is {config.samples}; a budget needs that many samples: raise "
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
            f"{config.max_budget}; a request that sets no search uses that beam: lower --serve.beam.groups or raise "
            "--serve.max-budget"
        )
    limits = (
        ("policy", config.policy_max_replicas, config.policy_resources.replicas),
        ("value", config.value_max_replicas, config.value_resources.replicas),
    )
    for name, most, least in limits:
        if 0 < most < least:
            yield (
                f"serve.{name}_max_replicas is {most} and serve.{name}_resources.replicas is {least}; the maximum must not be "
                f"smaller, or 0 for no autoscaling: raise --serve.{name}-max-replicas"
            )
