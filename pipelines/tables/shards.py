"""Parquet shards of bounded size: a shard appears by a rename, so it is whole or absent."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType

import pyarrow as pa
import pyarrow.parquet as pq


class ShardWriter:
    """Write tables to `{stem}-{n}.parquet`; a shard ends with the table that makes it reach `limit` bytes."""

    def __init__(self, stem: Path, schema: pa.Schema, limit: int) -> None:
        self.stem, self.schema, self.limit = stem, schema, limit
        self.shards = 0
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(keep=kind is None)

    def write(self, table: pa.Table) -> None:
        if not table.num_rows:
            return
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._beside, self.schema, compression="zstd")
        self._writer.write_table(table.cast(self.schema))
        if self._beside.stat().st_size >= self.limit:
            self._end(keep=True)

    @property
    def _beside(self) -> Path:
        return self.stem.with_name(f".{self.stem.name}-{self.shards:03d}.{os.getpid()}")

    def _end(self, keep: bool) -> None:
        if self._writer is None:
            return
        self._writer.close()
        if keep:
            os.replace(self._beside, self.stem.with_name(f"{self.stem.name}-{self.shards:03d}.parquet"))
            self.shards += 1
        else:
            self._beside.unlink()
        self._writer = None


def number(folder: Path, split: str) -> list[Path]:
    """Give the shards of a split their final names, `train-00000-of-00012.parquet`; data set loaders know this form."""
    written = sorted(folder.glob(f"{split}-*.parquet"))
    return [
        path.rename(folder / f"{split}-{index:05d}-of-{len(written):05d}.parquet") for index, path in enumerate(written)
    ]
