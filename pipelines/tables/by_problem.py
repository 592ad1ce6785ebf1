"""Reads tables problem by problem: a join by `problem_id` that shuffles no tokens and holds no table in memory.

The parts of a table hold rows of any problems. One scan finds which files have rows of which problem, and only these counts
reach the driver. Problems are then grouped into batches, and the task that gets a batch reads the files of its problems.
Stages write rows in about the order in which they read them, so problems of one batch share files, and all tasks together
read each file only a few times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import ray

from pipelines.tables.stage_table import StageTable
from pipelines.tables.tasks import map_items
from vgs_ray.data.order import by_locality

FILES_PER_TASK = 64
ROW_COUNTS = pa.schema([("problem_id", pa.string()), ("file", pa.int64()), ("rows", pa.int64())])


class ProblemBatch(NamedTuple):
    """Some problems, and the files with their rows, by the name of the table."""

    problems: list[str]
    files: dict[str, list[str]]

    def read_rows(self, table: StageTable, columns: list[str]) -> pa.Table:
        """The rows of these problems in one table."""
        files = self.files[table.name]
        if not files:
            return table.schema.empty_table().select(columns)
        of_problems = pc.field("problem_id").isin(pa.array(self.problems, pa.string()))
        return pads.dataset(files, schema=table.schema).to_table(columns=columns, filter=of_problems)


class ProblemFiles(NamedTuple):
    """Which files hold the rows of which problem.

    Attributes:
        files: paths, by the name of the table.
        row_counts: for each table, rows of each problem in each file, as `ROW_COUNTS`; `file` is an index into `files`.
    """

    files: dict[str, list[str]]
    row_counts: dict[str, pa.Table]

    @classmethod
    def scan(cls, tables: Iterable[StageTable]) -> ProblemFiles:
        """Read the problem ids of all parts. The first table decides which problems are batched together."""
        files = {table.name: table.part_files() for table in tables}
        return cls(files, {name: _count_rows(paths) for name, paths in files.items()})

    def batches(self, max_rows: int, among: pa.Array | None = None) -> list[ProblemBatch]:
        """All problems of the first table, each in one batch.

        Args:
            max_rows: rows of the first table in a batch; a batch of one problem may have more.
            among: only these problems; None takes all.
        """
        counts = next(iter(self.row_counts.values()))
        if among is not None:
            counts = counts.filter(pc.is_in(counts["problem_id"], value_set=among))
        problems, codes = np.unique(counts["problem_id"].to_numpy(), return_inverse=True)
        order = by_locality(codes, counts["file"].to_numpy())
        rows = np.bincount(codes, weights=counts["rows"].to_numpy())
        offsets = _batch_offsets(rows[order], max_rows)
        batch_of = np.empty(len(problems), np.int64)
        batch_of[order] = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        files = {name: self._files_of_batches(name, problems, batch_of) for name in self.files}
        return [
            ProblemBatch(problems[order[begin:end]].tolist(), {name: of.get(batch, []) for name, of in files.items()})
            for batch, (begin, end) in enumerate(pairwise(offsets))
        ]

    def _files_of_batches(self, table: str, problems: np.ndarray, batch_of: np.ndarray) -> dict[int, list[str]]:
        """The files of one table that each batch has to read."""
        counts = self.row_counts[table]
        codes = pc.index_in(counts["problem_id"], value_set=pa.array(problems, pa.string()))
        counts = counts.append_column("code", codes).filter(pc.is_valid(codes))
        pairs = np.unique(np.stack([batch_of[counts["code"].to_numpy()], counts["file"].to_numpy()]), axis=1)
        files: dict[int, list[str]] = {}
        for batch, file in pairs.T.tolist():
            files.setdefault(batch, []).append(self.files[table][file])
        return files


def _batch_offsets(rows: np.ndarray, max_rows: int) -> list[int]:
    """Where batches begin, and the end: each has at most `max_rows` rows or one problem. `rows` has those of each problem."""
    offsets, in_batch = [0], 0.0
    for index, count in enumerate(rows):
        if in_batch and in_batch + count > max_rows:
            offsets.append(index)
            in_batch = 0.0
        in_batch += count
    return [*offsets, len(rows)] if len(rows) else offsets


def _count_rows(paths: list[str]) -> pa.Table:
    """How many rows of each problem each file has, as `ROW_COUNTS`."""
    if not paths:
        return ROW_COUNTS.empty_table()
    items = [{"file": index, "path": path} for index, path in enumerate(paths)]
    counted = map_items(items, _count_rows_in_file, FILES_PER_TASK, num_cpus=0.5)
    counts = pa.concat_tables(ray.get(counted.to_arrow_refs()))
    return counts.sort_by([("problem_id", "ascending"), ("file", "ascending")])


def _count_rows_in_file(item: dict[str, Any]) -> pa.Table:
    ids = pq.read_table(item["path"], columns=["problem_id"]).group_by("problem_id").aggregate([([], "count_all")])
    file = pa.array([item["file"]] * len(ids), pa.int64())
    return pa.table([ids["problem_id"], file, ids["count_all"]], schema=ROW_COUNTS)


def map_problems(batches: list[ProblemBatch], work: Callable[..., pa.Table], **shared: Any) -> ray.data.Dataset:
    """Call `work(batch, **shared)` for each batch, each in a task of its own."""
    items = [batch._asdict() for batch in batches]
    return map_items(items, lambda item: work(ProblemBatch(**item), **shared))


def align(table: pa.Table, key: str, keys: pa.ChunkedArray) -> pa.Table:
    """The rows of `table` in the order of `keys`, each as often as its key occurs there.

    Raises:
        ValueError: a key has no row.
    """
    table = table.combine_chunks()
    rows = pc.index_in(keys, value_set=table[key].combine_chunks())
    if rows.null_count:
        missing = keys.filter(pc.is_null(rows))[0].as_py()
        raise ValueError(
            f"{key} {missing} has no row; the tables of a run must have the same ids: run their stages again in order"
        )
    return table.take(rows)
