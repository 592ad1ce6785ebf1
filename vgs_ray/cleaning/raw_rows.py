"""Raw rows of problems: Parquet, Arrow, JSON lines and JSON lists on a disk or an object store, a Hugging Face data set, the
sandbox.

In: a source as a recipe names it. Out: its columns and its `Piece`s, then for each piece tables of at most `TABLE_ROWS` rows.
Only one such table is in memory at a time. A JSON list is the exception: it is parsed as a whole.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import PurePath
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from vgs_ray.cleaning.file_formats import TABLE_ROWS, Piece, inspect_file, read_file, readable, tables_of
from vgs_ray.data.source_names import SUFFIXES, HubId
from vgs_ray.data.storage import AnyPath, is_local, is_url, list_files, storage_path
from vgs_ray.errors import UserError
from vgs_ray.sandbox.rows import benchmark_rows, draw_rows

HUB_PIECE_ROWS = 20_000
SANDBOX_ROWS = {"train": 4000, "benchmark": 1000}
# Written by `datasets` next to its Arrow files.
METADATA_FILES = ("state.json", "dataset_info.json", "dataset_dict.json")


class Source(NamedTuple):
    """The columns of a source (of any of its files), and its pieces in order."""

    columns: list[str]
    pieces: list[Piece]


def sandbox_source(split: str, limit: int, seed: int) -> Source:
    """The sandbox's rows as a source."""
    count = limit or SANDBOX_ROWS[split]
    return Source(list(next(_sandbox_rows(split, seed, 1))), [Piece("sandbox", split, seed, 0, count)])


def inspect_source(source: str, limit: int) -> Source:
    """Find the columns and pieces of a source.

    Args:
        source: a file, a folder of files of one kind, the URL of one of these, or a hub id (see `HubId`).
        limit: maximum number of rows; 0 for all.

    Raises:
        UserError: the source does not exist, has an unknown format, or cannot be read.
    """
    path = storage_path(source)
    if is_url(source) or path.exists():
        parts = [part for file in _files(path) for part in inspect_file(file)]
    else:
        parts = _inspect_hub(source)
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
    with readable(piece.path):
        if piece.kind == "hub":
            yield from _read_hub(piece, columns)
        elif piece.kind == "sandbox":
            yield from tables_of(_sandbox_rows(piece.path, piece.part, piece.rows), columns)
        else:
            yield from read_file(piece, columns)


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
    with readable(f"column {name} of {path}"):
        return pc.cast(column, pa.string())


def _files(path: AnyPath) -> list[AnyPath]:
    with readable(path):
        if not (path.is_dir() or path.is_file()):
            raise UserError(
                f"{path} does not exist: check the URL, the region and the credentials, or use another source"
            )
        files = sorted(_in_folder(path), key=str) if path.is_dir() else [path]
    kinds = {SUFFIXES.get(file.suffix) for file in files}
    if len(kinds) != 1 or None in kinds:
        raise UserError(
            f"{path} is not a source of problems; a source is a {', '.join(SUFFIXES)} file, or a folder of files of one of these "
            "kinds: convert it, or use another source"
        )
    return files


def _in_folder(folder: AnyPath) -> Iterator[AnyPath]:
    names = [file.name for file in folder.iterdir()] if is_local(folder) else list_files(folder)
    for name in names:
        if "/" not in name and PurePath(name).suffix in SUFFIXES and name not in METADATA_FILES:
            yield folder / name


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


def load_hub_dataset(source: str) -> Any:
    """Load one split of a data set, by default `train`. Its rows stay in memory-mapped files of the library's cache."""
    import datasets

    datasets.disable_progress_bars()
    id, revision, config, split = HubId.parse(source)
    return datasets.load_dataset(id, config, split=split, revision=revision)
