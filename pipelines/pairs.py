"""pairs: `trees` -> `pairs`, step preferences or solution preferences, as token ids and as text; `unpaired_trees` has the rest.

All trees of a problem are paired together. `value_paths` has the targets of the value: paths of all trees with Q.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.cli import cli
from pipelines.progress import Watched, progress
from pipelines.session import ray_session
from pipelines.tables.by_problem import ProblemBatch, ProblemGroups, map_problems
from pipelines.tables.stage import open_stage
from pipelines.tables.stage_table import StageTable, stage_table, value_counts
from vgs_ray.config import Recipe
from vgs_ray.data.files import remove_folder
from vgs_ray.data.schemas import PAIRS, UNPAIRED_TREES, VALUE_PATHS
from vgs_ray.errors import UserError
from vgs_ray.labels.preferences import Preference, Row, preferences
from vgs_ray.labels.value_paths import value_paths
from vgs_ray.models import model_path
from vgs_ray.prompts import decode_after, load_tokenizer

BATCH_ROWS = 256
BAR_FORMAT = "{desc}: {elapsed}  {n_fmt} pairs"
COLUMNS = (
    "tree_id", "problem_id", "split", "prompt", "parents", "tokens", "states", "q", "visits", "outcomes", "error",
)  # fmt: skip


def pair_problems(
    batch: ProblemBatch, recipe: Recipe, trees: StageTable, out: StageTable, without: StageTable, paths: StageTable
) -> pa.Table:
    """Commit the pairs, the unpaired trees and the paths of a batch of problems, and return their numbers."""
    rows = batch.read_rows(trees, list(COLUMNS)).sort_by("tree_id")
    pairs: list[dict[str, Any]] = []
    unpaired: list[dict[str, Any]] = []
    targets = [VALUE_PATHS.empty_table()]  # not lists of Python, which take ten times the memory
    for problem in batch.problems:
        members = rows.filter(pc.equal(rows["problem_id"], problem)).to_pylist()
        found, reasons = preferences(members, recipe.pairs)
        pairs += pair_rows(found, members, recipe.policy.model)
        unpaired += [{**members[position], "reason": reason} for position, reason in reasons.items()]
        targets.append(pa.Table.from_pylist(list(path_rows(members, recipe)), schema=VALUE_PATHS))
    out.write_part(pa.Table.from_pylist(pairs, schema=PAIRS))
    without.write_part(pa.Table.from_pylist(unpaired, schema=UNPAIRED_TREES))
    paths.write_part(pa.concat_tables(targets))
    return pa.Table.from_pylist([{"pairs": len(pairs), "unpaired": len(unpaired)}])


def pair_rows(pairs: list[Preference], trees: list[Row], model: str) -> Iterator[dict[str, Any]]:
    """The rows of `pairs` for the pairs of one problem."""
    tokenizer = load_tokenizer(model_path(model))
    for pair in pairs:
        tree, chosen, rejected = trees[pair.chosen.tree], pair.chosen, pair.rejected
        prompt = tree["prompt"] + pair.prefix
        other = "" if rejected.tree == chosen.tree else f"{trees[rejected.tree]['tree_id'].rpartition('/')[2]}."
        texts = [decode_after(tokenizer, prompt, side.tokens) for side in (chosen, rejected)]
        yield {
            **{name: tree[name] for name in ("tree_id", "problem_id", "split")},
            "pair_id": f"{tree['tree_id']}/{chosen.node}/{other}{rejected.node}",
            "prompt_ids": prompt,
            "chosen_ids": chosen.tokens,
            "rejected_ids": rejected.tokens,
            "prompt": decode_after(tokenizer, [], prompt),
            "chosen": texts[0],
            "rejected": texts[1],
            "q_chosen": chosen.q,
            "q_rejected": rejected.q,
            "visits_chosen": chosen.visits,
            "visits_rejected": rejected.visits,
            "depth": pair.depth,
        }


def path_rows(trees: list[Row], recipe: Recipe) -> Iterator[dict[str, Any]]:
    """The rows of `value_paths` for the trees of one problem."""
    for tree in trees:
        ids = {name: tree[name] for name in ("tree_id", "problem_id", "split")}
        for path in value_paths(tree, recipe.pairs.kind):
            yield {**ids, "path_id": f"{tree['tree_id']}/{path.node}", **path._asdict()}


def refuse_no_pairs(recipe: Recipe, reasons: dict[str, int]) -> None:
    """Raises a UserError with the reasons and the remedies."""
    config, counts = recipe.pairs, ", ".join(f"{reason} {count:,}" for reason, count in reasons.items())
    raise UserError(
        f"no tree of {recipe.stage_folder('trees')} has a pair, and training needs some; trees by reason: {counts}. For "
        f"below_margin lower --pairs.min-margin ({config.min_margin:g}), for no_siblings --pairs.min-visits "
        f"({config.min_visits}) or raise --trees.search.simulations; for no_answer raise --trees.search.depth or "
        "--trees.search.simulations; for no_correct_answer use easier problems or a better policy"
    )


def run(recipe: Recipe) -> None:
    stage = open_stage(recipe, "pairs", inputs=("trees",), keep_parts=False)
    if stage is None:
        return
    trees = stage_table(recipe, "trees")
    out, unpaired, paths = (stage_table(recipe, name).claim() for name in ("pairs", "unpaired", "value_paths"))
    with (
        ray_session(folder=stage.folder, nodes=stage.nodes),
        progress("pairs", None, out.count_rows, "pair", bar_format=BAR_FORMAT, watch=Watched(stage.folder)),
    ):
        batches = ProblemGroups.scan([trees]).batches(BATCH_ROWS)
        tables = {"trees": trees, "out": out, "without": unpaired, "paths": paths}
        for _ in map_problems(batches, pair_problems, recipe=recipe, **tables).iter_batches(batch_size=None):
            pass  # the tasks write the rows
        out, unpaired, paths = (stage.publish(table) for table in (out, unpaired, paths))
    reasons = value_counts(unpaired, "reason")
    if not out.count_rows():
        remove_folder(stage.folder)  # so that the stage may start again with another margin
        refuse_no_pairs(recipe, reasons)
    stage.close(
        rows=out.count_rows(),
        splits=value_counts(out, "split"),
        unpaired_trees=unpaired.count_rows(),
        reasons=reasons,
        value_paths=paths.count_rows(),
    )


if __name__ == "__main__":
    cli(run, "pipelines.pairs")
