"""Whole problems at a time: tables are joined without a shuffle of tokens and without a table in memory.

In: tables whose rows lie in parts in any order. Out: batches of problems, each with the files that hold its rows. Only
(problem, file) pairs come to the driver; a batch reads its own files, so memory is bounded by a batch. Problems of one
batch share files (stages write in nearly the same order as they read), so that all batches together read each file a few
times, however many files there are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import ray

from pipelines.tables.stage_table import StageTable
from vgs_ray.data.order import by_locality

FILES_PER_TASK = 64


class Batch(NamedTuple):
    """Some problems, and for each table the files that hold their rows."""

    problems: list[str]
    files: dict[str, list[str]]

    def read(self, name: str, parts: StageTable, columns: list[str]) -> pa.Table:
        """The rows of these problems in one table."""
        files = self.files[name]
        if not files:
            return parts.schema.empty_table().select(columns)
        chosen = pc.field("problem_id").isin(pa.array(self.problems, pa.string()))
        return pads.dataset(files, schema=parts.schema).to_table(columns=columns, filter=chosen)


class Places(NamedTuple):
    """Where the rows of every problem are: for each table (problem_id, file, rows), files by their number in `files`."""

    files: dict[str, list[str]]
    pairs: dict[str, pa.Table]

    @classmethod
    def find(cls, tables: dict[str, StageTable]) -> Places:
        """Read the problem ids of all parts. The first table decides which problems lie together."""
        files = {name: parts.part_files() for name, parts in tables.items()}
        return cls(files, {name: _pairs(paths) for name, paths in files.items()})

    def batches(self, rows: int, among: pa.Array | None = None) -> list[Batch]:
        """Every problem of the first table in one batch, of at most `rows` rows unless one problem has more.

        Args:
            rows: size of a batch in rows of the first table.
            among: only these problems; None takes all.
        """
        first = next(iter(self.pairs.values()))
        if among is not None:
            first = first.filter(pc.is_in(first["problem_id"], value_set=among))
        names, codes = np.unique(first["problem_id"].to_numpy(), return_inverse=True)
        order = by_locality(codes, first["file"].to_numpy())
        bounds = _bounds(np.bincount(codes, weights=first["rows"].to_numpy())[order], rows)
        batch_of = np.empty(len(names), np.int64)
        batch_of[order] = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))
        files = {name: self._files_of(name, names, batch_of) for name in self.pairs}
        return [
            Batch(names[order[begin:end]].tolist(), {name: found.get(index, []) for name, found in files.items()})
            for index, (begin, end) in enumerate(pairwise(bounds))
        ]

    def _files_of(self, table: str, names: np.ndarray, batch_of: np.ndarray) -> dict[int, list[str]]:
        """The files of one table that each batch has to read."""
        pairs = self.pairs[table]
        codes = pc.index_in(pairs["problem_id"], value_set=pa.array(names, pa.string()))
        pairs = pairs.append_column("code", codes).filter(pc.is_valid(codes))
        found: dict[int, list[str]] = {}
        distinct = np.unique(np.stack([batch_of[pairs["code"].to_numpy()], pairs["file"].to_numpy()]), axis=1)
        for batch, file in distinct.T.tolist():
            found.setdefault(batch, []).append(self.files[table][file])
        return found


def _bounds(sizes: np.ndarray, most: int) -> list[int]:
    """Where batches begin and end, so that each holds at most `most` rows or one problem."""
    bounds, held = [0], 0.0
    for index, size in enumerate(sizes):
        if held and held + size > most:
            bounds.append(index)
            held = 0.0
        held += size
    return [*bounds, len(sizes)] if len(sizes) else bounds


def _pairs(paths: list[str]) -> pa.Table:
    """How many rows of each problem each file has."""
    if not paths:
        return PAIRS.empty_table()
    files = [{"file": index, "path": path} for index, path in enumerate(paths)]
    tasks = ray.data.from_items(files, override_num_blocks=math.ceil(len(files) / FILES_PER_TASK))
    counted = tasks.map_batches(count_rows, batch_format="pyarrow", batch_size=None, num_cpus=0.5)
    pairs = pa.concat_tables(ray.get(counted.to_arrow_refs()))
    return pairs.sort_by([("problem_id", "ascending"), ("file", "ascending")])


PAIRS = pa.schema([("problem_id", pa.string()), ("file", pa.int64()), ("rows", pa.int64())])


def count_rows(batch: pa.Table) -> Iterator[pa.Table]:
    """Rows of each problem in each file."""
    for row in batch.to_pylist():
        ids = pq.read_table(row["path"], columns=["problem_id"]).group_by("problem_id").aggregate([([], "count_all")])
        file = pa.array([row["file"]] * len(ids), pa.int64())
        yield pa.table([ids["problem_id"], file, ids["count_all"]], schema=PAIRS)


def map_problems(batches: list[Batch], work: Callable[..., pa.Table], **shared: Any) -> ray.data.Dataset:
    """Run `work(batch, **shared)` for each batch, one batch a task."""

    def each(items: pa.Table) -> Iterator[pa.Table]:
        for item in items.to_pylist():
            yield work(Batch(item["problems"], item["files"]), **shared)

    items = [batch._asdict() for batch in batches]
    return ray.data.from_items(items, override_num_blocks=max(len(items), 1)).map_batches(
        each, batch_format="pyarrow", batch_size=None
    )


def align(table: pa.Table, key: str, keys: pa.ChunkedArray) -> pa.Table:
    """The rows of `table` in the order of `keys`, each as often as it occurs there.

    Raises:
        ValueError: a key has no row.
    """
    table = table.combine_chunks()
    at = pc.index_in(keys, value_set=table[key].combine_chunks())
    if at.null_count:
        missing = keys.filter(pc.is_null(at))[0].as_py()
        raise ValueError(f"{key} {missing} has no row; tables of one run must fit together: run their stages again")
    return table.take(at)
