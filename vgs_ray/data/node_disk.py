"""Folders on a node's own disk, which the processes of the node share: copies of what is in storage.

They are in the folder for temporary files, which the environment variable TMPDIR chooses.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from vgs_ray.data.files import download_folder
from vgs_ray.data.storage import AnyPath, is_local


def node_folder(key: str) -> Path:
    """The folder of this node for a key. Another content needs another key."""
    name = hashlib.blake2b(key.encode(), digest_size=16).hexdigest()
    return Path(tempfile.gettempdir()) / f"vgs-ray-{os.getuid()}" / name


@contextmanager
def one_process(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder of this node. One process fills the folder, and the others wait for it."""
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        yield


def local_copy(folder: AnyPath, version: str) -> Path:
    """A folder in storage as a folder on this node, which is downloaded once. A folder on a disk is returned as it is.

    The node keeps one copy for all folders with the same parent, so a copy that a killed process left is replaced.

    Args:
        folder: the folder.
        version: changes when the content changes.
    """
    if is_local(folder):
        return folder
    slot = node_folder(str(folder.parent))
    copy = slot / f"{folder.name}-{version}"
    with one_process(slot):
        if not copy.exists():
            shutil.rmtree(slot, ignore_errors=True)
            download_folder(folder, slot / ".tmp")
            os.replace(slot / ".tmp", copy)
    return copy


def remove_local_copy(copy: Path, folder: AnyPath) -> None:
    """Delete what `local_copy` has downloaded, when no process of the node needs it any more."""
    if copy != folder:
        remove_node_folder(copy.parent)


def remove_node_folder(folder: Path) -> None:
    """Delete a folder of this node and its lock. No other process may be using it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.with_suffix(".lock").unlink(missing_ok=True)
