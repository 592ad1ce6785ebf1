"""Parquet files on a disk or an object store, through the file systems of pyarrow."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from upath import UPath

from vgs_ray.data.storage import ATTEMPTS, LONGEST_PAUSE, AnyPath, endpoint, is_local

TOO_LONG = "Failed to flush response stream"
"""Of pyarrow's error for an answer that is longer than what it wanted to read."""
CONNECT_S, ANSWER_S = 10, 30
"""Of an S3 server. Those of Amazon's library are 1 and 3 seconds, too short for a busy server or a busy machine here."""
READ_BYTES = 8 * 2**20
"""Read from a column at a time."""
Result = TypeVar("Result")


def arrow_file(path: AnyPath, attempts: int = ATTEMPTS) -> tuple[pafs.FileSystem, str]:
    """The file system of pyarrow for a path, and the path in it."""
    if is_local(path):
        return pafs.LocalFileSystem(), str(path)
    assert isinstance(path, UPath)
    return _arrow_file_system(path.protocol, attempts), path.path


@cache
def _arrow_file_system(scheme: str, attempts: int) -> pafs.FileSystem:
    if scheme == "gs":
        return pafs.GcsFileSystem(retry_time_limit=attempts * LONGEST_PAUSE)
    retries = pafs.AwsStandardS3RetryStrategy(max_attempts=attempts)
    return pafs.S3FileSystem(
        endpoint_override=endpoint() or None,
        retry_strategy=retries,
        connect_timeout=CONNECT_S,
        request_timeout=ANSWER_S,
    )


def parquet_dataset(files: Sequence[AnyPath], schema: pa.Schema | None = None) -> pads.Dataset:
    """All rows of Parquet files in one file system, to scan."""
    system = arrow_file(files[0])[0]
    return pads.dataset([arrow_file(file)[1] for file in files], schema=schema, filesystem=system)


def row_batches(file: AnyPath, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
    """Some columns of a Parquet file, so many rows at a time. A row group may be larger than the memory.

    Args:
        file: the file.
        columns: names; those that the file lacks are left out.
        rows: maximum number of rows of a batch.
    """
    system, name = arrow_file(file)
    with pq.ParquetFile(name, filesystem=system, buffer_size=READ_BYTES) as source:
        names = [column for column in columns if column in source.schema_arrow.names]
        for batch in source.iter_batches(batch_size=rows, columns=names, use_threads=False):
            yield batch.select(names)


class RetryingParquetFile(pq.ParquetFile):
    """A Parquet file whose small reads are repeated too (`retried`)."""

    def read(self, *args: Any, **kwargs: Any) -> pa.Table:
        return retried(lambda: super(RetryingParquetFile, self).read(*args, **kwargs))

    def read_row_groups(self, *args: Any, **kwargs: Any) -> pa.Table:
        return retried(lambda: super(RetryingParquetFile, self).read_row_groups(*args, **kwargs))


def parquet_file(file: AnyPath) -> pq.ParquetFile:
    """A Parquet file on a disk or an object store."""
    system, name = arrow_file(file)
    return retried(lambda: RetryingParquetFile(name, filesystem=system))


def retried(read: Callable[[], Result]) -> Result:
    """The result of a read by pyarrow, repeated when an object store failed it.

    pyarrow repeats requests itself, except for those of fewer bytes than the server's error message has.
    """
    for attempt in range(ATTEMPTS):
        try:
            return read()
        except OSError as error:
            if TOO_LONG not in str(error):
                raise
            failed = error
        time.sleep(min(0.1 * 2**attempt, 15))
    raise failed
