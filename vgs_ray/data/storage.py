"""Paths on a local disk, a shared file system or an object store.

`storage_path` turns a path or a URL into a `UPath`, which has the interface of `pathlib.Path`. On a disk it is a
`pathlib.Path`. Small objects go through obstore and Parquet through pyarrow; both read credentials from the environment.
"""

from __future__ import annotations

import io
import os
import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import obstore
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from obstore.exceptions import BaseError
from obstore.fsspec import BufferedFile, FsspecStore, register
from obstore.store import ObjectStore, from_url
from typing_extensions import TypeIs
from upath import UPath

from vgs_ray.errors import UserError

AnyPath: TypeAlias = Path | UPath
"""A path on a disk or an object store."""
URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://")
ONE_SLASH = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*:/")
"""`pathlib` shortens `s3://bucket` to `s3:/bucket`."""
OBJECT_STORES = ("s3", "gs")
ATTEMPTS = 16
"""Attempts of a request that an object store throttles, fails with a 5xx status or does not answer. They take 30 s or more."""
BACKOFF = {"init_backoff": timedelta(seconds=0.2), "max_backoff": timedelta(seconds=15), "base": 4}

TOO_LONG = "Failed to flush response stream"
"""Of pyarrow's error for an answer that is longer than what it wanted to read."""
Result = TypeVar("Result")

register(list(OBJECT_STORES))
# Otherwise Python prints an error for each opened file that does not exist.
BufferedFile._reader = io.BytesIO()  # type: ignore[assignment]


def storage_path(place: str | AnyPath) -> UPath:
    """The path of a folder or file.

    Args:
        place: a path, or a URL with the scheme `file`, `s3` or `gs`.

    Raises:
        UserError: another scheme, or no bucket.
    """
    if isinstance(place, UPath):
        return place
    text = str(place)
    if not URL.match(text) and not ONE_SLASH.match(text):
        return UPath(text)
    scheme, _, rest = text.partition("://")
    if scheme == "file":
        return UPath(f"/{rest.lstrip('/')}")
    if scheme not in OBJECT_STORES or not rest.strip("/"):
        raise UserError(
            f"{text} is not supported; storage is a path, or a URL such as file:///data/runs, s3://bucket/runs or "
            "gs://bucket/runs: pass one of these"
        )
    return UPath(text.rstrip("/"), **_options(scheme))


def is_url(place: str) -> bool:
    """Whether a text is a URL, not a path or the name of something else."""
    return bool(URL.match(place))


def _options(scheme: str, attempts: int = ATTEMPTS) -> dict[str, Any]:
    """Options of obstore. There are no credentials among them, because paths are sent to other processes."""
    retries = {"max_retries": attempts - 1, "retry_timeout": timedelta(minutes=10), "backoff": BACKOFF}
    plain = {"client_options": {"allow_http": True}} if scheme == "s3" and _endpoint().startswith("http://") else {}
    return {"retry_config": retries, **plain}


def _endpoint() -> str:
    """The URL of an S3 server other than Amazon's, or an empty text."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""


def is_local(path: AnyPath) -> TypeIs[Path]:
    """Whether a path is on a disk or a mounted file system."""
    return isinstance(path, Path)


def file_system(path: AnyPath) -> FsspecStore:
    """obstore's file system of a path on an object store."""
    assert isinstance(path, UPath)
    store = path.fs
    assert isinstance(store, FsspecStore)
    return store


def object_store(path: AnyPath, attempts: int = ATTEMPTS) -> tuple[ObjectStore, str]:
    """The bucket of a path on an object store, and the key in it."""
    assert isinstance(path, UPath)
    bucket, _, key = path.path.partition("/")
    return _bucket(f"{path.protocol}://{bucket}", attempts), key


@cache
def _bucket(url: str, attempts: int) -> ObjectStore:
    return from_url(url, **_options(url.partition("://")[0], attempts))


def arrow_file(path: AnyPath, attempts: int = ATTEMPTS) -> tuple[pafs.FileSystem, str]:
    """The file system of pyarrow for a path, and the path in it."""
    if is_local(path):
        return pafs.LocalFileSystem(), str(path)
    assert isinstance(path, UPath)
    return _arrow_file_system(path.protocol, attempts), path.path


@cache
def _arrow_file_system(scheme: str, attempts: int) -> pafs.FileSystem:
    if scheme == "gs":
        return pafs.GcsFileSystem()
    retries = pafs.AwsStandardS3RetryStrategy(max_attempts=attempts)
    return pafs.S3FileSystem(endpoint_override=_endpoint() or None, retry_strategy=retries)


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


def cause_of(error: BaseError) -> str:
    """The cause of an error of an object store in one line, and what to check."""
    text = " ".join(str(error).partition("Debug source")[0].split()).rpartition("Error performing ")[2]
    return f"{text[:300]}; credentials, region and endpoint come from the environment (AWS_*, GOOGLE_*): check these"


def list_files(folder: AnyPath) -> dict[str, int]:
    """The files in a folder and below it: the size in bytes of each by its path in the folder. Empty if there is no folder."""
    if not is_local(folder):
        store, key = object_store(folder)
        objects = [item for batch in obstore.list(store, prefix=f"{key}/") for item in batch]
        inside = [item for item in objects if item["path"].startswith(f"{key}/")]
        found = {item["path"].removeprefix(f"{key}/"): item["size"] for item in inside}
        folders = {name[:end] for name in found for end, letter in enumerate(name) if letter == "/"}
        return {name: size for name, size in found.items() if name not in folders}  # pyarrow makes objects for folders
    sizes = {}
    for parent, _, names in os.walk(str(folder)):
        for name in names:
            with suppress(FileNotFoundError):  # deleted in between
                path = os.path.join(parent, name)
                sizes[os.path.relpath(path, str(folder))] = os.stat(path).st_size
    return sizes


def read_bytes(path: AnyPath) -> bytes:
    """The content of a small file, in one request.

    Raises:
        FileNotFoundError: it doesn't exist.
    """
    return path.read_bytes() if is_local(path) else bytes(obstore.get(*object_store(path)).bytes())


def read_ranges(path: AnyPath, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    """Parts of a file, each given as (start, length) in bytes; one that goes beyond the end of the file is shorter."""
    if is_local(path):
        pieces = []
        with path.open("rb") as content:
            for start, length in ranges:
                content.seek(start)
                pieces.append(content.read(length))
        return pieces
    store, key = object_store(path)
    size = obstore.head(store, key)["size"]
    inside = [(start, min(length, size - start)) for start, length in ranges if start < size and length]
    found = iter(
        obstore.get_ranges(store, key, starts=[start for start, _ in inside], lengths=[length for _, length in inside])
        if inside
        else ()
    )
    return [bytes(next(found)) if start < size and length else b"" for start, length in ranges]
