"""The training store: tokens of the tables in uncompressed, memory-mapped Arrow files, joined by an index.

In: Parquet files of `labels`, `roll_ins` and `roll_outs`. Out: a folder on the node's own disk, with one Arrow file for each of
them. Workers map the files instead of loading them, so the operating system's page cache holds them once for all workers of a
node.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vgs_ray.data.files import atomic_file
from vgs_ray.data.parquet import parquet_dataset, parquet_file, retried, row_batches
from vgs_ray.data.schemas import TOKENS
from vgs_ray.data.storage import AnyPath
from vgs_ray.errors import UserError

SPLITS = ("train", "validation")
BATCH_ROWS = 256
"""Rows of a record batch: 16 MiB of tokens if each row has 16,384."""
MAX_THREADS = 16
VALUES = pa.list_(pa.float32())
COPIED = {
    "roll_ins": pa.schema({"roll_in_id": pa.string(), "prompt": TOKENS, "tokens": TOKENS}),
    "roll_outs": pa.schema({"roll_out_id": pa.string(), "tokens": TOKENS}),
    "labels": pa.schema({"roll_out_id": pa.string(), "values": VALUES}),
}
LABEL_COLUMNS = ("roll_out_id", "roll_in_id", "problem_id", "cut", "split", "label")
Rows = NDArray[np.int64]


class Sources(NamedTuple):
    """Parquet files of each table."""

    labels: Sequence[AnyPath]
    roll_ins: Sequence[AnyPath]
    roll_outs: Sequence[AnyPath]


class FileCopy(NamedTuple):
    """One Parquet file to copy into the store."""

    table: str
    source: AnyPath
    target: Path


def build_store(sources: Sources, folder: Path, threads: int = 0) -> None:
    """Write the files of the store that do not exist yet. No other process may be writing them.

    Args:
        sources: the tables.
        folder: folder of the store, on a local disk.
        threads: files copied at a time; by default the number of CPUs, at most `MAX_THREADS`.

    Raises:
        FileNotFoundError: a table has no rows.
        UserError: the disk is full.
        ValueError: a label has no tokens, or another number of values than roll-out tokens.
    """
    missing = [job for job in file_copies(sources, folder) if not job.target.exists()]
    with ThreadPoolExecutor(threads or min(os.cpu_count() or 1, MAX_THREADS)) as pool:
        _check_space(folder, sum(pool.map(_bytes_of_copy, missing)))
        for _ in pool.map(copy_file, missing):  # raises what a copy raised
            pass
    if not all(_index_path(folder, split).exists() for split in SPLITS):
        write_indexes(sources, folder)


def file_copies(sources: Sources, folder: Path) -> list[FileCopy]:
    """All files to copy; the copies are independent of each other.

    Raises:
        FileNotFoundError: a table has no files.
    """
    copies = []
    for table, files in sources._asdict().items():
        if not files:
            raise FileNotFoundError(f"table {table} has no rows; training reads that table: run its stage first")
        copies += [FileCopy(table, file, folder / table / f"{index:05d}.arrow") for index, file in enumerate(files)]
    return copies


def _bytes_of_copy(job: FileCopy) -> int:
    """Size of the numbers in the lists of a file, from its footer. Ids are small beside them."""
    with parquet_file(job.source) as file:
        footer = file.metadata
    lists = {field.name for field in COPIED[job.table] if pa.types.is_list(field.type)}
    groups = (footer.row_group(index) for index in range(footer.num_row_groups))
    columns = (group.column(index) for group in groups for index in range(group.num_columns))
    return sum(4 * column.num_values for column in columns if column.path_in_schema.partition(".")[0] in lists)


def _check_space(folder: Path, needed: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{folder} on {socket.gethostname()} has {free / 1e9:,.1f} GB free, and the tokens to train on take "
            f"{needed / 1e9:,.1f} GB on the disk of each node that trains: free some space, or start Ray with TMPDIR set to a "
            "folder on a larger disk"
        )


def copy_file(job: FileCopy) -> None:
    """Write the columns of one file uncompressed. Only a few batches of rows are in memory at a time."""
    job.target.parent.mkdir(parents=True, exist_ok=True)
    schema = COPIED[job.table]
    with (
        atomic_file(job.target) as temporary,
        pa.OSFile(str(temporary), "wb") as file,
        pa.ipc.new_file(file, schema) as sink,
    ):
        for batch in row_batches(job.source, schema.names, BATCH_ROWS):
            for name in schema.names:
                if name not in batch.schema.names:  # labels without values
                    batch = batch.append_column(name, pa.nulls(len(batch), schema.field(name).type))
            sink.write_batch(batch.select(schema.names).cast(schema))


def write_indexes(sources: Sources, folder: Path) -> None:
    """Join the labels with the rows of the store, sorted by problem; one index for each split.

    Raises:
        ValueError: a label has no tokens, or another number of values than roll-out tokens.
    """
    labels = retried(partial(parquet_dataset(sources.labels).to_table, columns=list(LABEL_COLUMNS)))
    ins, outs, values = (_open_all(folder / table) for table in COPIED)
    in_row = _rows_of(labels["roll_in_id"], ins["roll_in_id"])
    out_row = _rows_of(labels["roll_out_id"], outs["roll_out_id"])
    value_row = _rows_of(labels["roll_out_id"], values["roll_out_id"])
    cuts = np.minimum(labels["cut"].to_numpy(), _lengths(ins["tokens"])[in_row])
    start, count = _lengths(ins["prompt"])[in_row] + cuts, _lengths(outs["tokens"])[out_row]
    value_count = _lengths(values["values"])[value_row]
    _check_values(labels["roll_out_id"], value_count, count)
    index = pa.table(
        {
            "roll_out_id": labels["roll_out_id"],
            "problem_id": labels["problem_id"],
            "split": labels["split"],
            "label": labels["label"].cast(pa.int8()),
            "in_row": in_row,
            "out_row": out_row,
            "value_row": np.where(value_count >= 0, value_row, -1),
            "start": start.astype(np.int32),
            "length": (start + count).astype(np.int32),
        }
    )
    for split in SPLITS:
        _write_index(index.filter(pc.equal(index["split"], split)), _index_path(folder, split))


class ListColumn:
    """A column of lists over memory-mapped files: `column[row]` is an array without a copy."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._chunks = [chunk for chunk in column.chunks if len(chunk)]
        self._begins = np.cumsum([0, *map(len, self._chunks)])

    def __getitem__(self, row: int) -> NDArray:
        at = int(np.searchsorted(self._begins, row, side="right")) - 1
        return self._chunks[at][int(row - self._begins[at])].values.to_numpy()


class ListColumns(NamedTuple):
    """The columns of a store. Both splits share them, because each file is mapped once."""

    prompts: ListColumn
    roll_ins: ListColumn
    roll_outs: ListColumn
    values: ListColumn


def open_columns(folder: Path) -> ListColumns:
    """The columns of a store, memory-mapped."""
    ins, outs, labels = (_open_all(folder / table) for table in COPIED)
    lists = ins["prompt"], ins["tokens"], outs["tokens"], labels["values"]
    return ListColumns(*map(ListColumn, lists))


def open_index(folder: Path, split: str) -> pa.Table:
    """The index of one split, memory-mapped, each column in one chunk."""
    return _open(_index_path(folder, split))


def _index_path(folder: Path, split: str) -> Path:
    return folder / f"index-{split}.arrow"


def _check_values(ids: pa.ChunkedArray, value_count: Rows, count: Rows) -> None:
    wrong = (value_count >= 0) & (value_count != count)
    if wrong.any():
        at = int(wrong.argmax())
        raise ValueError(
            f"the label of {ids[at]} has {value_count[at]} values for {count[at]} roll-out tokens; each token needs one value: "
            "run label again"
        )


def _write_index(table: pa.Table, path: Path) -> None:
    """Problem ids become integers, which suffice to compare neighbours."""
    table = table.sort_by([("problem_id", "ascending"), ("roll_out_id", "ascending")])
    codes = table["problem_id"].combine_chunks().dictionary_encode().indices
    table = table.drop_columns(["problem_id", "split"]).append_column("problem", codes).combine_chunks()
    with (
        atomic_file(path) as temporary,
        pa.OSFile(str(temporary), "wb") as file,
        pa.ipc.new_file(file, table.schema) as sink,
    ):
        sink.write_table(table)


def _open(path: Path) -> pa.Table:
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def _open_all(folder: Path) -> pa.Table:
    return pa.concat_tables([_open(path) for path in sorted(folder.glob("*.arrow"))])


def _lengths(column: pa.ChunkedArray) -> Rows:
    """Length of each list; -1 for null."""
    return pc.fill_null(pc.list_value_length(column), -1).to_numpy().astype(np.int64)


def _rows_of(keys: pa.ChunkedArray, table_keys: pa.ChunkedArray) -> Rows:
    """Row of each key in a table's key column."""
    rows = pc.index_in(keys, value_set=table_keys.combine_chunks())
    if rows.null_count:
        missing = keys.filter(pc.is_null(rows))[0].as_py()
        raise ValueError(f"the label of {missing} has no tokens; labels and tokens must be of one run: run label again")
    return rows.to_numpy().astype(np.int64)
