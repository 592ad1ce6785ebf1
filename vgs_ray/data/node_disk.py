"""Folders on a node's own disk: temporary ones of one process, and copies that the processes of the node share.

Each process holds a lock on the folders that it uses until it ends or is killed. A folder whose lock is free was left by killed
processes or by an interrupted stage, and the next process that needs space deletes it.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import socket
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path

from filelock import FileLock

from vgs_ray.errors import UserError

_used: dict[Path, int] = {}
"""Descriptors of the locks that this process holds until it ends."""


def node_root() -> Path:
    """The folder of this user among the temporary files of this node; the environment variable TMPDIR moves it."""
    return Path(tempfile.gettempdir()) / f"vgs-ray-{os.getuid()}"


def node_folder(key: str) -> Path:
    """The folder of this node for a key. Another content needs another key."""
    return node_root() / hashlib.blake2b(key.encode(), digest_size=16).hexdigest()


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """An empty folder, which is deleted at the end of the block, or after the death of this process by the next one here."""
    remove_unused(node_root(), "tmp-*")
    folder = node_root() / f"tmp-{uuid.uuid4().hex}"
    with _full_disk_is_named():
        lock = _lock(folder, fcntl.LOCK_SH)
        try:
            folder.mkdir()
            yield folder
        finally:
            remove_node_folder(folder)
            os.close(lock)


@contextmanager
def one_process(folder: Path) -> Iterator[None]:
    """Keep a folder from `remove_unused` until this process ends. In the block, no other process is in such a block.

    One process fills the folder, and the others wait for it.
    """
    with _full_disk_is_named():
        held = _used.get(folder)
        if held is None or not _is_current(held, folder):
            _used[folder] = _lock(folder, fcntl.LOCK_SH)
        with FileLock(folder.with_name(f".{folder.name}.filling")):
            yield


@contextmanager
def _full_disk_is_named() -> Iterator[None]:
    """Say which node has no space left for its own folders; the command that reports the error may run on another one.

    Raises:
        UserError: in place of such an OSError, unless it names a file elsewhere.
    """
    try:
        yield
    except OSError as error:
        is_here = not error.filename or str(error.filename).startswith(str(node_root()))
        if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not is_here:
            raise
        raise UserError(
            f"no space left in {node_root()} on {socket.gethostname()}: free some space there, or set TMPDIR to a folder on "
            "another disk before Ray starts there, then run the same command"
        ) from error


def remove_unused(parent: Path, pattern: str = "*", after_s: float = 0.0) -> None:
    """Delete folders that no process uses.

    Args:
        parent: of the folders.
        pattern: of their names.
        after_s: keep those that were in use in the last seconds.
    """
    for path in list(parent.glob(f".{pattern}.lock")):
        folder = path.with_name(path.name[1:].removesuffix(".lock"))
        with suppress(OSError):  # in use, deleted meanwhile, or a file system without locks
            if time.time() - path.stat().st_mtime < after_s:
                continue
            lock = _lock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove_node_folder(folder)
            os.close(lock)


def remove_node_folder(folder: Path) -> None:
    """Delete a folder, its locks, and what killed processes left of it. No other process may be using it."""
    shutil.rmtree(folder, ignore_errors=True)
    for path in list(folder.parent.glob(f".{escape(folder.name)}.*")):
        remove_path(path)


def remove_path(path: Path) -> None:
    """Delete a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _lock_file(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.lock")


def _lock(folder: Path, kind: int) -> int:
    """The descriptor of the lock file of a folder, locked until it is closed. The time of the file is that of its last use.

    Raises:
        OSError: `kind` does not wait, and another process has the lock; or the file system has no locks.
    """
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    while True:
        descriptor = os.open(_lock_file(folder), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, kind)
        except OSError:
            if kind & fcntl.LOCK_NB:
                os.close(descriptor)
                raise
        if _is_current(descriptor, folder):
            os.utime(descriptor)
            return descriptor
        os.close(descriptor)  # another process has deleted the folder meanwhile


def _is_current(descriptor: int, folder: Path) -> bool:
    """Whether a lock is that of the folder as it is now."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), os.stat(_lock_file(folder)))
    return False
