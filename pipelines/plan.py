"""plan: estimate the cost of each stage before the run, and compare it with the run of arXiv 2505.17373.

It starts nothing and writes nothing. Mean lengths and shares come from `--plan.*` options, else from the rows in the recipe's run
folder, else from defaults; the output names the origin of each.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from tabulate import tabulate
from tqdm import tqdm

from pipelines.cli import cli
from pipelines.roll_in import assign_generators
from pipelines.tables.manifest import read_manifest
from pipelines.tables.stage_table import StageTable, read_footer, stage_table, value_counts
from vgs_ray.cleaning.raw_rows import SANDBOX_ROWS
from vgs_ray.config import Evaluate, Recipe
from vgs_ray.config.checks import check_recipe
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
)
from vgs_ray.models import model_path
from vgs_ray.search.flops import ModelSize, size_from_config

KNOWN_SIZES = {"math-500": 500, "gsm8k": 1319}
COLUMNS = ("rows", "tokens", "Parquet", "FLOPs", "hours")


class Assumed(NamedTuple):
    """A number and its origin."""

    value: float
    origin: str


def mean_length(table: StageTable, column: str) -> Assumed | None:
    """Mean length of a list column, from the footers of the Parquet files. An empty list counts as one item."""
    items, rows = 0, 0
    for file in table.part_files():
        footer = read_footer(file)
        rows += footer.num_rows
        for group in (footer.row_group(index) for index in range(footer.num_row_groups)):
            chunks = (group.column(index) for index in range(group.num_columns))
            items += sum(chunk.num_values for chunk in chunks if chunk.path_in_schema.split(".")[0] == column)
    return Assumed(items / rows, f"measured in {table.folder}") if rows else None


def bytes_per_row(recipe: Recipe) -> dict[str, float]:
    """Bytes per row of the stages that have rows on disk."""
    sizes = {}
    for stage in defaults.BYTES_PER_ROW:
        table = stage_table(recipe, stage)
        if rows := table.count_rows():
            sizes[stage] = sum(os.path.getsize(file) for file in table.part_files()) / rows
    return sizes


def counts_of(recipe: Recipe, stage: str) -> dict[str, Any]:
    """Counts in a stage's manifest; empty if the stage is not finished."""
    path = recipe.stage_folder(stage) / "_stage.json"
    return dict(read_manifest(path)["counts"]) if path.exists() else {}


def chosen(given: float, measured: Assumed | None, default: float, rule: str) -> Assumed:
    """The value from the command line, else the measured one, else the default."""
    return Assumed(given, "given") if given else measured or Assumed(default, f"default: {rule}")


def assumptions(recipe: Recipe) -> dict[str, Assumed]:
    """The numbers that the estimate needs and the recipe does not determine."""
    plan, longest = recipe.plan, (recipe.roll_in.sampling.max_tokens, recipe.roll_out.sampling.max_tokens)
    clean, roll_ins, roll_outs = (stage_table(recipe, stage) for stage in ("clean", "roll_in", "roll_out"))
    kept = Assumed(clean.count_rows(), f"kept in {clean.folder}") if counts_of(recipe, "clean") else None
    raw = recipe.clean.limit or defaults.RAW_PROBLEMS
    return {
        "problems": chosen(plan.problems, kept, round(raw * defaults.KEPT_SHARE), f"{defaults.KEPT_SHARE} of {raw:,} raw"),
        "prompt tokens": chosen(plan.prompt_tokens, mean_length(roll_ins, "prompt"), defaults.PROMPT_TOKENS, "a guess"),
        "roll-in tokens": chosen(
            plan.roll_in_tokens, mean_length(roll_ins, "tokens"), defaults.ROLL_IN_SHARE * longest[0],
            f"{defaults.ROLL_IN_SHARE} of the maximum",
        ),
        "roll-out tokens": chosen(
            plan.roll_out_tokens,
            None if recipe.roll_out.whole else mean_length(roll_outs, "tokens"),
            defaults.ROLL_OUT_SHARE * longest[1],
            f"{defaults.ROLL_OUT_SHARE} of the maximum",
        ),
        "unknown share": unknown_share(recipe),
        "hopeless share": chosen(plan.hopeless, hopeless_share(recipe), defaults.HOPELESS_SHARE, "arXiv 2505.17373"),
    }  # fmt: skip


def unknown_share(recipe: Recipe) -> Assumed:
    """Share of the roll-outs whose outcome stage verify could not determine."""
    if not (counts := counts_of(recipe, "verify")):
        return Assumed(0.0, "default")
    return Assumed(
        value_counts(stage_table(recipe, "verify"), "outcome").get("unknown", 0) / counts["rows"], "measured"
    )


def hopeless_share(recipe: Recipe) -> Assumed | None:
    """Share of the roll-outs that stage label left out because their problem has no correct roll-out."""
    counts = counts_of(recipe, "label")
    if not counts or recipe.label.hopeless_share:
        return None
    left_out = counts["left_out"]
    return Assumed(left_out["hopeless"] / (counts["rows"] + sum(left_out.values())), "measured")


def speed_of(recipe: Recipe, reference: ModelSize) -> tuple[Speed, str]:
    """Tokens/s of one GPU, given, measured by stage roll_out or as a share of the peak; and a text that says which."""
    plan, resources = recipe.plan, recipe.roll_out.resources
    engines_gpus = resources.replicas * recipe.roll_out.engine.tensor_parallel_size
    total = counts_of(recipe, "roll_out").get("speed", {}).get("tokens_per_s", 0)
    measured = Assumed(total / engines_gpus, "measured by stage roll_out") if total else None
    peak = plan.peak_tflops * 1e12 if resources.num_gpus else 0.0  # the peak of a GPU does not apply to a CPU
    rule = (
        f"{plan.generate_share} of {plan.peak_tflops:g} TFLOP/s; measure it" if peak else "unknown on CPU; measure it"
    )
    rate = chosen(plan.tokens_per_s, measured, plan.generate_share * peak / (2 * reference.params), rule)
    return Speed(rate.value, plan.train_share * peak), f"{rate.value:,.0f} tokens/s ({rate.origin})"


def config_of(model: str) -> dict[str, Any]:
    """A model's config.json from this machine, or the known configuration of a policy of the paper. Nothing is downloaded."""
    try:
        folder = Path(model_path(model))
        file = str(folder / "config.json") if folder.is_dir() else try_to_load_from_cache(model, "config.json")
        if isinstance(file, str):
            return dict(json.loads(Path(file).read_text()))
    except HFValidationError:
        pass  # the name is not a Hugging Face id
    except (OSError, ValueError) as error:
        raise UserError(
            f"the config.json of {model} can't be read ({error}), and plan needs it for the model's size: use another model"
        ) from error
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
        value = size_from_config(config_of(recipe.train.init) | {"architectures": []})
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
    path = Path(benchmark_source(name, config.benchmark_folder))
    if config.limit or name == "sandbox":
        return config.limit or SANDBOX_ROWS["benchmark"]
    if path.suffix == ".parquet" and path.is_file():
        return int(pq.read_metadata(path).num_rows)
    if path.suffix == ".jsonl" and path.is_file():
        return sum(bool(line.strip()) for line in path.read_text().splitlines())
    return KNOWN_SIZES.get(name, BENCHMARK_PROBLEMS)


def plan(recipe: Recipe) -> tuple[list[StageCost], list[str]]:
    """The cost of each stage, and a line for each assumption."""
    check_recipe(recipe)
    assumed = assumptions(recipe)
    models = [generator.model for generator in assign_generators(recipe.roll_in.generators, recipe.roll_in.per_problem)]
    sizes = sizes_of(recipe, models)
    speed, speed_text = speed_of(recipe, sizes.policies[recipe.policy.model])
    lengths = [assumed[f"{name} tokens"].value for name in ("prompt", "roll-in", "roll-out")]
    shares = [assumed[f"{name} share"].value for name in ("unknown", "hopeless")]
    means = Means(lengths[0], lengths[1], lengths[2], shares[0], shares[1], bytes_per_row(recipe))
    problems, benchmark = round(assumed["problems"].value), count_benchmark_problems(recipe)
    lines = [f"{name}: {value:,.{0 if value >= 100 else 3}f} ({origin})" for name, (value, origin) in assumed.items()]
    longest = f"longest training sequence: {recipe.resolved_train.max_length:,} tokens (train.max_length)"
    costs = estimate(recipe, problems, benchmark, means, models, sizes, speed)
    return costs, [*lines, longest, f"generation, one {device(recipe)}: {speed_text}"]


def device(recipe: Recipe) -> str:
    return "GPU" if recipe.roll_out.resources.num_gpus else "engine on CPU"


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
    """The recipe's run and the paper's, in at most 100 columns. A star marks a number that is derived."""
    rows = [["", "recipe", *[""] * 4, "paper"], ["stage", *COLUMNS, *COLUMNS]]
    for cost in costs:
        paper = cells(PAPER.get(cost.stage, StageCost(cost.stage, None)))
        starred = [f"{text}*" if (cost.stage, name) in DERIVED else text for name, text in paper.items()]
        rows.append([cost.stage, *cells(cost).values(), *starred])
    sums = {name: sum(getattr(cost, name) or 0 for cost in costs) for name in ("size", "flops", "hours")}
    rows.append(["total", *cells(StageCost("total", None, **sums)).values()])
    return tabulate(rows, tablefmt="plain", colalign=["left", *["right"] * 10], disable_numparse=True)


def run(recipe: Recipe) -> None:
    costs, lines = plan(recipe)
    print(f"{recipe.name}: rows, tokens, size on disk, FLOPs and {device(recipe)} hours of each stage\n")
    print(table(costs))
    print("\npaper: arXiv 2505.17373; * is derived from its numbers. Its labels are those of OpenR1-VM,")
    print("which repeats a roll-in for each response. Its training tokens may include padding.\n")
    print("\n".join(lines))
    print("--plan.FIELD VALUE changes an assumption; --help lists the fields.", flush=True)


if __name__ == "__main__":
    cli(run, "pipelines.plan", writes=False)
