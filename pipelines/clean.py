"""clean: raw problems -> `problems` (kept) and `problems_dropped` (with a reason and the evidence).

Actors check each row on its own. One task then compares the fingerprints of the rows that passed, and finds the copies. The
kept rows are assigned to splits, and both tables are written. Rows stay in Ray's object store; the driver sees only counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
from tabulate import tabulate

from pipelines.cli import cli
from pipelines.placement import stage_options
from pipelines.progress import Watched, progress
from pipelines.session import ray_session
from pipelines.tables.sources import benchmark_texts, pin_sources, readable_source, train_problems
from pipelines.tables.stage import open_stage
from pipelines.tables.stage_table import StageTable, stage_table, value_counts
from pipelines.tables.tasks import write_dataset
from vgs_ray.answers.judge import Judge
from vgs_ray.cleaning.contamination import BenchmarkIndex, index_benchmarks, overlap
from vgs_ray.cleaning.copies import Fingerprint, FingerprintedRow, find_copies, fingerprint
from vgs_ray.cleaning.rules import REASONS, Dropped, boxed_answer, check
from vgs_ray.config import Clean, JudgeLimits, Recipe
from vgs_ray.data.ids import problem_id
from vgs_ray.data.schemas import PROBLEMS_CHECKED
from vgs_ray.data.splits import Bounds, split_bounds, split_key, splits_of
from vgs_ray.errors import UserError
from vgs_ray.evaluate.benchmarks import benchmark_source

BATCH_ROWS = 500
CHECK_CPUS = 0.5
FINGERPRINT = ("row", "answer", "text", "shingles", "bands")
COPIES = pa.schema([("row", pa.int64()), ("reason", pa.string()), ("evidence", pa.string())])


class CheckActor:
    """An actor with one judge process. It applies the rules for single rows, and makes fingerprints for the others."""

    def __init__(self, config: Clean, limits: JudgeLimits, index: ray.ObjectRef) -> None:
        self.config = config
        self.index: BenchmarkIndex = ray.get(index[0])
        self.judge = Judge(workers=1, timeout_s=limits.timeout_s, memory_gib=limits.memory_gib)
        self._readable = lru_cache(100_000)(self._parses)  # many rows have the same answer

    def __call__(self, batch: pa.Table) -> pa.Table:
        return pa.Table.from_pylist([self._check(row) for row in batch.to_pylist()], schema=PROBLEMS_CHECKED)

    def _check(self, row: dict[str, Any]) -> dict[str, Any]:
        if not self.config.answer_column:
            row["answer"] = boxed_answer(row["solution"])
        dropped = check(row, self._equal, self._readable)
        row |= dropped._asdict() if dropped else {"reason": None, "evidence": None}
        if dropped:
            return row
        row["problem_id"] = problem_id(row["problem"])
        row["split_key"] = split_key(row["problem_id"])
        return row | fingerprint(row["problem"])._asdict() | {"contamination": self._contamination(row["problem"])}

    def _equal(self, gold: str, answer: str) -> bool:
        return self.judge.judge_pairs([(gold, answer)])[gold, answer].equivalent is True

    def _parses(self, answer: str) -> bool:
        """Whether math-verify can parse a reference answer; the comparison with 0 reports that it cannot."""
        return self.judge.judge_pairs([(answer, "0")])[answer, "0"].equivalent is not None

    def _contamination(self, problem: str) -> str | None:
        shared = overlap(problem, self.index)
        if shared is None or shared.share <= self.config.contamination:
            return None
        return f"{shared.name}, {shared.share:.0%} of the 8-grams, such as: {shared.gram}"


@ray.remote(num_cpus=CHECK_CPUS)
def benchmark_index(sources: dict[str, str]) -> BenchmarkIndex:
    """The 8-grams of all excluded benchmarks, which are given as {name: source}."""
    return index_benchmarks(text for name, source in sources.items() for text in benchmark_texts(name, source))


@ray.remote(num_cpus=CHECK_CPUS)
def find_copies_in_blocks(threshold: float, *blocks: pa.Table) -> pa.Table:
    """The copies among all rows, as `COPIES`. Only this task holds the fingerprints of all rows."""
    copies = find_copies((row for block in blocks for row in _fingerprinted_rows(block)), threshold)
    return pa.Table.from_pylist([copy._asdict() for copy in copies], schema=COPIES)


def _fingerprinted_rows(block: pa.Table) -> Iterator[FingerprintedRow]:
    block = block.filter(pc.is_valid(block["text"])).combine_chunks()
    shingles, bands = (block[name].chunk(0) if block.num_rows else () for name in ("shingles", "bands"))
    rows, answers, texts = (block[name].to_pylist() for name in ("row", "answer", "text"))
    for row, answer, text, own, keys in zip(rows, answers, texts, shingles, bands, strict=True):
        yield FingerprintedRow(row, answer, Fingerprint(text, own.values.to_numpy(), keys.values.to_numpy()))


def final_reasons(block: pa.Table, copies: pa.Table) -> pa.Table:
    """Drop copies and contaminated rows. A row that is both gets the reason of the copy. Fingerprints are removed."""
    copies = copies.filter(pc.is_in(copies["row"], value_set=block["row"].combine_chunks()))
    copied = {row["row"]: Dropped(row["reason"], row["evidence"]) for row in copies.to_pylist()}
    rows = block.select(["row", "reason", "evidence", "contamination"]).to_pylist()
    for row in rows:
        dropped = copied.get(row["row"])
        if row["contamination"] and not dropped:
            dropped = Dropped("contaminated", row["contamination"])
        row |= dropped._asdict() if dropped else {}
    block = block.drop_columns(["text", "shingles", "bands"])
    for name in ("reason", "evidence"):
        values = pa.array([row[name] for row in rows], pa.string())
        block = block.set_column(block.schema.get_field_index(name), name, values)
    return block


@ray.remote(num_cpus=CHECK_CPUS)
def split_bounds_of_blocks(config: Clean, *blocks: pa.Table) -> Bounds:
    """The split keys at which the splits of the kept rows begin and end."""
    rows = pa.concat_tables(blocks)
    keys = rows["split_key"].filter(pc.is_null(rows["reason"])).to_numpy()
    return split_bounds(keys.astype(np.uint64), config.validation, config.test)


def add_split(block: pa.Table, bounds: Bounds) -> pa.Table:
    keys = pc.fill_null(block["split_key"], 0).to_numpy()
    return block.append_column("split", splits_of(keys, bounds))


def write_kept_and_dropped(block: pa.Table, kept: StageTable, dropped: StageTable) -> None:
    kept.write_part(block.filter(pc.is_null(block["reason"])))
    dropped.write_part(block.filter(pc.is_valid(block["reason"])))


def clean(
    config: Clean, limits: JudgeLimits, seed: int, excluded: dict[str, str], kept: StageTable, dropped: StageTable
) -> None:
    """Check every row, find copies, assign splits and write both tables.

    Args:
        config: with a resolved source.
        limits: of the judge processes.
        seed: of the sandbox's rows.
        excluded: benchmarks as {name: resolved source}.
        kept, dropped: the tables.
    """
    raw, total = train_problems(config, seed)
    index = benchmark_index.options(**stage_options()).remote(excluded)

    def count() -> int:
        return kept.count_rows() + dropped.count_rows()

    with progress("clean", total, count, watch=Watched(kept.stage)), readable_source():
        checked = raw.map_batches(
            CheckActor,
            batch_format="pyarrow",
            batch_size=BATCH_ROWS,
            num_cpus=CHECK_CPUS,
            concurrency=config.workers,
            fn_constructor_args=(config, limits, [index]),
        ).materialize()
        fingerprints = checked.select_columns(list(FINGERPRINT)).to_arrow_refs()
        copies = find_copies_in_blocks.options(**stage_options()).remote(config.near_duplicate, *fingerprints)
        decided = _map_blocks(checked, lambda block: final_reasons(block, ray.get(copies))).materialize()
        split_keys = decided.select_columns(["split_key", "reason"]).to_arrow_refs()
        bounds = split_bounds_of_blocks.options(**stage_options()).remote(config, *split_keys)
        split = _map_blocks(decided, lambda block: add_split(block, ray.get(bounds)))
        write_dataset(split, partial(write_kept_and_dropped, kept=kept, dropped=dropped))


def _map_blocks(dataset: ray.data.Dataset, work: Callable[[pa.Table], pa.Table]) -> ray.data.Dataset:
    return dataset.map_batches(work, batch_format="pyarrow", batch_size=None)


def summary(kept: int, reasons: dict[str, int]) -> str:
    """A table of the kept rows and of each reason, in the order of the rules, with shares of all rows."""
    total = max(kept + sum(reasons.values()), 1)
    counts = {"kept": kept} | {reason: reasons[reason] for reason in REASONS if reason in reasons}
    rows = [(name, f"{count:,}", f"{count / total:.1%}") for name, count in counts.items()]
    return tabulate(
        [*rows, ("all", f"{total:,}", "")], headers=("rows", "count", "share"), colalign=("left", "right", "right")
    )


def run(recipe: Recipe) -> None:
    stage = open_stage(recipe, "clean", inputs=(), keep_parts=False)
    if stage is None:
        return
    kept, dropped = stage_table(recipe, "clean").claim(), stage_table(recipe, "dropped").claim()
    config = recipe.clean
    named = {name: benchmark_source(name, recipe.evaluate.benchmark_folder) for name in config.exclude}
    with ray_session(folder=stage.folder, nodes=stage.nodes):
        sources = pin_sources(stage.folder, {config.source: config.source} | named)
        excluded = {name: sources[name] for name in named}
        clean(replace(config, source=sources[config.source]), recipe.judge, recipe.seed, excluded, kept, dropped)
        kept, dropped = stage.publish(kept), stage.publish(dropped)
    reasons = value_counts(dropped, "reason")
    print(summary(kept.count_rows(), reasons), flush=True)
    if not kept.count_rows():
        raise UserError(
            f"no problem of {recipe.clean.source} was kept, and later stages need some; rows by reason: {reasons}. The evidence "
            f"is in {dropped.folder}: use another source, or columns of the source that have problems and answers"
        )
    stage.close(
        kept=kept.count_rows(),
        dropped=dropped.count_rows(),
        splits=value_counts(kept, "split"),
        reasons=reasons,
        sources=sources,
    )


if __name__ == "__main__":
    cli(run, "pipelines.clean")
