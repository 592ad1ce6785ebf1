"""Files and folders that are whole or absent, also after a crash or a power failure.

A writer gets a temporary path in the same folder. When it has finished, the data is flushed to disk (fsync), the path is
renamed, and the folder is flushed too. A killed writer leaves only temporary paths, which `remove_temporary` deletes.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_file(path: Path, before_rename: Callable[[], None] | None = None) -> Iterator[Path]:
    """A temporary path to write to. It replaces `path` at the end of the block, or is deleted if the block raises.

    Args:
        path: the file to write or replace.
        before_rename: called when the data is on disk, immediately before the rename; no rename follows if it raises.
    """
    temporary = _temporary(path)
    try:
        yield temporary
        _flush(temporary)
        if before_rename:
            before_rename()
        os.replace(temporary, path)
        _flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder to fill. It replaces `folder` at the end of the block, or is deleted if the block raises."""
    temporary = _temporary(folder)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        publish_folder(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def publish_folder(temporary: Path, folder: Path) -> None:
    """Flush a folder and all that it contains to disk, then rename it to `folder`, which is deleted first if it exists."""
    for path in (*temporary.rglob("*"), temporary):
        _flush(path)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(temporary, folder)
    _flush(folder.parent)


def write_atomically(path: Path, data: str | bytes) -> None:
    """Replace a file by text (as UTF-8) or bytes."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def write_json(path: Path, value: Any) -> None:
    """Replace a file by a value as JSON."""
    write_atomically(path, json.dumps(value, indent=1) + "\n")


def _flush(path: Path) -> None:
    """fsync of a file or of a folder's list of names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_temporary(folder: Path, name: str = "*") -> None:
    """Delete what killed writers of `name` left in a folder or below it. No other process may be writing there."""
    for path in list(folder.rglob(f".{name}.*.tmp")):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    """A name that no other process or node chooses."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
