"""Raw rows of problems: Parquet, Arrow, JSON lines and JSON lists on disk, a Hugging Face data set, the sandbox.

In: a source as a recipe names it. Out: its columns and its `Piece`s, then for each piece tables of at most `TABLE_ROWS` rows.
Only one such table is in memory at a time. A JSON list is the exception: it is parsed as a whole.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vgs_ray.data.source_names import SUFFIXES, HubId
from vgs_ray.errors import UserError
from vgs_ray.sandbox.rows import benchmark_rows, draw_rows

TABLE_ROWS = 1000
HUB_PIECE_ROWS = 20_000
SANDBOX_ROWS = {"train": 4000, "benchmark": 1000}
METADATA_FILES = (
    "state.json",
    "dataset_info.json",
    "dataset_dict.json",
)  # written by `datasets` next to its Arrow files


class Piece(NamedTuple):
    """The rows that one task reads.

    Attributes:
        kind: parquet, arrow, jsonl, json, hub or sandbox.
        path: file, hub id, or split of the sandbox.
        part: row group of a Parquet file, first row in a hub data set, or seed of the sandbox.
        first: position of the first row in the source.
        rows: number of rows to read.
    """

    kind: str
    path: str
    part: int
    first: int
    rows: int


class Source(NamedTuple):
    """The columns of a source (of any of its files), and its pieces in order."""

    columns: list[str]
    pieces: list[Piece]


def sandbox_source(split: str, limit: int, seed: int) -> Source:
    """The sandbox's rows as a source."""
    count = limit or SANDBOX_ROWS[split]
    return Source(list(next(_sandbox_rows(split, seed, 1))), [Piece("sandbox", split, seed, 0, count)])


def inspect_source(source: str, limit: int) -> Source:
    """Find the columns and pieces of a local or hub source.

    Args:
        source: a file, a folder of files of one kind, or a hub id (see `HubId`).
        limit: maximum number of rows; 0 for all.

    Raises:
        UserError: the source does not exist, has an unknown format, or cannot be read.
    """
    path = Path(source)
    parts = [part for file in _files(path) for part in _inspect_file(file)] if path.exists() else _inspect_hub(source)
    pieces, first = [], 0
    for _, piece in parts:
        rows = min(piece.rows, limit - first) if limit else piece.rows
        if rows > 0:
            pieces.append(piece._replace(first=first, rows=rows))
        first += piece.rows
    return Source(list(dict.fromkeys(name for names, _ in parts for name in names)), pieces)


def read_piece(piece: Piece, columns: list[str], optional: Collection[str] = ()) -> Iterator[pa.Table]:
    """Read a piece as tables of at most `TABLE_ROWS` rows.

    Args:
        piece: the rows to read.
        columns: returned as text, null where a row has no value.
        optional: columns that are null if their type is neither text nor numbers.

    Yields:
        Tables with `columns` and `row`, the position in the source.

    Raises:
        UserError: a row cannot be read, or a column that is not optional has neither text nor numbers.
    """
    start = piece.first
    for table in _tables_of(piece, columns):
        for offset in range(0, table.num_rows, TABLE_ROWS):
            part = table.slice(offset, min(TABLE_ROWS, piece.first + piece.rows - start))
            if not part.num_rows:
                return
            texts = {name: _text(part, name, piece.path, name in optional) for name in columns}
            yield pa.table(texts | {"row": pa.array(range(start, start + part.num_rows), pa.int64())})
            start += part.num_rows


def _tables_of(piece: Piece, columns: list[str]) -> Iterator[pa.Table]:
    with _readable(piece.path):
        yield from _READERS[piece.kind](piece, columns)


@contextmanager
def _readable(place: str | Path) -> Iterator[None]:
    """Turn the exceptions of a reader's library into a `UserError`."""
    try:
        yield
    except (OSError, pa.ArrowException, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{place} cannot be read ({reason}): fix the file or use another source") from error


def _text(table: pa.Table, name: str, path: str, optional: bool) -> pa.ChunkedArray | pa.Array:
    column = table[name] if name in table.column_names else pa.nulls(table.num_rows, pa.string())
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_nested(column.type) or pa.types.is_binary(column.type):
        if optional:
            return pa.nulls(table.num_rows, pa.string())
        raise UserError(
            f"column {name} of {path} has the type {column.type}, and must have text or numbers: convert it or use another one"
        )
    if pa.types.is_floating(column.type):  # pandas writes NaN for missing values
        column = pc.if_else(pc.is_nan(column), None, column)
    with _readable(f"column {name} of {path}"):
        return pc.cast(column, pa.string())


def _files(path: Path) -> list[Path]:
    files = [path]
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES and file.name not in METADATA_FILES)
    kinds = {SUFFIXES.get(file.suffix) for file in files}
    if len(kinds) != 1 or None in kinds:
        raise UserError(
            f"{path} is not a source of problems; a source is a {', '.join(SUFFIXES)} file, or a folder of files of one of these "
            "kinds: convert it, or use another source"
        )
    return files


def _inspect_file(file: Path) -> list[tuple[list[str], Piece]]:
    with _readable(file):
        return _INSPECTORS[SUFFIXES[file.suffix]](file)


def _inspect_parquet(file: Path) -> list[tuple[list[str], Piece]]:
    metadata = pq.read_metadata(file)
    names = metadata.schema.to_arrow_schema().names
    groups = range(metadata.num_row_groups)
    return [(names, Piece("parquet", str(file), i, 0, metadata.row_group(i).num_rows)) for i in groups]


def _read_parquet(piece: Piece, columns: list[str]) -> Iterator[pa.Table]:
    with pq.ParquetFile(piece.path) as file:
        present = [name for name in columns if name in file.schema_arrow.names]
        for batch in file.iter_batches(batch_size=TABLE_ROWS, row_groups=[piece.part], columns=present):
            yield pa.Table.from_batches([batch])


def _batches(file: str | Path) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """Schema and batches of an Arrow file in the stream format, which `datasets` writes, or the file format."""
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(file)))
        return reader.schema, (reader.get_batch(i) for i in range(reader.num_record_batches))
    except pa.ArrowInvalid:
        stream = pa.ipc.open_stream(pa.memory_map(str(file)))
        return stream.schema, iter(stream)


def _inspect_arrow(file: Path) -> list[tuple[list[str], Piece]]:
    schema, batches = _batches(file)
    return [(schema.names, Piece("arrow", str(file), 0, 0, sum(batch.num_rows for batch in batches)))]


def _read_arrow(piece: Piece, columns: list[str]) -> Iterator[pa.Table]:
    schema, batches = _batches(piece.path)
    for batch in batches:
        yield pa.Table.from_batches([batch]).select([name for name in columns if name in schema.names])


def _lines(path: str | Path) -> Iterator[dict[str, Any]]:
    with open(path, encoding="utf-8") as file:
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


def _inspect_jsonl(file: Path) -> list[tuple[list[str], Piece]]:
    with open(file, "rb") as lines:
        count = sum(1 for line in lines if line.strip())
    return [(_keys(_lines(file)), Piece("jsonl", str(file), 0, 0, count))]


def _keys(rows: Iterable[dict[str, Any]]) -> list[str]:
    """Columns of JSON rows: the keys of the first thousand rows, since a row may omit a key."""
    return list(dict.fromkeys(name for row in islice(rows, TABLE_ROWS) for name in row))


def _json_rows(path: str | Path) -> list[dict[str, Any]]:
    rows = json.loads(Path(path).read_text(encoding="utf-8"))
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError(
            f"{path} must be a JSON list of objects, or JSON lines with the suffix .jsonl: rename or convert it"
        )
    return rows


def _inspect_json(file: Path) -> list[tuple[list[str], Piece]]:
    rows = _json_rows(file)
    return [(_keys(rows), Piece("json", str(file), 0, 0, len(rows)))]


def _tables(rows: Iterator[dict[str, Any]], columns: list[str]) -> Iterator[pa.Table]:
    while batch := list(islice(rows, TABLE_ROWS)):
        values = {name: [_scalar(row.get(name)) for row in batch] for name in columns}
        yield pa.table({name: pa.array(column, pa.string()) for name, column in values.items()})


def _scalar(value: Any) -> str | None:
    """A JSON value as text, since a column may mix 7 and "7". NaN, which pandas writes, is a missing value."""
    if value is None or value != value:
        return None
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _inspect_hub(source: str) -> list[tuple[list[str], Piece]]:
    HubId.parse(source)
    try:
        data = load_hub_dataset(source)
    except (OSError, ValueError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"data set {source} cannot be loaded ({reason}): check the id and the network") from error
    starts = range(0, len(data), HUB_PIECE_ROWS)
    counts = [min(HUB_PIECE_ROWS, len(data) - start) for start in starts]
    return [
        (data.column_names, Piece("hub", source, start, 0, rows)) for start, rows in zip(starts, counts, strict=True)
    ]


def _read_hub(piece: Piece, columns: list[str]) -> Iterator[pa.Table]:
    data = load_hub_dataset(piece.path)
    data = data.select_columns([name for name in columns if name in data.column_names]).with_format("arrow")
    yield from data.select(range(piece.part, piece.part + piece.rows)).iter(batch_size=TABLE_ROWS)


def _sandbox_rows(split: str, seed: int, count: int) -> Iterator[dict[str, Any]]:
    return benchmark_rows(count) if split == "benchmark" else draw_rows("train", count, seed)


_INSPECTORS: dict[str, Callable[[Path], list[tuple[list[str], Piece]]]] = {
    "parquet": _inspect_parquet, "arrow": _inspect_arrow, "jsonl": _inspect_jsonl, "json": _inspect_json
}  # fmt: skip
_READERS: dict[str, Callable[[Piece, list[str]], Iterator[pa.Table]]] = {
    "parquet": _read_parquet,
    "arrow": _read_arrow,
    "hub": _read_hub,
    "jsonl": lambda piece, columns: _tables(_lines(piece.path), columns),
    "json": lambda piece, columns: _tables(iter(_json_rows(piece.path)), columns),
    "sandbox": lambda piece, columns: _tables(_sandbox_rows(piece.path, piece.part, piece.rows), columns),
}


def load_hub_dataset(source: str) -> Any:
    """Load one split of a data set, by default `train`. Its rows stay in memory-mapped files of the library's cache."""
    import datasets

    datasets.disable_progress_bars()
    id, revision, config, split = HubId.parse(source)
    return datasets.load_dataset(id, config, split=split, revision=revision)
