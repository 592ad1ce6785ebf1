"""What a plan assumes: numbers from `--plan.*` options, else from the rows in the recipe's run folder, else defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from pipelines.tables.manifest import read_manifest
from pipelines.tables.stage_table import StageTable, open_file, stage_table, value_counts
from vgs_ray.cleaning.raw_rows import SANDBOX_ROWS, inspect_source, read_piece
from vgs_ray.config import Clean, Recipe
from vgs_ray.data.source_names import SUFFIXES
from vgs_ray.data.storage import is_url, storage_path
from vgs_ray.evaluate import estimate as defaults
from vgs_ray.evaluate.estimate_svpo import PAIRS_PER_SIMULATION
from vgs_ray.models import model_folder
from vgs_ray.models.folder import is_path

SAMPLED_PROBLEMS = 200
"""Problems of a local source whose prompts are measured."""


class Assumed(NamedTuple):
    """A number and its origin."""

    value: float
    origin: str


def mean_length(table: StageTable, column: str) -> Assumed | None:
    """Mean length of a list column, from the footers of the Parquet files. An empty list counts as one item."""
    items, rows = 0, 0
    for file in table.files():
        footer = open_file(file).metadata
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
            sizes[stage] = table.count_bytes() / rows
    return sizes


def counts_of(recipe: Recipe, stage: str) -> dict[str, Any]:
    """Counts in a stage's manifest; empty if the stage is not finished."""
    path = recipe.stage_folder(stage) / "_stage.json"
    return dict(read_manifest(path)["counts"]) if path.exists() else {}


def chosen(given: float, measured: Assumed | None, default: float, rule: str) -> Assumed:
    """The value from the command line, else the measured one, else the default."""
    return Assumed(given, "given") if given else measured or Assumed(default, f"default: {rule}")


def assumptions(recipe: Recipe) -> dict[str, Assumed]:
    """The numbers that the estimate of a value model from roll-outs needs and the recipe does not determine."""
    plan, longest = recipe.plan, (recipe.roll_in.sampling.max_tokens, recipe.roll_out.sampling.max_tokens)
    roll_ins, roll_outs = (stage_table(recipe, stage) for stage in ("roll_in", "roll_out"))
    return {
        "problems": assumed_problems(recipe),
        "prompt tokens": prompt_length(recipe, roll_ins),
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


def assumed_problems(recipe: Recipe) -> Assumed:
    """Number of problems after cleaning: given, kept by stage clean, or estimated from the source.

    Raises:
        UserError: the source is a file or folder that does not exist or can't be read.
    """
    clean = stage_table(recipe, "clean")
    if recipe.plan.problems:
        return Assumed(recipe.plan.problems, "given")
    if counts_of(recipe, "clean"):
        return Assumed(clean.count_rows(), f"kept in {clean.folder}")
    return _problems_of(recipe.clean)


def _problems_of(clean: Clean) -> Assumed:
    """The rows of the sandbox or of a local source, or the paper's share of others, whose rows only stage clean counts."""
    source, limit = clean.source, clean.limit
    if source == "sandbox" or is_local_source(source):
        rows = limit or SANDBOX_ROWS["train"]
        if source != "sandbox":
            found = sum(piece.rows for piece in inspect_source(source, 0).pieces)
            rows = min(limit or found, found)
        return Assumed(rows, f"default: rows of {source} before stage clean")
    rows = limit or defaults.RAW_PROBLEMS
    known = limit or source.startswith(defaults.RAW_SOURCE)
    number = f"{rows:,} raw" if known else f"the {rows:,} rows of OpenR1-Math; those of {source} are not counted"
    return Assumed(
        round(rows * defaults.KEPT_SHARE), f"default: {defaults.KEPT_SHARE}, as in arXiv 2505.17373, of {number}"
    )


def is_local_source(source: str) -> bool:
    """Whether a source of problems is a file or folder of this machine."""
    named = is_path(source) or source.endswith(tuple(SUFFIXES)) or storage_path(source).exists()
    return named and not is_url(source)


def prompt_length(recipe: Recipe, rows: StageTable) -> Assumed:
    """Mean length of a prompt: given, of `rows`, or of the first problems of a local source in the policy's tokens."""
    measured = mean_length(rows, "prompt") or (None if recipe.plan.prompt_tokens else _source_length(recipe))
    return chosen(recipe.plan.prompt_tokens, measured, defaults.PROMPT_TOKENS, "a guess")


def _source_length(recipe: Recipe) -> Assumed | None:
    """None if the source is not local, or the policy has no tokenizer on this machine: a plan downloads nothing."""
    source, column, folder = recipe.clean.source, recipe.clean.problem_column, model_folder(recipe.policy.model)
    local = isinstance(folder, Path) and (folder / "tokenizer.json").exists()
    if not local or not is_local_source(source):
        return None
    pieces = inspect_source(source, SAMPLED_PROBLEMS).pieces
    tables = [table for piece in pieces for table in read_piece(piece, [column])]
    problems = [text for table in tables for text in table[column].to_pylist() if text]
    from vgs_ray.prompts import load_tokenizer, prompt_tokens  # loads transformers

    tokenizer = load_tokenizer(str(folder))
    tokens = sum(len(prompt_tokens(tokenizer, text, instruction=recipe.instruction)) for text in problems)
    return Assumed(tokens / len(problems), f"of {len(problems)} problems of {source}") if problems else None


def tree_assumptions(recipe: Recipe) -> dict[str, Assumed]:
    """The numbers that the estimate of SVPO needs and the recipe does not determine."""
    plan, config, trees = recipe.plan, recipe.trees, stage_table(recipe, "trees")
    share, longest = defaults.ROLL_IN_SHARE, config.sampling.max_tokens
    answer = chosen(plan.roll_in_tokens, None, share * longest, f"{share} of the maximum")
    blocks, tokens = mean_length(trees, "states"), mean_length(trees, "tokens")
    block = Assumed(tokens.value / blocks.value, tokens.origin) if blocks and tokens else None
    counts, simulations = counts_of(recipe, "pairs"), config.search.simulations
    pairs = Assumed(counts["rows"] / trees.count_rows(), "measured by stage pairs") if counts else None
    return {
        "problems": assumed_problems(recipe),
        "prompt tokens": prompt_length(recipe, trees),
        "answer tokens": answer,
        "block tokens": chosen(
            plan.block_tokens, block, defaults.block_tokens(config.search, answer.value), "an answer has the maximum depth"
        ),
        "blocks of a tree": chosen(0, blocks, simulations * config.search.width, "the maximum"),
        "pairs of a tree": chosen(0, pairs, PAIRS_PER_SIMULATION * simulations, f"{PAIRS_PER_SIMULATION} of a simulation"),
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
