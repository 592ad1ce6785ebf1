"""File formats of sources of problems: Parquet, Arrow, JSON lines and JSON lists.

Each format has a function that inspects a file (columns and pieces) and one that reads a piece as tables of `TABLE_ROWS` rows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, NamedTuple

import pyarrow as pa
from obstore.exceptions import BaseError

from vgs_ray.data.parquet import arrow_file, parquet_file
from vgs_ray.data.source_names import SUFFIXES
from vgs_ray.data.storage import AnyPath, cause_of, is_local, storage_path
from vgs_ray.errors import UserError

TABLE_ROWS = 1000


class Piece(NamedTuple):
    """The rows that one task reads.

    Attributes:
        kind: parquet, arrow, jsonl, json, hub or sandbox.
        path: file (a path or a URL), hub id, or split of the sandbox.
        part: row group of a Parquet file, first row in a hub data set, or seed of the sandbox.
        first: position of the first row in the source.
        rows: number of rows to read.
    """

    kind: str
    path: str
    part: int
    first: int
    rows: int


@contextmanager
def readable(place: str | AnyPath) -> Iterator[None]:
    """Turn the exceptions of a reader's library into a `UserError`."""
    try:
        yield
    except BaseError as error:
        raise UserError(f"{place} cannot be read: {cause_of(error)}") from error
    except (OSError, pa.ArrowException, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{place} cannot be read ({reason}): fix the file or use another source") from error


def _inspect_parquet(file: AnyPath) -> list[tuple[list[str], Piece]]:
    with parquet_file(file) as content:
        metadata = content.metadata
    names = metadata.schema.to_arrow_schema().names
    groups = range(metadata.num_row_groups)
    return [(names, Piece("parquet", str(file), i, 0, metadata.row_group(i).num_rows)) for i in groups]


def _read_parquet(piece: Piece, columns: list[str]) -> Iterator[pa.Table]:
    with parquet_file(storage_path(piece.path)) as file:
        present = [name for name in columns if name in file.schema_arrow.names]
        for batch in file.iter_batches(batch_size=TABLE_ROWS, row_groups=[piece.part], columns=present):
            yield pa.Table.from_batches([batch])


def _batches(file: AnyPath) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """Schema and batches of an Arrow file in the stream format, which `datasets` writes, or the file format."""
    system, name = arrow_file(file)
    try:
        reader = pa.ipc.open_file(pa.memory_map(name) if is_local(file) else system.open_input_file(name))
        return reader.schema, (reader.get_batch(i) for i in range(reader.num_record_batches))
    except pa.ArrowInvalid:
        stream = pa.ipc.open_stream(pa.memory_map(name) if is_local(file) else system.open_input_stream(name))
        return stream.schema, iter(stream)


def _inspect_arrow(file: AnyPath) -> list[tuple[list[str], Piece]]:
    schema, batches = _batches(file)
    return [(schema.names, Piece("arrow", str(file), 0, 0, sum(batch.num_rows for batch in batches)))]


def _read_arrow(piece: Piece, columns: list[str]) -> Iterator[pa.Table]:
    schema, batches = _batches(storage_path(piece.path))
    for batch in batches:
        yield pa.Table.from_batches([batch]).select([name for name in columns if name in schema.names])


def _lines(path: AnyPath) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield _row(line, f"line {number} of {path}")


def _row(line: str, place: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise UserError(f"{place} is not valid JSON ({error}): fix or remove it") from error
    if not isinstance(row, dict):
        raise UserError(
            f"{place} is {line.strip()[:40]!r}, and must be a JSON object with the columns: fix or remove it"
        )
    return row


def _inspect_jsonl(file: AnyPath) -> list[tuple[list[str], Piece]]:
    with file.open("rb") as lines:
        count = sum(1 for line in lines if line.strip())
    return [(_keys(_lines(file)), Piece("jsonl", str(file), 0, 0, count))]


def _keys(rows: Iterable[dict[str, Any]]) -> list[str]:
    """Columns of JSON rows: the keys of the first thousand rows, since a row may omit a key."""
    return list(dict.fromkeys(name for row in islice(rows, TABLE_ROWS) for name in row))


def _json_rows(path: AnyPath) -> list[dict[str, Any]]:
    rows = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError(
            f"{path} must be a JSON list of objects, or JSON lines with the suffix .jsonl: rename or convert it"
        )
    return rows


def _inspect_json(file: AnyPath) -> list[tuple[list[str], Piece]]:
    rows = _json_rows(file)
    return [(_keys(rows), Piece("json", str(file), 0, 0, len(rows)))]


def tables_of(rows: Iterator[dict[str, Any]], columns: list[str]) -> Iterator[pa.Table]:
    """Rows of JSON values as tables of text columns."""
    while batch := list(islice(rows, TABLE_ROWS)):
        values = {name: [_scalar(row.get(name)) for row in batch] for name in columns}
        yield pa.table({name: pa.array(column, pa.string()) for name, column in values.items()})


def _scalar(value: Any) -> str | None:
    """A JSON value as text, since a column may mix 7 and "7". NaN, which pandas writes, is a missing value."""
    if value is None or value != value:
        return None
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


_INSPECTORS: dict[str, Callable[[AnyPath], list[tuple[list[str], Piece]]]] = {
    "parquet": _inspect_parquet, "arrow": _inspect_arrow, "jsonl": _inspect_jsonl, "json": _inspect_json
}  # fmt: skip
_READERS: dict[str, Callable[[Piece, list[str]], Iterator[pa.Table]]] = {
    "parquet": _read_parquet,
    "arrow": _read_arrow,
    "jsonl": lambda piece, columns: tables_of(_lines(storage_path(piece.path)), columns),
    "json": lambda piece, columns: tables_of(iter(_json_rows(storage_path(piece.path))), columns),
}


def inspect_file(file: AnyPath) -> list[tuple[list[str], Piece]]:
    """The pieces of a file, each with the columns of the file. Their `first` is 0."""
    with readable(file):
        return _INSPECTORS[SUFFIXES[file.suffix]](file)


def read_file(piece: Piece, columns: list[str]) -> Iterator[pa.Table]:
    """Read a piece of a file as tables with those of `columns` that the file has."""
    return _READERS[piece.kind](piece, columns)
