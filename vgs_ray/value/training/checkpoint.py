"""Checkpoints of the training state with torch.distributed.checkpoint.

In: a model and its optimizer, whole or sharded. Out: folders `step-*`, of which the newest are kept. A checkpoint is written
under a temporary name and then renamed, so a folder `step-*` is always complete. It holds tensors, and `progress.json` for the
rest; random states are not stored, because the loop seeds each step by its number. It can be loaded with another number of
workers.
"""

from __future__ import annotations

import json
import pickle
import re
import shutil
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.optim import Optimizer

from vgs_ray.data.files import publish_folder
from vgs_ray.value.model import ValueModel
from vgs_ray.value.training.parallel import Worker

_NAME = re.compile(r"step-(\d+)")
_PROGRESS = "progress.json"


class Checkpoints:
    """The checkpoints of one run. All workers call each method together.

    Args:
        folder: folder of all checkpoints.
        kept: number of checkpoints to keep.
        worker: this process.
        background: write while training continues, from a copy of the state.
        identity: settings that decide what a step computes; a checkpoint written with other values is refused.
    """

    def __init__(
        self,
        folder: Path,
        kept: int,
        worker: Worker,
        background: bool = False,
        identity: Mapping[str, Any] | None = None,
    ) -> None:
        self._folder, self._kept, self._worker, self._background = folder, kept, worker, background
        self._identity = dict(identity or {})
        self._pending: tuple[Future[Any], Path, int] | None = None
        # A group of its own: collectives of a save in the background must not mix with those of training.
        group = dist.new_group(backend="gloo") if worker.world > 1 else None
        self._collectives: dict[str, Any] = {"process_group": group, "no_dist": worker.world == 1}

    def save(self, step: int, samples: int, model: ValueModel, optimizer: Optimizer) -> None:
        """Write the state after `step` steps, once the previous save has ended."""
        self.wait()
        temporary = self._folder / f".step-{step:07d}"
        temporary.mkdir(parents=True, exist_ok=True)
        if self._worker.rank == 0:
            progress = {"step": step, "samples": samples, "workers": self._worker.world, "identity": self._identity}
            (temporary / _PROGRESS).write_text(json.dumps(progress))
        weights, optimizer_state = get_state_dict(model, optimizer)
        state, writer = _tensors(weights, optimizer_state), FileSystemWriter(temporary, sync_files=True)
        if self._background:
            future = dcp.async_save(state, storage_writer=writer, **self._collectives)
            self._pending = (future, temporary, step)  # type: ignore[assignment]
        else:
            dcp.save(state, storage_writer=writer, **self._collectives)
            self._publish(temporary, step)

    def poll(self) -> None:
        """Publish the save in the background if it has ended."""
        if self._pending and self._pending[0].done():
            self.wait()

    def wait(self) -> None:
        """Wait for the save in the background, and publish it."""
        if self._pending:
            future, temporary, step = self._pending
            self._pending = None
            future.result()
            self._publish(temporary, step)

    def _publish(self, temporary: Path, step: int) -> None:
        """Rename on rank 0, whose save ends last because it writes the metadata of all workers."""
        if self._worker.rank:
            return
        publish_folder(temporary, self._folder / f"step-{step:07d}")
        for old in _complete(self._folder)[: -self._kept]:
            shutil.rmtree(old, ignore_errors=True)

    def load_latest(self, model: ValueModel, optimizer: Optimizer) -> int:
        """Restore the newest checkpoint in place and return its step; 0 if there is none.

        Raises:
            ValueError: the checkpoint was written with another identity.
        """
        latest = self._latest()
        if latest is None:
            return 0
        progress = json.loads((latest / _PROGRESS).read_text())
        self._check_identity(latest, progress["identity"])
        weights, optimizer_state = get_state_dict(model, optimizer)
        state = _tensors(weights, optimizer_state)
        dcp.load(state, storage_reader=_Reader(latest), **self._collectives)
        set_state_dict(model, optimizer, model_state_dict=weights, optim_state_dict=optimizer_state)
        return int(progress["step"])

    def _latest(self) -> Path | None:
        """Rank 0 decides for all workers: on a shared file system, others may see a new folder later."""
        latest = None
        if self._worker.rank == 0:
            for interrupted in self._folder.glob(".step-*"):
                shutil.rmtree(interrupted, ignore_errors=True)
            latest = next(reversed(_complete(self._folder)), None)
        return self._worker.gather(latest)[0]

    def _check_identity(self, checkpoint: Path, before: Mapping[str, Any]) -> None:
        changed = [
            f"{name} was {before.get(name)}, is {value}"
            for name, value in self._identity.items()
            if before.get(name) != value
        ]
        if changed:
            raise ValueError(
                f"{checkpoint} was written with other settings ({'; '.join(changed)}); training can only resume with the same "
                "settings: restore them, or train into another folder"
            )


def _tensors(weights: dict[str, Any], optimizer_state: dict[str, Any]) -> dict[str, Any]:
    """The tensors to save, or to load into. Without `param_groups`: those come from the configuration, and loading them would
    unpickle."""
    return {"model": weights, "optimizer": optimizer_state["state"]}


def _complete(folder: Path) -> list[Path]:
    """Complete checkpoints in the order of their steps."""
    matches = ((_NAME.fullmatch(path.name), path) for path in folder.glob("step-*"))
    return [path for _, path in sorted((int(match[1]), path) for match, path in matches if match)]


class _Reader(FileSystemReader):
    """Reads the metadata, which torch pickles, with an unpickler that allows only the classes that metadata consists of."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        with (Path(self.path) / ".metadata").open("rb") as file:
            metadata = _Unpickler(file).load()
        metadata.storage_meta = getattr(metadata, "storage_meta", None) or dcp.metadata.StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata


class _Unpickler(pickle.Unpickler):
    ALLOWED = frozenset(
        {("torch", "Size"), ("torch", "device"), ("torch.serialization", "_get_layout"), ("pathlib", "PosixPath")}
        | {("collections", "OrderedDict"), ("torch.distributed.checkpoint.filesystem", "_StorageInfo")}
    )
    METADATA = "torch.distributed.checkpoint.metadata"

    def find_class(self, module: str, name: str) -> Any:
        allowed = (module, name) in self.ALLOWED or module == self.METADATA
        kind = super().find_class(module, name) if allowed else None
        if kind is None and module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            kind = getattr(torch, name)
        if kind is None or (module == self.METADATA and getattr(kind, "__module__", "") != module):
            raise pickle.UnpicklingError(f"the metadata names {module}.{name}, which is not allowed in a checkpoint")
        return kind
