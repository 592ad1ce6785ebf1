"""Checkpoints of the Trainer in storage.

On a disk all workers write to the folder of the checkpoints. On an object store each worker writes to a temporary folder of its
own, and uploads its files. A checkpoint counts when rank 0 has written the file `complete`, after all workers have written
theirs.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vgs_ray.data.files import remove_folder, upload_folder, write_atomically
from vgs_ray.data.node_disk import temporary_folder
from vgs_ray.data.storage import AnyPath, is_local, list_files

KEPT = 2
"""Number of checkpoints to keep."""
COMPLETE = "complete"
"""File that marks a checkpoint whose files all workers have written; its content differs for each checkpoint."""
PREFIX = "checkpoint-"
"""Before the step, as the Trainer names its checkpoints."""


class TuneCheckpoints:
    """The checkpoints of one run.

    Args:
        folder: their folder in storage.
        local: folder that the Trainer of this worker writes to; on a disk, `folder`.
        before_commit: called on rank 0 immediately before a checkpoint counts.
    """

    def __init__(self, folder: AnyPath, local: Path, before_commit: Callable[[], None]) -> None:
        self.local, self._folder, self._before_commit = local, folder, before_commit

    def upload(self, step: int) -> None:
        """Copy the files that this worker has written for a checkpoint to storage."""
        written = self.local / f"{PREFIX}{step}"
        if self.local != self._folder and written.exists():
            upload_folder(written, self._folder / written.name)
            shutil.rmtree(written)

    def commit(self, step: int) -> None:
        """Let a checkpoint count whose files are all there, and remove old ones. Only rank 0 calls it."""
        self._before_commit()
        write_atomically(self._folder / f"{PREFIX}{step}" / COMPLETE, uuid.uuid4().hex)
        for old in self._complete()[:-KEPT]:
            (old / COMPLETE).unlink(missing_ok=True)
            remove_folder(old)

    def newest(self) -> tuple[AnyPath, str] | None:
        """The newest complete checkpoint and its version, after removing incomplete ones. Only rank 0 calls it."""
        complete = self._complete()
        for name in {name.partition("/")[0] for name in list_files(self._folder)}:
            if name.startswith(PREFIX) and self._folder / name not in complete:
                remove_folder(self._folder / name)
        return (complete[-1], (complete[-1] / COMPLETE).read_text()) if complete else None

    def _complete(self) -> list[AnyPath]:
        """Complete checkpoints in the order of their steps."""
        names = [name.partition("/")[0] for name in list_files(self._folder) if name.endswith(f"/{COMPLETE}")]
        return [self._folder / name for name in sorted(names, key=lambda name: int(name.removeprefix(PREFIX)))]


@contextmanager
def open_checkpoints(folder: AnyPath, before_commit: Callable[[], None]) -> Iterator[TuneCheckpoints]:
    """The checkpoints in a folder, with the temporary folder of this worker if it needs one."""
    if is_local(folder):
        yield TuneCheckpoints(folder, folder, before_commit)
        return
    with temporary_folder() as local:
        yield TuneCheckpoints(folder, local, before_commit)
