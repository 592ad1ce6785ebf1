"""A local folder for code that appends to files or writes many of them, and its copy on an object store."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import obstore

from vgs_ray.data.files import upload
from vgs_ray.data.node_disk import temporary_folder
from vgs_ray.data.storage import AnyPath, is_local, object_store

COPY_S = 10.0
"""Seconds between two copies of the changed files."""


class Mirror:
    """A local folder and the folder in storage that it is copied to. On a disk both are the same, and nothing is copied.

    Args:
        folder: the local folder.
        target: the folder in storage.
    """

    def __init__(self, folder: Path, target: AnyPath) -> None:
        self.folder, self._target = folder, target
        self._copied: dict[Path, tuple[int, int]] = {}
        self._lock = threading.Lock()

    def copy(self) -> None:
        """Copy the files that have changed since the last copy."""
        if self.folder == self._target:
            return
        with self._lock:
            for file, state in self._states().items():
                if self._copied.get(file) != state:
                    with suppress(FileNotFoundError):  # replaced in between
                        upload(file, self._target / file.relative_to(self.folder).as_posix())
                        self._copied[file] = state

    def fetch(self, names: Sequence[str]) -> None:
        """Download the files that exist among these."""
        for name in names:
            store, key = object_store(self._target / name)
            with suppress(FileNotFoundError):
                (self.folder / name).write_bytes(obstore.get(store, key).bytes())
        self._copied = self._states()

    def _states(self) -> dict[Path, tuple[int, int]]:
        """Time of the last change and size of each file, except empty files and those with a temporary name."""
        states = {}
        for file in self.folder.rglob("*"):
            with suppress(FileNotFoundError):
                status = file.stat()
                if file.is_file() and status.st_size and not file.name.startswith("."):
                    states[file] = (status.st_mtime_ns, status.st_size)
        return states


@contextmanager
def mirrored(target: AnyPath, existing: Sequence[str] = ()) -> Iterator[Mirror]:
    """A local folder whose changed files are copied to `target` every 10 s and at the end of the block.

    Args:
        target: the folder in storage; a folder on a disk is used as it is.
        existing: names of files to download first, because they are continued.
    """
    if is_local(target):
        yield Mirror(target, target)
        return
    with temporary_folder() as folder:
        mirror, stop = Mirror(folder, target), threading.Event()
        mirror.fetch(existing)
        copying = threading.Thread(target=_keep_copying, args=(mirror, stop), daemon=True)
        copying.start()
        try:
            yield mirror
        finally:
            stop.set()
            copying.join()
            mirror.copy()


def _keep_copying(mirror: Mirror, stop: threading.Event) -> None:
    while not stop.wait(COPY_S):
        try:
            mirror.copy()
        except Exception as error:
            logging.getLogger(__name__).warning("a copy failed (%s: %s); trying again", type(error).__name__, error)
