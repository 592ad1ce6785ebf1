"""Reads tables problem by problem: a join by `problem_id` that shuffles no tokens and holds no table in memory.

The row groups of a table hold rows of any problems. One scan finds which row groups have rows of which problem, and only these
counts reach the driver. Problems are then grouped into batches, and the task that gets a batch reads the row groups of its
problems. Stages write rows in about the order in which they read them, so problems of one batch share row groups, and all
tasks together read each only a few times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby, pairwise
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray

from pipelines.tables.stage_table import RowGroup, StageTable, open_file
from pipelines.tables.tasks import map_items
from vgs_ray.data.order import by_locality
from vgs_ray.data.storage import storage_path

GROUPS_PER_TASK = 64
ROW_COUNTS = pa.schema([("problem_id", pa.string()), ("group", pa.int64()), ("rows", pa.int64())])


class ProblemBatch(NamedTuple):
    """Some problems, and the row groups with their rows, by the name of the table."""

    problems: list[str]
    groups: dict[str, list[dict[str, Any]]]

    def read_rows(self, table: StageTable, columns: list[str]) -> pa.Table:
        """The rows of these problems in one table."""
        rows = table.read_groups(self.groups[table.name], list(dict.fromkeys([*columns, "problem_id"])))
        return rows.filter(pc.is_in(rows["problem_id"], pa.array(self.problems, pa.string()))).select(columns)


class ProblemGroups(NamedTuple):
    """Which row groups hold the rows of which problem.

    Attributes:
        groups: row groups, by the name of the table.
        row_counts: for each table, rows of each problem in each row group, as `ROW_COUNTS`; `group` is an index into `groups`.
    """

    groups: dict[str, list[RowGroup]]
    row_counts: dict[str, pa.Table]

    @classmethod
    def scan(cls, tables: Iterable[StageTable]) -> ProblemGroups:
        """Read the problem ids of all rows. The first table decides which problems are batched together."""
        groups = {table.name: table.row_groups() for table in tables}
        return cls(groups, {name: _count_rows(each) for name, each in groups.items()})

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
        order = by_locality(codes, counts["group"].to_numpy())
        rows = np.bincount(codes, weights=counts["rows"].to_numpy())
        offsets = _batch_offsets(rows[order], max_rows)
        batch_of = np.empty(len(problems), np.int64)
        batch_of[order] = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        groups = {name: self._groups_of_batches(name, problems, batch_of) for name in self.groups}
        return [
            ProblemBatch(problems[order[begin:end]].tolist(), {name: of.get(batch, []) for name, of in groups.items()})
            for batch, (begin, end) in enumerate(pairwise(offsets))
        ]

    def _groups_of_batches(
        self, table: str, problems: np.ndarray, batch_of: np.ndarray
    ) -> dict[int, list[dict[str, Any]]]:
        """The row groups of one table that each batch has to read."""
        counts = self.row_counts[table]
        codes = pc.index_in(counts["problem_id"], value_set=pa.array(problems, pa.string()))
        counts = counts.append_column("code", codes).filter(pc.is_valid(codes))
        pairs = np.unique(np.stack([batch_of[counts["code"].to_numpy()], counts["group"].to_numpy()]), axis=1)
        groups: dict[int, list[dict[str, Any]]] = {}
        for batch, group in pairs.T.tolist():
            groups.setdefault(batch, []).append(self.groups[table][group]._asdict())
        return groups


def _batch_offsets(rows: np.ndarray, max_rows: int) -> list[int]:
    """Where batches begin, and the end: each has at most `max_rows` rows or one problem. `rows` has those of each problem."""
    offsets, in_batch = [0], 0.0
    for index, count in enumerate(rows):
        if in_batch and in_batch + count > max_rows:
            offsets.append(index)
            in_batch = 0.0
        in_batch += count
    return [*offsets, len(rows)] if len(rows) else offsets


def _count_rows(groups: list[RowGroup]) -> pa.Table:
    """How many rows of each problem each row group has, as `ROW_COUNTS`."""
    if not groups:
        return ROW_COUNTS.empty_table()
    items = []
    for file, of_file in groupby(enumerate(groups), key=lambda each: each[1].file):
        numbered = [(index, group.number) for index, group in of_file]
        for begin in range(0, len(numbered), GROUPS_PER_TASK):
            indices, numbers = zip(*numbered[begin : begin + GROUPS_PER_TASK], strict=True)
            items.append({"file": file, "indices": indices, "numbers": numbers})
    counted = map_items(items, _count_rows_in_groups, num_cpus=0.5)
    counts = pa.concat_tables(ray.get(counted.to_arrow_refs()))
    return counts.sort_by([("problem_id", "ascending"), ("group", "ascending")])


def _count_rows_in_groups(item: dict[str, Any]) -> Iterator[pa.Table]:
    """The counts of some row groups of one file, which is opened once."""
    file = open_file(storage_path(item["file"]))
    for index, number in zip(item["indices"], item["numbers"], strict=True):
        rows = file.read_row_groups([number], columns=["problem_id"])
        ids = rows.group_by("problem_id").aggregate([([], "count_all")])
        group = pa.array([index] * len(ids), pa.int64())
        yield pa.table([ids["problem_id"], group, ids["count_all"]], schema=ROW_COUNTS)


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
