"""Files and folders that are whole or absent, also after a crash or a power failure, on a disk or an object store.

A writer gets a temporary path. On a disk it is in the same folder: when the writer has finished, the data is flushed to disk
(fsync), the path is renamed, and the folder is flushed too. A killed writer leaves only temporary paths, which
`remove_temporary` deletes. On an object store the temporary path is in a `temporary_folder` of the node, and its file is
uploaded by one request that takes effect as a whole.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import obstore

from vgs_ray.data.failpoints import failpoint
from vgs_ray.data.node_disk import remove_path, temporary_folder
from vgs_ray.data.storage import AnyPath, is_local, list_files, object_store, read_bytes

LAST = "config.json"
"""Uploaded after the other files of a folder. A model's folder without it is refused, so it marks the folder as whole."""

DOWNLOADS = 4
"""Files of a folder that are downloaded at a time."""
CHUNK_BYTES = 8 * 2**20
MAX_CHUNKS = 5000
"""Parts of an upload. S3 allows 10,000."""


@contextmanager
def atomic_file(path: AnyPath, before_commit: Callable[[], None] | None = None) -> Iterator[Path]:
    """A temporary path to write to. Its file replaces `path` at the end of the block, or is deleted if the block raises.

    Args:
        path: the file to write or replace.
        before_commit: called immediately before the file is renamed or uploaded, which does not happen if it raises.
    """
    if not is_local(path):
        with temporary_folder() as folder:
            yield (temporary := folder / path.name)
            if before_commit:
                before_commit()
            failpoint("file.before_upload")
            upload(temporary, path)
            failpoint("file.after_upload")
        return
    temporary = _temporary(path)
    try:
        yield temporary
        flush(temporary)
        if before_commit:
            before_commit()
        failpoint("file.before_rename")
        os.replace(temporary, path)
        failpoint("file.after_rename")
        flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(folder: AnyPath) -> Iterator[Path]:
    """A temporary folder to fill. It replaces `folder` at the end of the block, or is deleted if the block raises."""
    if not is_local(folder):
        with temporary_folder() as temporary:
            yield temporary
            remove_folder(folder)
            upload_folder(temporary, folder)
        return
    path = _temporary(folder)
    path.mkdir(parents=True)
    try:
        yield path
        publish_folder(path, folder)
    finally:
        shutil.rmtree(path, ignore_errors=True)


def publish_folder(temporary: Path, folder: Path) -> None:
    """Flush a folder and all that it contains to disk, then rename it to `folder`, which is deleted first if it exists."""
    for path in (*temporary.rglob("*"), temporary):
        flush(path)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(temporary, folder)
    flush(folder.parent)


def write_atomically(path: AnyPath, data: str | bytes) -> None:
    """Replace a file by text (as UTF-8) or bytes."""
    content = data.encode() if isinstance(data, str) else data
    if not is_local(path):
        obstore.put(*object_store(path), content)
        return
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: AnyPath, value: Any) -> None:
    """Replace a file by a value as JSON."""
    write_atomically(path, json.dumps(value, indent=1) + "\n")


def read_if_exists(path: AnyPath) -> str | None:
    """The text of a file; None if there is no such file."""
    try:
        return read_bytes(path).decode()
    except FileNotFoundError:
        return None


def read_end(path: AnyPath, size: int = 0) -> bytes:
    """The last `size` bytes of a file, or the whole file if `size` is 0 or the file is smaller. Empty if it is missing."""
    try:
        if not is_local(path):
            store, key = object_store(path)
            result = obstore.get(store, key, options={"range": {"suffix": size}}) if size else obstore.get(store, key)
            return bytes(result.bytes())
        with path.open("rb") as file:
            if size:
                file.seek(max(0, os.fstat(file.fileno()).st_size - size))
            return file.read()
    except FileNotFoundError:
        return b""


def upload(source: Path, target: AnyPath) -> None:
    """Copy a local file to an object store; the object is whole or absent."""
    store, key = object_store(target)
    chunk = max(CHUNK_BYTES, -(-source.stat().st_size // MAX_CHUNKS))
    obstore.put(store, key, source, chunk_size=chunk)


def upload_folder(source: Path, target: AnyPath) -> None:
    """Copy a local folder to an object store. `LAST` is uploaded last."""
    for file in sorted((each for each in source.rglob("*") if each.is_file()), key=lambda each: each.name == LAST):
        upload(file, target / file.relative_to(source).as_posix())


def download_folder(source: AnyPath, target: Path, names: Iterable[str] | None = None) -> None:
    """Copy files below a path of an object store to a local folder: those with these names, by default all."""
    store, key = object_store(source)
    chosen = list(list_files(source) if names is None else names)

    def download(name: str) -> None:
        file = target / name
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("wb") as out:
            for chunk in obstore.get(store, f"{key}/{name}").stream():
                out.write(chunk)

    with ThreadPoolExecutor(DOWNLOADS) as pool:
        list(pool.map(download, chosen))


def rename(path: AnyPath, target: AnyPath) -> None:
    """Give a file another name in the same storage. On an object store the file is copied there, then deleted."""
    if is_local(path):
        os.replace(path, str(target))
    else:
        obstore.rename(object_store(path)[0], object_store(path)[1], object_store(target)[1])


def remove_folder(folder: AnyPath) -> None:
    """Delete a folder with all that it contains, if it exists."""
    failpoint("remove.before")
    if is_local(folder):
        shutil.rmtree(folder, ignore_errors=True)
        return
    store, key = object_store(folder)
    for batch in obstore.list(store, prefix=f"{key}/"):
        obstore.delete(store, [item["path"] for item in batch])


def make_folder(folder: AnyPath) -> None:
    """Make a folder and those above it, and flush their names to disk. An object store has no folders."""
    if not is_local(folder):
        return
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in missing:
        flush(each.parent)


def flush(path: Path) -> None:
    """fsync of a file or of a folder's list of names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_temporary(folder: AnyPath, name: str = "*") -> None:
    """Delete what killed writers of `name` left in a folder or below it. No other process may be writing there."""
    if not is_local(folder):  # temporary files are on the disks of the writers
        return
    for path in list(folder.rglob(f".{name}.*.tmp")):
        remove_path(path)


def _temporary(path: Path) -> Path:
    """A name that no other process or node chooses."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
