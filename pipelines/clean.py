"""clean: raw problems -> `problems` (kept) and `problems_dropped` (with a reason and the evidence).

Every row is checked by itself in parallel; the fingerprints of those that pass meet in one task, which finds the copies;
then the rows that are kept get their splits and all are written. Rows, ids and fingerprints stay in Ray's object store: on the
driver there are only counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray.data import Datasink
from ray.data.block import BlockAccessor
from tabulate import tabulate

from pipelines.cli import cli
from pipelines.session import progress, ray_session
from pipelines.tables.sources import benchmark_texts, readable_source, resolved, train_problems
from pipelines.tables.stage import open_stage
from pipelines.tables.stage_table import StageTable, stage_table, value_counts
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


class CheckRows:
    """An actor with one judging process: what each row shows by itself, and its fingerprint."""

    def __init__(self, config: Clean, limits: JudgeLimits, index: ray.ObjectRef) -> None:
        self.config = config
        self.index: BenchmarkIndex = ray.get(index[0])
        self.judge = Judge(workers=1, timeout_s=limits.timeout_s, memory_gib=limits.memory_gib)
        self._readable = lru_cache(100_000)(self._parses)  # answers repeat: most are small numbers, letters, fractions

    def __call__(self, batch: pa.Table) -> pa.Table:
        return pa.Table.from_pylist([self._checked(row) for row in batch.to_pylist()], schema=PROBLEMS_CHECKED)

    def _checked(self, row: dict[str, Any]) -> dict[str, Any]:
        if not self.config.answer_column:
            row["answer"] = boxed_answer(row["solution"])
        dropped = check(row, self._equal, self._readable)
        row |= dropped._asdict() if dropped else {"reason": None, "evidence": None}
        if dropped:
            return row
        identity = problem_id(row["problem"])
        row |= {"problem_id": identity, "split_key": split_key(identity)}
        return row | fingerprint(row["problem"])._asdict() | {"contamination": self._contamination(row["problem"])}

    def _equal(self, gold: str, answer: str) -> bool:
        return self.judge.judge_pairs([(gold, answer)])[gold, answer].equivalent is True

    def _parses(self, answer: str) -> bool:
        """math-verify tells of a gold answer that it can't read, whatever it is compared with."""
        return self.judge.judge_pairs([(answer, "0")])[answer, "0"].equivalent is not None

    def _contamination(self, problem: str) -> str | None:
        found = overlap(problem, self.index)
        if found is None or found.share <= self.config.contamination:
            return None
        return f"{found.name}, {found.share:.0%} of the 8-grams, such as: {found.gram}"


@ray.remote(num_cpus=CHECK_CPUS)
def benchmark_index(sources: dict[str, str]) -> BenchmarkIndex:
    """The 8-grams of all benchmarks that must not be trained on, given by name and source."""
    return index_benchmarks(text for name, source in sources.items() for text in benchmark_texts(name, source))


@ray.remote(num_cpus=CHECK_CPUS)
def copies(threshold: float, *blocks: pa.Table) -> pa.Table:
    """The copies among all rows: row, reason, evidence. The only place where fingerprints of all rows meet."""
    found = find_copies((row for block in blocks for row in _candidates(block)), threshold)
    schema = pa.schema([("row", pa.int64()), ("reason", pa.string()), ("evidence", pa.string())])
    return pa.Table.from_pylist([copy._asdict() for copy in found], schema=schema)


def _candidates(block: pa.Table) -> Iterator[FingerprintedRow]:
    block = block.filter(pc.is_valid(block["text"])).combine_chunks()
    shingles, bands = (block[name].chunk(0) if block.num_rows else () for name in ("shingles", "bands"))
    rows, answers, texts = (block[name].to_pylist() for name in ("row", "answer", "text"))
    for row, answer, text, own, keys in zip(rows, answers, texts, shingles, bands, strict=True):
        yield FingerprintedRow(row, answer, Fingerprint(text, own.values.to_numpy(), keys.values.to_numpy()))


def mark(batch: pa.Table, found: pa.Table) -> pa.Table:
    """Give the rows that passed by themselves their final reason: a copy first, then contamination."""
    found = found.filter(pc.is_in(found["row"], value_set=batch["row"].combine_chunks()))
    copied = {row["row"]: Dropped(row["reason"], row["evidence"]) for row in found.to_pylist()}
    rows = batch.select(["row", "reason", "evidence", "contamination"]).to_pylist()
    for row in rows:
        dropped = copied.get(row["row"])
        if row["contamination"] and not dropped:
            dropped = Dropped("contaminated", row["contamination"])
        row |= dropped._asdict() if dropped else {}
    batch = batch.drop_columns(["text", "shingles", "bands"])  # of no more use
    for name in ("reason", "evidence"):
        values = pa.array([row[name] for row in rows], pa.string())
        batch = batch.set_column(batch.schema.get_field_index(name), name, values)
    return batch


@ray.remote(num_cpus=CHECK_CPUS)
def bounds(config: Clean, *blocks: pa.Table) -> Bounds:
    """Where the splits of the kept rows begin and end."""
    rows = pa.concat_tables(blocks)
    keys = rows["split_key"].filter(pc.is_null(rows["reason"])).to_numpy()
    return split_bounds(keys.astype(np.uint64), config.validation, config.test)


def with_split(batch: pa.Table, found: Bounds) -> pa.Table:
    keys = pc.fill_null(batch["split_key"], 0).to_numpy()
    return batch.append_column("split", splits_of(keys, found))


class TwoTables(Datasink):
    """Makes each block durable: the kept rows in one table, the dropped ones in the other."""

    def __init__(self, kept: StageTable, dropped: StageTable) -> None:
        self.kept, self.dropped = kept, dropped

    def write(self, blocks: Iterable[Any], ctx: Any) -> None:
        for block in blocks:
            table = BlockAccessor.for_block(block).to_arrow()
            self.kept.write_part(table.filter(pc.is_null(table["reason"])))
            self.dropped.write_part(table.filter(pc.is_valid(table["reason"])))


def clean(
    config: Clean, limits: JudgeLimits, seed: int, excluded: dict[str, str], kept: StageTable, dropped: StageTable
) -> None:
    """Check every row, find the copies among those that pass, split what is kept, and write both tables.

    Args:
        config: its source is resolved.
        limits: of the judging processes.
        seed: of the sandbox's rows.
        excluded: benchmarks by name, with their resolved sources.
        kept, dropped: the tables.
    """
    raw, total = train_problems(config, seed)
    index = benchmark_index.remote(excluded)
    with progress("clean", total, lambda: kept.count_rows() + dropped.count_rows()), readable_source():
        checked = raw.map_batches(
            CheckRows,
            batch_format="pyarrow",
            batch_size=BATCH_ROWS,
            num_cpus=CHECK_CPUS,
            concurrency=config.workers,
            fn_constructor_args=(config, limits, [index]),
        ).materialize()
        found = copies.remote(config.near_duplicate, *checked.select_columns(list(FINGERPRINT)).to_arrow_refs())
        marked = checked.map_batches(
            lambda batch: mark(batch, ray.get(found)), batch_format="pyarrow", batch_size=None
        ).materialize()
        places = bounds.remote(config, *marked.select_columns(["split_key", "reason"]).to_arrow_refs())
        split = marked.map_batches(
            lambda batch: with_split(batch, ray.get(places)), batch_format="pyarrow", batch_size=None
        )
        split.write_datasink(TwoTables(kept, dropped), ray_remote_args={"num_cpus": 0.1})


def summary(kept: int, reasons: dict[str, int]) -> str:
    """Kept rows and each reason with its share, in the order of the rules."""
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
    kept, dropped = stage_table(recipe, "clean"), stage_table(recipe, "dropped")
    dropped.folder.mkdir(parents=True, exist_ok=True)
    config = recipe.clean
    named = {name: benchmark_source(name, recipe.evaluate.benchmark_folder) for name in config.exclude}
    with ray_session(folder=stage.folder):
        found = resolved(stage.folder, {config.source: config.source} | named)
        excluded = {name: found[name] for name in named}
        clean(replace(config, source=found[config.source]), recipe.judge, recipe.seed, excluded, kept, dropped)
    reasons = value_counts(dropped, "reason")
    print(summary(kept.count_rows(), reasons), flush=True)
    if not kept.count_rows():
        raise UserError(f"no problem of {recipe.clean.source} was kept; reasons: {reasons}: look at {dropped.folder}")
    stage.close(
        kept=kept.count_rows(),
        dropped=dropped.count_rows(),
        splits=value_counts(kept, "split"),
        reasons=reasons,
        sources=found,
    )


if __name__ == "__main__":
    cli(run, "pipelines.clean")
