"""The training store: tokens of the tables in uncompressed, memory-mapped Arrow files, joined by an index.

In: Parquet parts of `labels`, `roll_ins` and `roll_outs`. Out: a folder of Arrow files for random access. Workers map the files
instead of loading them, so the operating system's page cache holds them once for all workers of a machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vgs_ray.data.files import atomic_file
from vgs_ray.data.schemas import TOKENS
from vgs_ray.data.storage import AnyPath, arrow_file

SPLITS = ("train", "validation")
BATCH_ROWS = 1024  # rows of a record batch
VALUES = pa.list_(pa.float32())
COPIED = {
    "roll_ins": pa.schema({"roll_in_id": pa.string(), "prompt": TOKENS, "tokens": TOKENS}),
    "roll_outs": pa.schema({"roll_out_id": pa.string(), "tokens": TOKENS}),
    "labels": pa.schema({"roll_out_id": pa.string(), "values": VALUES}),
}
LABEL_COLUMNS = ("roll_out_id", "roll_in_id", "problem_id", "cut", "split", "label")
Rows = NDArray[np.int64]


class Sources(NamedTuple):
    """Parquet parts of each table."""

    labels: Sequence[AnyPath]
    roll_ins: Sequence[AnyPath]
    roll_outs: Sequence[AnyPath]


class PartCopy(NamedTuple):
    """One Parquet part to copy into the store."""

    table: str
    source: AnyPath
    target: Path


def part_copies(sources: Sources, folder: Path) -> list[PartCopy]:
    """All parts to copy; the copies are independent of each other.

    Raises:
        FileNotFoundError: a table has no parts.
    """
    copies = []
    for table, files in sources._asdict().items():
        if not files:
            raise FileNotFoundError(f"table {table} has no parts; training reads that table: run its stage first")
        copies += [PartCopy(table, file, folder / table / f"{index:05d}.arrow") for index, file in enumerate(files)]
    return copies


def copy_part(job: PartCopy) -> None:
    """Write the columns of one part uncompressed, batch by batch, unless the copy exists already."""
    if job.target.exists():
        return
    job.target.parent.mkdir(parents=True, exist_ok=True)
    schema, (system, name) = COPIED[job.table], arrow_file(job.source)
    with (
        atomic_file(job.target) as temporary,
        pq.ParquetFile(name, filesystem=system) as part,
        pa.OSFile(str(temporary), "wb") as file,
        pa.ipc.new_file(file, schema) as sink,
    ):
        names = [name for name in schema.names if name in part.schema_arrow.names]
        for batch in part.iter_batches(batch_size=BATCH_ROWS, columns=names):
            for name in schema.names:
                if name not in names:  # labels without values
                    batch = batch.append_column(name, pa.nulls(len(batch), schema.field(name).type))
            sink.write_batch(batch.select(schema.names).cast(schema))


def write_indexes(sources: Sources, folder: Path) -> None:
    """Join the labels with the rows of the store, sorted by problem; one index for each split.

    Raises:
        ValueError: a label has no tokens, or another number of values than roll-out tokens.
    """
    system = arrow_file(sources.labels[0])[0]
    files = [arrow_file(file)[1] for file in sources.labels]
    labels = pads.dataset(files, filesystem=system).to_table(columns=list(LABEL_COLUMNS))
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
        _write_index(index.filter(pc.equal(index["split"], split)), folder / f"index-{split}.arrow")


class ListColumn:
    """A column of lists over memory-mapped files: `column[row]` is an array without a copy."""

    def __init__(self, folder: Path, column: str) -> None:
        self._chunks = [chunk for chunk in _open_all(folder)[column].chunks if len(chunk)]
        self._begins = np.cumsum([0, *map(len, self._chunks)])

    def __getitem__(self, row: int) -> NDArray:
        at = int(np.searchsorted(self._begins, row, side="right")) - 1
        return self._chunks[at][int(row - self._begins[at])].values.to_numpy()


def open_index(folder: Path, split: str) -> pa.Table:
    """The index of one split, memory-mapped, each column in one chunk."""
    return _open(folder / f"index-{split}.arrow")


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
