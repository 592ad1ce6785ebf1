"""Checkpoints of the training state with torch.distributed.checkpoint.

In: a model and its optimizer, whole or sharded. Out: folders `step-*`, of which the newest are kept. A checkpoint holds tensors,
and `progress.json` for the rest. On a disk it is written under a temporary name and then renamed. On an object store each worker
uploads its own files, and rank 0 uploads `progress.json` when all are there: a checkpoint without it does not count. Random
states are not stored, because the loop seeds each step by its number. A checkpoint can be loaded with another number of workers.
"""

from __future__ import annotations

import json
import pickle
import re
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.optim import Optimizer

from vgs_ray.data.files import publish_folder, remove_folder, upload, write_json
from vgs_ray.data.local_copies import local_copy, remove_local_copy
from vgs_ray.data.node_disk import temporary_folder
from vgs_ray.data.storage import AnyPath, is_local, list_files
from vgs_ray.value.model import ValueModel
from vgs_ray.value.training.parallel import Worker

_NAME = re.compile(r"step-(\d+)")
_PROGRESS = "progress.json"


class _Save(NamedTuple):
    """A checkpoint that is being written, and what `progress.json` will hold."""

    folder: AnyPath
    progress: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run. All workers call each method together.

    Args:
        folder: folder of all checkpoints.
        kept: number of checkpoints to keep.
        worker: this process.
        background: write while training continues, from a copy of the state.
        identity: settings that decide what a step computes; a checkpoint written with other values is refused.
        before_commit: called on rank 0 immediately before a checkpoint counts.
    """

    def __init__(
        self,
        folder: AnyPath,
        kept: int,
        worker: Worker,
        background: bool = False,
        identity: Mapping[str, Any] | None = None,
        before_commit: Callable[[], None] | None = None,
    ) -> None:
        self._folder, self._kept, self._worker, self._background = folder, kept, worker, background
        self._identity, self._before_commit = dict(identity or {}), before_commit
        self._pending: tuple[Future[Any], _Save] | None = None
        # A group of its own: collectives of a save in the background must not mix with those of training.
        # On a CPU, even of a single worker on a GPU: torch refuses to save in the background with NCCL alone.
        group = dist.new_group(backend="gloo") if dist.is_initialized() else None
        self._collectives: dict[str, Any] = {"process_group": group, "no_dist": worker.world == 1}

    def save(self, step: int, samples: int, model: ValueModel, optimizer: Optimizer) -> None:
        """Write the state after `step` steps, once the previous save has ended."""
        self.wait()
        progress = {"step": step, "samples": samples, "workers": self._worker.world, "identity": self._identity}
        save = _Save(self._folder / f"step-{step:07d}", progress | {"id": uuid.uuid4().hex})
        weights, optimizer_state = get_state_dict(model, optimizer)
        state, writer = _tensors(weights, optimizer_state), _writer(save.folder)
        if self._background:
            future = dcp.async_save(state, storage_writer=writer, **self._collectives)
            self._pending = (future, save)  # type: ignore[assignment]
        else:
            dcp.save(state, storage_writer=writer, **self._collectives)
            self._commit(save)

    def poll(self) -> None:
        """Commit the save in the background if it has ended."""
        if self._pending and self._pending[0].done():
            self.wait()

    def wait(self) -> None:
        """Wait for the save in the background, and commit it."""
        if self._pending:
            future, save = self._pending
            self._pending = None
            future.result()
            self._commit(save)

    def _commit(self, save: _Save) -> None:
        """Let the checkpoint count. Rank 0 does so, whose save ends last because it writes the metadata of all workers."""
        if self._worker.rank:
            return
        if self._before_commit:
            self._before_commit()
        if is_local(save.folder):
            temporary = _temporary(save.folder)
            (temporary / _PROGRESS).write_text(json.dumps(save.progress))
            publish_folder(temporary, save.folder)
        else:
            write_json(save.folder / _PROGRESS, save.progress)
        for old in _complete(self._folder)[: -self._kept]:
            (old / _PROGRESS).unlink(missing_ok=True)
            remove_folder(old)

    def load_latest(self, model: ValueModel, optimizer: Optimizer) -> int:
        """Restore the newest checkpoint in place and return its step; 0 if there is none.

        Raises:
            ValueError: the checkpoint was written with another identity.
        """
        latest, progress = self._latest()
        if latest is None:
            return 0
        self._check_identity(latest, progress["identity"])
        copy = local_copy(latest, progress["id"])
        load_state(copy, model, optimizer, **self._collectives)
        self._worker.gather(None)  # all workers of the node have read the copy
        remove_local_copy(copy, latest)
        return int(progress["step"])

    def _latest(self) -> tuple[AnyPath | None, dict[str, Any]]:
        """Folder and progress. Rank 0 decides for all workers: on a shared file system, others may see a new folder later."""
        found: tuple[AnyPath | None, dict[str, Any]] = (None, {})
        if self._worker.rank == 0:
            complete = _complete(self._folder)
            for folder in _folders(self._folder):
                if folder not in complete:
                    remove_folder(folder)  # left by an interrupted save
            if complete:
                found = complete[-1], json.loads((complete[-1] / _PROGRESS).read_text())
        return self._worker.gather(found)[0]

    def _check_identity(self, checkpoint: AnyPath, before: Mapping[str, Any]) -> None:
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


def save_state(folder: Path, model: nn.Module, optimizer: Optimizer) -> None:
    """Write the weights and the state of the optimizer. All workers call it together; each writes its part.

    Args:
        folder: the same folder on a shared disk, or one of each worker's own.
        model: whole or sharded.
        optimizer: of the model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = _tensors(*get_state_dict(model, optimizer))
    dcp.save(state, storage_writer=FileSystemWriter(str(folder)), no_dist=not dist.is_initialized())


def load_state(folder: Path, model: nn.Module, optimizer: Optimizer, **collectives: Any) -> None:
    """Restore in place what was saved, with any number of workers and shards. All workers call it together.

    Args:
        folder: with the files of all workers.
        model: whole or sharded.
        optimizer: of the model.
        collectives: arguments of `torch.distributed.checkpoint.load`.
    """
    weights, optimizer_state = get_state_dict(model, optimizer)
    dcp.load(_tensors(weights, optimizer_state), storage_reader=_Reader(folder), **collectives)
    set_state_dict(model, optimizer, model_state_dict=weights, optim_state_dict=optimizer_state)


def _tensors(weights: dict[str, Any], optimizer_state: dict[str, Any]) -> dict[str, Any]:
    """The tensors to save, or to load into. Without `param_groups`: those come from the configuration, and loading them would
    unpickle."""
    return {"model": weights, "optimizer": optimizer_state["state"]}


def _complete(folder: AnyPath) -> list[AnyPath]:
    """Complete checkpoints in the order of their steps."""
    names = (name.partition("/") for name in list_files(folder) if name.endswith(f"/{_PROGRESS}"))
    matches = (_NAME.fullmatch(name) for name, _, _ in names)
    return [folder / match[0] for match in sorted(filter(None, matches), key=lambda match: int(match[1]))]


def _folders(folder: AnyPath) -> list[AnyPath]:
    """All checkpoints, also incomplete ones."""
    if is_local(folder):
        return [*folder.glob("step-*"), *folder.glob(".step-*")]
    names = {name.partition("/")[0] for name in list_files(folder)}
    return [folder / name for name in names if _NAME.fullmatch(name)]


def _temporary(checkpoint: Path) -> Path:
    return checkpoint.with_name(f".{checkpoint.name}")


def _writer(checkpoint: AnyPath) -> FileSystemWriter:
    if is_local(checkpoint):
        _temporary(checkpoint).mkdir(parents=True, exist_ok=True)
        return FileSystemWriter(str(_temporary(checkpoint)), sync_files=True)
    return _UploadingWriter(checkpoint)


class _UploadingWriter(FileSystemWriter):
    """Writes the files of this worker to a temporary folder of its own, and uploads them."""

    def __init__(self, checkpoint: AnyPath) -> None:
        self._checkpoint = checkpoint
        self._open = ExitStack()  # removes the folder together with this object
        self._files = self._open.enter_context(temporary_folder())
        super().__init__(str(self._files), sync_files=False)

    def write_data(self, *args: Any, **kwargs: Any) -> Any:
        results = super().write_data(*args, **kwargs)
        results.wait()
        self._upload()
        return results

    def finish(self, *args: Any, **kwargs: Any) -> None:
        """Called on rank 0, with the results of all workers."""
        super().finish(*args, **kwargs)
        self._upload()

    def _upload(self) -> None:
        for file in self._files.iterdir():
            upload(file, self._checkpoint / file.name)
            file.unlink()


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
