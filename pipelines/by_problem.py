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

from pipelines.tables import Parts
from vgs_ray.order import by_locality

FILES_PER_TASK = 64


class Batch(NamedTuple):
    """Some problems, and for each table the files that hold their rows."""

    problems: list[str]
    files: dict[str, list[str]]

    def read(self, name: str, parts: Parts, columns: list[str]) -> pa.Table:
        """The rows of these problems in one table."""
        files = self.files[name]
        if not files:
            return parts.schema.empty_table().select(columns)
        chosen = pc.field("problem_id").isin(pa.array(self.problems, pa.string()))
        return pads.dataset(files, schema=parts.schema).to_table(columns=columns, filter=chosen)


def problem_batches(tables: dict[str, Parts], rows: int, among: list[str] | None = None) -> list[Batch]:
    """Every problem of the first table in one batch, with at most `rows` rows of that table unless one problem has more.

    Args:
        tables: by stage; the first one decides which problems lie together.
        rows: the batch's size in rows of the first table.
        among: only these problems; None takes all.
    """
    places = {name: _places(parts, among) for name, parts in tables.items()}
    first = next(iter(places.values()))
    names, codes = np.unique(first["problem_id"].to_numpy(), return_inverse=True)
    order = by_locality(codes, first["file"].to_numpy())
    sizes = np.bincount(codes, weights=first["rows"].to_numpy())[order]
    bounds = _bounds(sizes, rows)
    batch_of = np.empty(len(names), np.int64)
    batch_of[order] = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))
    files = {name: _files_of_batches(table, names, batch_of, tables[name]) for name, table in places.items()}
    return [
        Batch(names[order[begin:end]].tolist(), {name: found.get(index, []) for name, found in files.items()})
        for index, (begin, end) in enumerate(pairwise(bounds))
    ]


def _bounds(sizes: np.ndarray, most: int) -> list[int]:
    """Where batches begin and end, so that each holds at most `most` rows or one problem."""
    bounds, held = [0], 0.0
    for index, size in enumerate(sizes):
        if held and held + size > most:
            bounds.append(index)
            held = 0.0
        held += size
    return [*bounds, len(sizes)] if len(sizes) else bounds


def _places(parts: Parts, among: list[str] | None) -> pa.Table:
    """(problem_id, file, rows): how many rows of each problem each file has; files by their number in `parts.files()`."""
    files = [{"file": index, "path": path} for index, path in enumerate(parts.files())]
    if not files:
        return PLACES.empty_table()
    tasks = ray.data.from_items(files, override_num_blocks=math.ceil(len(files) / FILES_PER_TASK))
    counted = tasks.map_batches(count_rows, batch_format="pyarrow", batch_size=None, num_cpus=0.5)
    places = pa.concat_tables(ray.get(counted.to_arrow_refs()))
    if among is not None:
        places = places.filter(pc.is_in(places["problem_id"], value_set=pa.array(among, pa.string())))
    return places.sort_by([("problem_id", "ascending"), ("file", "ascending")])


PLACES = pa.schema([("problem_id", pa.string()), ("file", pa.int64()), ("rows", pa.int64())])


def count_rows(batch: pa.Table) -> Iterator[pa.Table]:
    """Rows of each problem in each file."""
    for row in batch.to_pylist():
        ids = pq.read_table(row["path"], columns=["problem_id"]).group_by("problem_id").aggregate([([], "count_all")])
        file = pa.array([row["file"]] * len(ids), pa.int64())
        yield pa.table([ids["problem_id"], file, ids["count_all"]], schema=PLACES)


def _files_of_batches(places: pa.Table, names: np.ndarray, batch_of: np.ndarray, parts: Parts) -> dict[int, list[str]]:
    """The files of one table that each batch has to read."""
    paths = parts.files()
    codes = pc.index_in(places["problem_id"], value_set=pa.array(names, pa.string()))
    places = places.append_column("code", codes).filter(pc.is_valid(codes))
    batches = batch_of[places["code"].to_numpy()]
    pairs = np.unique(np.stack([batches, places["file"].to_numpy()]), axis=1)
    found: dict[int, list[str]] = {}
    for batch, file in pairs.T.tolist():
        found.setdefault(batch, []).append(paths[file])
    return found


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


def arrays(column: pa.ChunkedArray) -> list[np.ndarray]:
    """Lists of numbers, without a Python object for each number."""
    return [row.values.to_numpy() for row in column]
