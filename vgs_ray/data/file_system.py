"""fsspec's interface to an object store, on obstore's blocking calls. `UPath` uses it for paths with a URL.

obstore has such an interface too. It runs on the threads of an event loop, which can abort the interpreter when it exits.
"""

from __future__ import annotations

import io
from typing import Any

import obstore
from fsspec import AbstractFileSystem
from obstore.store import ObjectStore

from vgs_ray.data.storage import bucket_store

READ_BYTES = 2**20
"""Bytes of a request when a file is read."""


class ObjectFileSystem(AbstractFileSystem):
    """The buckets of one scheme, which is `protocol`."""

    protocol = ""

    def _at(self, path: str) -> tuple[ObjectStore, str]:
        bucket, _, key = self._strip_protocol(path).partition("/")
        return bucket_store(f"{self.protocol}://{bucket}"), key

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        path, (store, key) = self._strip_protocol(path), self._at(path)
        try:
            return {"name": path, "size": obstore.head(store, key)["size"], "type": "file"}
        except FileNotFoundError:
            if not self.ls(path):
                raise
            return {"name": path, "size": 0, "type": "directory"}

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        path, (store, key) = self._strip_protocol(path), self._at(path)
        bucket, found = path.partition("/")[0], obstore.list_with_delimiter(store, f"{key}/" if key else None)
        folders = [{"name": f"{bucket}/{name}", "size": 0, "type": "directory"} for name in found["common_prefixes"]]
        files = [
            {"name": f"{bucket}/{item['path']}", "size": item["size"], "type": "file"} for item in found["objects"]
        ]
        entries = [*folders, *files]
        return entries if detail else [entry["name"] for entry in entries]

    def _rm(self, path: str) -> None:
        store, key = self._at(path)
        obstore.head(store, key)  # a missing object is an error, as on a disk
        obstore.delete(store, key)

    def _open(self, path: str, mode: str = "rb", **_: Any) -> Any:
        store, key = self._at(path)
        if mode == "rb":
            return io.BufferedReader(_Reader(store, key), READ_BYTES)
        if mode == "wb":
            return _Writer(store, key)
        raise ValueError(
            f"{path} was opened with mode {mode!r}; an object is read or replaced: use 'r', 'rb', 'w' or 'wb'"
        )


class S3FileSystem(ObjectFileSystem):
    """The buckets of S3."""

    protocol = "s3"


class GcsFileSystem(ObjectFileSystem):
    """The buckets of Google Cloud Storage."""

    protocol = "gs"


class _Reader(io.RawIOBase):
    """Reads ranges of an object."""

    def __init__(self, store: ObjectStore, key: str) -> None:
        self._store, self._key, self._position = store, key, 0
        self._size = obstore.head(store, key)["size"]

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        return self._position

    def readinto(self, buffer: Any) -> int:
        length = min(len(buffer), self._size - self._position)
        if length <= 0:
            return 0
        content = obstore.get_range(self._store, self._key, start=self._position, length=length)
        buffer[:length] = bytes(content)
        self._position += length
        return length


class _Writer(io.BytesIO):
    """Puts the object when it is closed, unless the block that writes it raises."""

    def __init__(self, store: ObjectStore, key: str) -> None:
        super().__init__()
        self._store, self._key = store, key

    def __exit__(self, *raised: Any) -> None:
        if raised[0] is not None:
            super().close()
        self.close()

    def close(self) -> None:
        if not self.closed:
            obstore.put(self._store, self._key, self.getvalue())
        super().close()
