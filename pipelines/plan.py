"""plan: what a recipe will cost, before any GPU is paid for, beside the paper's run. Starts nothing and writes nothing.

Means come from the recipe's run folder where stages have written rows, from `--plan.*` options where given, else from
defaults; the output says which.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError

from pipelines.cli import cli
from pipelines.roll_in import assign
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
    Cost,
    Means,
    Sizes,
    Speed,
    estimate,
)
from vgs_ray.models import model_path
from vgs_ray.search.flops import ModelSize, size_from_config

KNOWN_SIZES = {"math-500": 500, "gsm8k": 1319}
HEAD = ("stage", "rows", "tokens", "Parquet", "FLOPs", "hours")
WIDTHS = (8, 11, 6, 8, 8, 8, 9, 7, 7, 9, 7)


class Assumed(NamedTuple):
    """A number and where it comes from."""

    value: float
    origin: str


def measured_tokens(parts: StageTable, column: str) -> Assumed | None:
    """Mean length of a list column, from the parts' footers (an empty list counts as one item there)."""
    files, items, rows = parts.part_files(), 0, 0
    for file in files:
        metadata = read_footer(file)
        rows += metadata.num_rows
        for group in (metadata.row_group(index) for index in range(metadata.num_row_groups)):
            columns = (group.column(index) for index in range(group.num_columns))
            items += sum(chunk.num_values for chunk in columns if chunk.path_in_schema.split(".")[0] == column)
    return Assumed(items / rows, f"measured in {parts.folder}") if rows else None


def bytes_a_row(recipe: Recipe) -> dict[str, float]:
    """Of the stages that have rows on disk."""
    found = {}
    for stage in defaults.BYTES_A_ROW:
        parts = stage_table(recipe, stage)
        if rows := parts.count_rows():
            found[stage] = sum(os.path.getsize(file) for file in parts.part_files()) / rows
    return found


def manifest(recipe: Recipe, stage: str) -> dict[str, Any]:
    """Counts of a finished stage; empty for another."""
    path = recipe.folder / stage / "_stage.json"
    counts = read_manifest(path)["counts"] if path.exists() else {}
    return dict(counts)


def chosen(given: float, measured: Assumed | None, default: float, rule: str) -> Assumed:
    """What was given on the command line, else what was measured, else the default."""
    return Assumed(given, "given") if given else measured or Assumed(default, f"default: {rule}")


def assumptions(recipe: Recipe) -> dict[str, Assumed]:
    """Every number that the recipe itself does not have."""
    plan, sampling = recipe.plan, (recipe.roll_in.sampling.max_tokens, recipe.roll_out.sampling.max_tokens)
    clean, ins, outs = (stage_table(recipe, stage) for stage in ("clean", "roll_in", "roll_out"))
    kept = Assumed(clean.count_rows(), f"kept in {clean.folder}") if manifest(recipe, "clean") else None
    raw = recipe.clean.limit or defaults.RAW_PROBLEMS
    outcomes = manifest(recipe, "verify")
    unknown = (
        value_counts(stage_table(recipe, "verify"), "outcome").get("unknown", 0) / outcomes["rows"] if outcomes else 0.0
    )
    return {
        "problems": chosen(plan.problems, kept, round(raw * defaults.KEPT_SHARE), f"{defaults.KEPT_SHARE} of {raw:,} raw"),
        "prompt tokens": chosen(plan.prompt_tokens, measured_tokens(ins, "prompt"), defaults.PROMPT_TOKENS, "a guess"),
        "roll-in tokens": chosen(
            plan.roll_in_tokens, measured_tokens(ins, "tokens"), defaults.ROLL_IN_SHARE * sampling[0],
            f"{defaults.ROLL_IN_SHARE} of the longest",
        ),
        "roll-out tokens": chosen(
            plan.roll_out_tokens, measured_tokens(outs, "tokens"), defaults.ROLL_OUT_SHARE * sampling[1],
            f"{defaults.ROLL_OUT_SHARE} of the longest",
        ),
        "unknown share": Assumed(unknown, "measured" if outcomes else "default"),
        "hopeless share": chosen(plan.hopeless, measured_hopeless(recipe), defaults.HOPELESS_SHARE, "the paper's"),
    }  # fmt: skip


def measured_hopeless(recipe: Recipe) -> Assumed | None:
    """Share of the roll-outs that stage label left out because nothing solved their problem."""
    counts = manifest(recipe, "label")
    if not counts or recipe.label.hopeless_share:
        return None
    left_out = counts["left_out"]
    return Assumed(left_out["hopeless"] / (counts["rows"] + sum(left_out.values())), "measured")


def speed_of(recipe: Recipe, reference: ModelSize) -> tuple[Speed, str]:
    """Tokens/s of one GPU: given, measured by stage roll_out, or a share of the peak."""
    plan, engine, resources = recipe.plan, recipe.roll_out.engine, recipe.roll_out.resources
    peak = plan.peak_tflops * 1e12
    found = manifest(recipe, "roll_out").get("speed", {}).get("tokens_per_s", 0)
    measured = (
        Assumed(found / resources.replicas / engine.tensor_parallel_size, "measured by stage roll_out")
        if found
        else None
    )
    if not resources.num_gpus:  # a GPU's peak says nothing of a CPU
        rate = chosen(plan.tokens_per_s, measured, 0.0, "unknown on CPU; measure it")
        return Speed(rate.value, 0.0), f"{rate.value:,.0f} tokens/s ({rate.origin})"
    rule = f"{plan.generate_share} of {plan.peak_tflops:g} TFLOP/s; measure it"
    rate = chosen(plan.tokens_per_s, measured, plan.generate_share * peak / (2 * reference.params), rule)
    return Speed(rate.value, plan.train_share * peak), f"{rate.value:,.0f} tokens/s ({rate.origin})"


def config_of(model: str) -> dict[str, Any]:
    """A model's config.json from this machine, or what is known of the paper's policies; nothing is fetched."""
    try:
        folder = Path(model_path(model))
        found = str(folder / "config.json") if folder.is_dir() else try_to_load_from_cache(model, "config.json")
        if isinstance(found, str):
            return dict(json.loads(Path(found).read_text()))
    except HFValidationError:
        pass  # no id, so nothing is known of it
    except (OSError, ValueError) as error:
        raise UserError(
            f"the size of {model} can't be read ({error}); plan needs its config.json: name another model"
        ) from error
    if model not in KNOWN_CONFIGS:
        raise UserError(
            f"the size of {model} is not known here; plan reads config.json from a folder or the Hugging Face cache: run "
            f"hf download {model} config.json, or name a local folder"
        )
    return dict(KNOWN_CONFIGS[model])


def sizes_of(recipe: Recipe, roll_in_models: list[str]) -> Sizes:
    """Of all models of a recipe; a value model has no output layer."""
    names = {*roll_in_models, recipe.policy.model}
    try:
        value = size_from_config(config_of(recipe.train.init) | {"architectures": []})
        return Sizes({name: size_from_config(config_of(name)) for name in names}, value)
    except KeyError as error:
        raise UserError(
            f"a config.json has no {error}; FLOPs are counted for Qwen2, Qwen3 and Llama models: name another model"
        ) from error


def benchmark_size(recipe: Recipe) -> int:
    """Problems of all benchmarks together."""
    return sum(_one_benchmark(name, recipe.evaluate) for name in recipe.evaluate.benchmarks)


def _one_benchmark(name: str, config: Evaluate) -> int:
    """The limit, the rows of a local file, or as many as one contest has."""
    path = Path(benchmark_source(name, config.benchmark_folder))
    if config.limit or name == "sandbox":
        return config.limit or SANDBOX_ROWS["benchmark"]
    if path.suffix == ".parquet" and path.is_file():
        return int(pq.read_metadata(path).num_rows)
    if path.suffix == ".jsonl" and path.is_file():
        return sum(bool(line.strip()) for line in path.read_text().splitlines())
    return KNOWN_SIZES.get(name, BENCHMARK_PROBLEMS)


def plan(recipe: Recipe) -> tuple[list[Cost], list[str]]:
    """The cost of each stage, and lines that say what it rests on."""
    check_recipe(recipe)
    assumed = assumptions(recipe)
    models = [generator.model for generator in assign(recipe.roll_in.generators, recipe.roll_in.per_problem)]
    sizes = sizes_of(recipe, models)
    speed, said = speed_of(recipe, sizes.policies[recipe.policy.model])
    lengths = [assumed[f"{name} tokens"].value for name in ("prompt", "roll-in", "roll-out")]
    shares = [assumed[f"{name} share"].value for name in ("unknown", "hopeless")]
    means = Means(lengths[0], lengths[1], lengths[2], shares[0], shares[1], bytes_a_row(recipe))
    costs = estimate(recipe, round(assumed["problems"].value), benchmark_size(recipe), means, models, sizes, speed)
    lines = [f"{name}: {value:,.{0 if value >= 100 else 3}f} ({origin})" for name, (value, origin) in assumed.items()]
    longest = f"longest training sequence: {recipe.resolved_train.max_length:,} tokens (train.max_length)"
    return costs, [*lines, longest, f"generation, one {device(recipe)}: {said}"]


def device(recipe: Recipe) -> str:
    return "GPU" if recipe.roll_out.resources.num_gpus else "engine on CPU"


def short(number: float | None) -> str:
    """Three digits and a unit: 14.4B."""
    if number is None:
        return "-"
    for limit, unit in ((1e15, ""), (1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= limit:
            return f"{number:.2e}" if not unit else f"{number / limit:.3g}{unit}"
    return f"{number:.3g}"


def size(number: float | None) -> str:
    return "-" if number is None else short(number).replace("B", "G") + "B"


def flops(number: float | None) -> str:
    return "-" if number is None else f"{number:.1e}".replace("e+", "e")


def hours(number: float | None) -> str:
    return "-" if number is None else f"{number:,.0f}" if number >= 10 else f"{number:.2g}"


def table(costs: list[Cost]) -> str:
    """At most 100 columns: the recipe's run, then the paper's; a star marks what is derived."""
    lines = [_line(("", "this recipe", "", "", "", "", "the paper", "", "", "", "")), _line((*HEAD, *HEAD[1:]))]
    for cost in costs:
        mine = (cost.stage, f"{cost.rows:,}", short(cost.tokens), size(cost.size), flops(cost.flops), hours(cost.hours))
        lines.append(_line((*mine, *_of_paper(cost.stage))))
    totals = [sum(getattr(cost, name) or 0 for cost in costs) for name in ("size", "flops", "hours")]
    total = ("total", "", "", size(totals[0]), flops(totals[1]), hours(totals[2]))
    return "\n".join([*lines, _line((*total, *[""] * 5))])


def _of_paper(stage: str) -> tuple[str, ...]:
    paper = PAPER.get(stage, Cost(stage, None))
    shown = {
        "rows": short(paper.rows), "tokens": short(paper.tokens), "size": size(paper.size), "flops": flops(paper.flops),
        "hours": hours(paper.hours),
    }  # fmt: skip
    return tuple(f"{text}*" if (stage, name) in DERIVED else text for name, text in shown.items())


def _line(cells: tuple[str, ...]) -> str:
    first, *others = zip(cells, WIDTHS, strict=True)
    return (f"{first[0]:<{first[1]}}" + "".join(f" {cell:>{width}}" for cell, width in others)).rstrip()


def run(recipe: Recipe) -> None:
    costs, lines = plan(recipe)
    print(f"{recipe.name}: rows, tokens, size on disk, FLOPs and {device(recipe)} hours of each stage\n")
    print(table(costs))
    print("\n* derived from the paper's numbers, not stated there; its label size is that of OpenR1-VM,")
    print("  which repeats a roll-in for each response; its training tokens may count padding.\n")
    print("\n".join(lines))
    print("Change one with --plan.FIELD VALUE; every field is listed by --help.", flush=True)


if __name__ == "__main__":
    cli(run, "pipelines.plan", writes=False)
