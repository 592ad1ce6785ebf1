"""Parquet shards of bounded size, as a published data set has them. A shard is whole or absent."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import pyarrow as pa
import pyarrow.parquet as pq

from vgs_ray.data.files import atomic_file, rename
from vgs_ray.data.storage import AnyPath, list_files


class ShardWriter:
    """Writes tables to `{stem}-000.parquet`, `{stem}-001.parquet` and so on.

    Args:
        stem: path of the shards without number and suffix.
        schema: of every table.
        limit: bytes; the table that reaches it is the last one of its shard.
    """

    def __init__(self, stem: AnyPath, schema: pa.Schema, limit: int) -> None:
        self.stem, self.schema, self.limit = stem, schema, limit
        self._shards = 0
        self._open = ExitStack()  # the current shard
        self._path: Path | None = None
        self._writer: pq.ParquetWriter

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, trace)

    def write(self, table: pa.Table) -> None:
        if not table.num_rows:
            return
        if self._path is None:
            shard = self.stem.with_name(f"{self.stem.name}-{self._shards:03d}.parquet")
            self._path = self._open.enter_context(atomic_file(shard))
            self._writer = self._open.enter_context(pq.ParquetWriter(self._path, self.schema, compression="zstd"))
        self._writer.write_table(table.cast(self.schema))
        if self._path.stat().st_size >= self.limit:
            self._open.close()
            self._path = None
            self._shards += 1


def number_shards(folder: AnyPath, split: str) -> list[int]:
    """Rename the shards of a split to `train-00000-of-00012.parquet`, the form that data set loaders expect.

    Returns:
        Their sizes in bytes.
    """
    sizes = {name: size for name, size in list_files(folder).items() if name.startswith(f"{split}-")}
    for index, name in enumerate(sorted(sizes)):
        rename(folder / name, folder / f"{split}-{index:05d}-of-{len(sizes):05d}.parquet")
    return list(sizes.values())
