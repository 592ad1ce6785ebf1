"""plan: estimate the cost of each stage before the run. The stages of VGS are compared with the run of arXiv 2505.17373.

It starts nothing and writes nothing. Mean lengths and shares come from `--plan.*` options, else from the rows in the recipe's run
folder, else from defaults; the output names the origin of each.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from obstore.exceptions import BaseError
from tabulate import tabulate
from tqdm import tqdm

from pipelines.cli import cli
from pipelines.planning.assumptions import Assumed, assumptions, bytes_per_row, chosen, counts_of, tree_assumptions
from pipelines.planning.cluster_file import read_cluster
from pipelines.planning.fit import fit, fit_table, misfit_lines, note_lines
from pipelines.roll_in import assign_generators
from vgs_ray.cleaning.raw_rows import SANDBOX_ROWS
from vgs_ray.config import Engine, Evaluate, Recipe
from vgs_ray.config.checks import check_recipe
from vgs_ray.data.parquet import parquet_file
from vgs_ray.data.splits import split_sizes
from vgs_ray.data.storage import storage_path
from vgs_ray.errors import UserError
from vgs_ray.evaluate import estimate as defaults
from vgs_ray.evaluate.benchmarks import benchmark_source
from vgs_ray.evaluate.estimate import (
    BENCHMARK_PROBLEMS,
    DERIVED,
    KNOWN_CONFIGS,
    PAPER,
    Means,
    Sizes,
    Speed,
    StageCost,
    estimate,
    estimate_evaluation,
    token_store_bytes,
    training_flops,
)
from vgs_ray.evaluate.estimate_svpo import TreeMeans, tree_stages
from vgs_ray.models import model_folder
from vgs_ray.models.folder import is_path
from vgs_ray.search.model_size import NO_MODEL, ModelSize, size_from_config
from vgs_ray.value.training.metrics_log import METRICS_LOG, read_metrics


@dataclass(frozen=True)
class Flags:
    """Options of this command only."""

    cluster: str = ""
    """File of Ray's cluster launcher, such as cluster.yaml: show where each stage runs there, and fail if one does not fit."""


KNOWN_SIZES = {"math-500": 500, "gsm8k": 1319}
COLUMNS = ("rows", "tokens", "Parquet", "FLOPs", "hours")


def generation_of(recipe: Recipe) -> tuple[str, Engine]:
    """The stage that generates most tokens with the policy, and its engine."""
    return ("trees", recipe.trees.policy_engine) if "trees" in recipe.stages else ("roll_out", recipe.roll_out.engine)


def speed_of(recipe: Recipe, reference: ModelSize) -> tuple[Speed, str]:
    """Tokens/s of one GPU, given, measured by the stage that generates or as a share of the peak; and a text that says which."""
    stage, engine = generation_of(recipe)
    plan, resources = recipe.plan, getattr(recipe, stage).resources
    speed = counts_of(recipe, stage).get("speed", {})
    # Whole searches rarely fill the batches of their engine, in a long run too, so only single samples have this number.
    engine_rate = speed.get("full_engine_tokens_per_s") or speed.get("tokens_per_s", 0) / resources.replicas
    measured = Assumed(engine_rate / engine.tensor_parallel_size, f"measured by stage {stage}") if engine_rate else None
    peak = plan.peak_tflops * 1e12 if resources.num_gpus else 0.0  # the peak of a GPU does not apply to a CPU
    rule = (
        f"{plan.generate_share} of {plan.peak_tflops:g} TFLOP/s; measure it" if peak else "unknown on CPU; measure it"
    )
    rate = chosen(plan.tokens_per_s, measured, plan.generate_share * peak / (2 * reference.params), rule)
    return Speed(rate.value, plan.train_share * peak), f"{rate.value:,.0f} tokens/s ({rate.origin})"


def measured_training(recipe: Recipe, length: float, value: ModelSize, speed: Speed) -> tuple[Speed, list[str]]:
    """The speed with the FLOP/s of one worker that stage train measured, and a line that says so; unchanged without one.

    Args:
        recipe: the recipe.
        length: mean length of a sequence in tokens, on which FLOPs for a token depend a little.
        value: size of the value model.
        speed: assumed.
    """
    rows = read_metrics(recipe.stage_folder("train") / METRICS_LOG, tail=True)
    if not rows:
        return speed, []
    of_token = training_flops(recipe.train.trained_layers, length, value) / length
    rate = rows[-1]["tokens_per_s"] * of_token / rows[-1]["workers"]
    told = tqdm.format_sizeof(rate, "FLOP/s")
    return speed._replace(train_flops_per_s=rate), [f"training, one worker: {told} (measured by stage train)"]


def config_of(model: str) -> dict[str, Any]:
    """A model's config.json from its folder or the hub's cache, or the known configuration of a policy of the paper."""
    try:
        if folder := model_folder(model):
            return dict(json.loads((folder / "config.json").read_text()))
        if isinstance(file := try_to_load_from_cache(model, "config.json"), str):
            return dict(json.loads(Path(file).read_text()))
    except HFValidationError:
        pass  # the name is not a Hugging Face id
    except (OSError, ValueError, BaseError) as error:
        raise UserError(
            f"the config.json of {model} can't be read ({error}), and plan needs it for the model's size: use another model"
        ) from error
    if is_path(model):
        raise UserError(
            f"{model} is not a folder, and plan reads the config.json in it for the model's size: make the model first, or pass "
            "the name of one of the same size in every option that has this one"
        )
    if model not in KNOWN_CONFIGS:
        raise UserError(
            f"the size of {model} is unknown; plan reads config.json from a folder or the Hugging Face cache: run "
            f"hf download {model} config.json, or use a local folder"
        )
    return dict(KNOWN_CONFIGS[model])


def sizes_of(recipe: Recipe, roll_in_models: list[str]) -> Sizes:
    """Sizes of all models of a recipe. A value model has no output layer."""
    names = {*roll_in_models, recipe.policy.model}
    try:
        trained = "train" in recipe.stages
        value = size_from_config(config_of(recipe.train.init) | {"architectures": []}) if trained else NO_MODEL
        return Sizes({name: size_from_config(config_of(name)) for name in names}, value)
    except KeyError as error:
        raise UserError(
            f"a config.json has no {error}; FLOPs are counted for Qwen2, Qwen3 and Llama models: use another model"
        ) from error


def count_benchmark_problems(recipe: Recipe) -> int:
    """Number of problems of all benchmarks together."""
    return sum(_count_problems(name, recipe.evaluate) for name in recipe.evaluate.benchmarks)


def _count_problems(name: str, config: Evaluate) -> int:
    """The limit, the rows of a local file, or the size of one contest."""
    path = storage_path(benchmark_source(name, config.benchmark_folder))
    if config.limit or name == "sandbox":
        return config.limit or SANDBOX_ROWS["benchmark"]
    if path.suffix == ".parquet" and path.is_file():
        return parquet_file(path).metadata.num_rows
    if path.suffix == ".jsonl" and path.is_file():
        return sum(bool(line.strip()) for line in path.read_text().splitlines())
    return KNOWN_SIZES.get(name, BENCHMARK_PROBLEMS)


def _amount(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or (value >= 1 and value == int(value)) else f"{value:.3f}"


def plan(recipe: Recipe) -> tuple[list[StageCost], list[str]]:
    """The cost of each stage, and a line for each assumption."""
    check_recipe(recipe)
    with_trees = "trees" in recipe.stages
    assumed = tree_assumptions(recipe) if with_trees else assumptions(recipe)
    costs, more = (plan_trees if with_trees else plan_roll_outs)(
        recipe, {name: each.value for name, each in assumed.items()}
    )
    lines = [f"{name}: {_amount(value)} ({origin})" for name, (value, origin) in assumed.items()]
    longest = recipe.tune.max_length if with_trees else recipe.resolved_train.max_length
    field = "tune.max_length" if with_trees else "train.max_length"
    lines.append(f"longest training sequence: {longest:,} tokens ({field})")
    return costs, [*lines, *more]


def plan_roll_outs(recipe: Recipe, assumed: dict[str, float]) -> tuple[list[StageCost], list[str]]:
    """The costs of a value model from roll-outs, and lines for the disk of a node that trains and the speed of generation."""
    models = [generator.model for generator in assign_generators(recipe.roll_in.generators, recipe.roll_in.per_problem)]
    sizes = sizes_of(recipe, models)
    speed, speed_text = speed_of(recipe, sizes.policies[recipe.policy.model])
    lengths = [assumed[f"{name} tokens"] for name in ("prompt", "roll-in", "roll-out")]
    speed, training = measured_training(recipe, sum(lengths), sizes.value, speed)
    shares = [assumed[f"{name} share"] for name in ("unknown", "hopeless")]
    means = Means(lengths[0], lengths[1], lengths[2], shares[0], shares[1], bytes_per_row(recipe))
    problems, benchmark = round(assumed["problems"]), count_benchmark_problems(recipe)
    costs = estimate(recipe, problems, benchmark, means, models, sizes, speed)
    store = tqdm.format_sizeof(token_store_bytes(recipe, costs, means), "B")
    disk = f"disk of each node that trains: {store} of tokens (in TMPDIR)"
    return costs, [disk, _generation(recipe, speed_text), *training]


def plan_trees(recipe: Recipe, assumed: dict[str, float]) -> tuple[list[StageCost], list[str]]:
    """The costs of SVPO, and a line for the speed of generation."""
    sizes, problems = sizes_of(recipe, []), round(assumed["problems"])
    policy = sizes.policies[recipe.policy.model]
    speed, speed_text = speed_of(recipe, policy)
    means = Means(assumed["prompt tokens"], assumed["answer tokens"], 0, 0, 0, bytes_per_row(recipe))
    trees = TreeMeans(assumed["block tokens"], assumed["blocks of a tree"], assumed["pairs of a tree"])
    trained = problems - split_sizes(problems, recipe.clean.validation, recipe.clean.test)[1]
    benchmark, answer = count_benchmark_problems(recipe), assumed["answer tokens"]
    costs = [
        defaults.sized(StageCost("clean", problems), means, 0),
        *tree_stages(recipe, trained, trees, means, policy, speed),
        estimate_evaluation(recipe, benchmark, answer, means, sizes, speed),
    ]
    return costs, [_generation(recipe, speed_text)]


def _generation(recipe: Recipe, speed: str) -> str:
    return f"generation, one {device(recipe)}: {speed}"


def device(recipe: Recipe) -> str:
    return "GPU" if getattr(recipe, generation_of(recipe)[0]).resources.num_gpus else "engine on CPU"


def cells(cost: StageCost) -> dict[str, str]:
    """The columns of one stage as text, by the name of the field; empty if the stage has no such cost."""
    texts = {
        "rows": "" if cost.rows is None else f"{cost.rows:,}",
        "tokens": "" if cost.tokens is None else tqdm.format_sizeof(cost.tokens),
        "size": "" if cost.size is None else tqdm.format_sizeof(cost.size, "B"),
        "flops": "" if cost.flops is None else f"{cost.flops:.1e}".replace("e+", "e"),
        "hours": "" if cost.hours is None else f"{cost.hours:,.0f}" if cost.hours >= 10 else f"{cost.hours:.2g}",
    }
    return {name: text or "-" for name, text in texts.items()}


def table(costs: list[StageCost]) -> str:
    """The recipe's run in at most 100 columns, beside the paper's if its stages are among them. A star marks a derived number."""
    compared = {cost.stage for cost in costs} >= PAPER.keys()
    rows = [["", "recipe", *[""] * 4, *["paper"] * compared], ["stage", *COLUMNS, *COLUMNS * compared]]
    for cost in costs:
        paper = cells(PAPER.get(cost.stage, StageCost(cost.stage, None)))
        starred = [f"{text}*" if (cost.stage, name) in DERIVED else text for name, text in paper.items()]
        rows.append([cost.stage, *cells(cost).values(), *starred * compared])
    sums = {name: sum(getattr(cost, name) or 0 for cost in costs) for name in ("size", "flops", "hours")}
    rows.append(["total", *cells(StageCost("total", None, **sums)).values()])
    return tabulate(rows, tablefmt="plain", colalign=["left", *["right"] * (5 + 5 * compared)], disable_numparse=True)


def show_fit(recipe: Recipe, costs: list[StageCost], path: str) -> None:
    """Print where each stage runs on the cluster of a file.

    Raises:
        UserError: the recipe does not fit, or the file can't be read.
    """
    cluster = read_cluster(path, recipe.plan)
    fits = fit(recipe, {cost.stage: cost.hours for cost in costs}, cluster, config_of)
    print(
        f"\n{path}: nodes, GPUs, hours and dollars of each stage, one after another\n\n{fit_table(fits, cluster.groups)}\n"
    )
    for line in note_lines(fits, cluster.groups):
        print(line)
    if misfits := misfit_lines(fits):
        print("\n".join(["does not fit:", *misfits]), flush=True)
        raise UserError(f"{recipe.name} does not fit {path} ({len(misfits)} reasons above, each with its remedy)")
    print(f"{recipe.name} fits {path}", flush=True)


def run(recipe: Recipe, flags: Flags) -> None:
    costs, lines = plan(recipe)
    print(f"{recipe.name}: rows, tokens, size on disk, FLOPs and {device(recipe)} hours of each stage\n")
    print(f"{table(costs)}\n")
    if PAPER.keys() <= set(recipe.stages):
        print("paper: arXiv 2505.17373; * is derived from its numbers. Its labels are those of OpenR1-VM,")
        print("which repeats a roll-in for each response. Its training tokens may include padding.\n")
    print("\n".join(lines))
    print("--plan.FIELD VALUE changes an assumption; --help lists the fields.", flush=True)
    if flags.cluster:
        show_fit(recipe, costs, flags.cluster)


if __name__ == "__main__":
    cli(run, "pipelines.plan", writes=False, flags=Flags())
