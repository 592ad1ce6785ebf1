"""Paths on a local disk, a shared file system or an object store.

`storage_path` turns a path or a URL into a `UPath`, which has the interface of `pathlib.Path`. On a disk it is a
`pathlib.Path`. Small objects go through obstore and Parquet through pyarrow; both read credentials from the environment.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import obstore
from fsspec import register_implementation
from obstore.exceptions import BaseError
from obstore.store import ObjectStore, from_url
from typing_extensions import TypeIs
from upath import UPath

from vgs_ray.errors import UserError

AnyPath: TypeAlias = Path | UPath
"""A path on a disk or an object store."""
URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://")
ONE_SLASH = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*:/")
"""Matches URLs, and `s3:/bucket`, to which `pathlib` shortens `s3://bucket`."""
OBJECT_STORES = ("s3", "gs")
ATTEMPTS = 16
"""Attempts of a request that an object store throttles, fails with a 5xx status or does not answer. They take 30 s or more."""
LONGEST_PAUSE = timedelta(seconds=15)
"""Between two attempts."""
BACKOFF = {"init_backoff": timedelta(seconds=0.2), "max_backoff": LONGEST_PAUSE, "base": 4}

for _scheme, _class in {"s3": "S3FileSystem", "gs": "GcsFileSystem"}.items():
    register_implementation(_scheme, f"vgs_ray.data.file_system.{_class}", clobber=True)


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
    if not ONE_SLASH.match(text):
        return UPath(text)
    scheme, _, rest = text.partition("://")
    if scheme == "file":
        return UPath(f"/{rest.lstrip('/')}")
    if scheme not in OBJECT_STORES or not rest.strip("/"):
        raise UserError(
            f"{text} is not supported; storage is a path, or a URL such as file:///data/runs, s3://bucket/runs or "
            "gs://bucket/runs: pass one of these"
        )
    return UPath(text.rstrip("/"))


def is_url(place: str) -> bool:
    """Whether a text is a URL, not a path or the name of something else."""
    return bool(URL.match(place))


def _options(scheme: str, attempts: int = ATTEMPTS) -> dict[str, Any]:
    """Options of obstore; it reads credentials from the environment."""
    retries = {"max_retries": attempts - 1, "retry_timeout": timedelta(minutes=10), "backoff": BACKOFF}
    plain = {"client_options": {"allow_http": True}} if scheme == "s3" and endpoint().startswith("http://") else {}
    return {"retry_config": retries, **plain}


def endpoint() -> str:
    """The URL of an S3 server other than Amazon's, or an empty text."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""


def is_local(path: AnyPath) -> TypeIs[Path]:
    """Whether a path is on a disk or a mounted file system."""
    return isinstance(path, Path)


def object_store(path: AnyPath, attempts: int = ATTEMPTS) -> tuple[ObjectStore, str]:
    """The bucket of a path on an object store, and the key in it."""
    assert isinstance(path, UPath)
    bucket, _, key = path.path.partition("/")
    return bucket_store(f"{path.protocol}://{bucket}", attempts), key


@cache
def bucket_store(url: str, attempts: int = ATTEMPTS) -> ObjectStore:
    """The store of a bucket, given as a URL such as s3://bucket."""
    return from_url(url, **_options(url.partition("://")[0], attempts))


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
