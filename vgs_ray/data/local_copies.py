"""Local copies of what is in storage, made by one process of the node and whole or absent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from vgs_ray.data.files import atomic_folder, download_folder, remove_temporary
from vgs_ray.data.node_disk import node_folder, one_process, remove_node_folder, remove_unused
from vgs_ray.data.storage import AnyPath, is_local


def make_once(folder: Path, fill: Callable[[Path], None]) -> Path:
    """A local folder that `fill` has filled, in this or another process. This process uses it until it ends."""
    with one_process(folder):
        if not folder.is_dir():
            remove_temporary(folder.parent, folder.name)
            with atomic_folder(folder) as temporary:
                fill(temporary)
    return folder


def local_copy(folder: AnyPath, version: str) -> Path:
    """A folder in storage as a folder on this node, which is downloaded once. A folder on a disk is returned as it is.

    Args:
        folder: the folder.
        version: changes when the content changes.
    """
    if is_local(folder):
        return folder
    copy = node_folder(f"{folder}\n{version}")
    if not copy.exists():
        remove_unused(copy.parent)
    return make_once(copy, lambda temporary: download_folder(folder, temporary))


def remove_local_copy(copy: Path, folder: AnyPath) -> None:
    """Delete what `local_copy` has downloaded, when no process of the node needs it any more."""
    if copy != folder:
        remove_node_folder(copy)
