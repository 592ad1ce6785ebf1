"""Training state on disk by torch.distributed.checkpoint: written beside, then renamed, so it is whole or absent.

In: a model and its optimizer, whole or sharded. Out: `step-*` folders, of which the last ones are kept, and the step to go
on from, also with another number of workers. The state holds tensors only; `progress.json` holds the rest. Random state is
the seed: the loop seeds every step by its number, and data order and learning rate are functions of the step too.
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
from torch.optim import Optimizer

from vgs_ray.data.files import publish_folder
from vgs_ray.value.model import ValueModel
from vgs_ray.value.training.parallel import Worker

MOMENTS = ("exp_avg", "exp_avg_sq")
_NAME = re.compile(r"step-(\d+)")
_PROGRESS = "progress.json"


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: of all of them.
        kept: how many stay.
        worker: this process; all of them save and load together.
        background: save while training goes on, from a copy of the state.
        identity: what the order of the samples and the schedule depend on; a checkpoint of another identity is refused.
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
        # Writing goes on beside training, whose collectives must not mix with its own.
        self._group = dist.new_group(backend="gloo") if worker.world > 1 else None

    def save(self, step: int, samples: int, model: ValueModel, optimizer: Optimizer) -> None:
        """Write the state after `step` steps; the one before must be whole first."""
        self.wait()
        beside = self._folder / f".step-{step:07d}"
        beside.mkdir(parents=True, exist_ok=True)
        if self._worker.rank == 0:
            facts = {"step": step, "samples": samples, "workers": self._worker.world, "identity": self._identity}
            (beside / _PROGRESS).write_text(json.dumps(facts))
        state, writer = _state(model, optimizer), FileSystemWriter(beside, sync_files=True)
        if self._background:
            future = dcp.async_save(
                state, storage_writer=writer, process_group=self._group, no_dist=self._worker.world == 1
            )
            self._pending = (future, beside, step)  # type: ignore[assignment]
        else:
            dcp.save(state, storage_writer=writer, process_group=self._group, no_dist=self._worker.world == 1)
            self._publish(beside, step)

    def poll(self) -> None:
        """Publish a save that has ended."""
        if self._pending and self._pending[0].done():
            self.wait()

    def wait(self) -> None:
        """Wait for the save that is under way."""
        if self._pending:
            future, beside, step = self._pending
            self._pending = None
            future.result()
            self._publish(beside, step)

    def _publish(self, beside: Path, step: int) -> None:
        """The first worker gathers what all wrote and ends last, so it alone renames."""
        if self._worker.rank:
            return
        publish_folder(beside, self._folder / f"step-{step:07d}")
        for _, old in _found(self._folder)[: -self._kept]:
            shutil.rmtree(old, ignore_errors=True)

    def load_latest(self, model: ValueModel, optimizer: Optimizer) -> int:
        """Restore the newest state in place and return its step; 0 without one.

        Raises:
            ValueError: it belongs to another order of samples or another schedule.
        """
        latest = None
        if self._worker.rank == 0:  # one answer for all: another worker may see the folder a moment later
            for stale in self._folder.glob(".step-*"):
                shutil.rmtree(stale, ignore_errors=True)
            latest = found[-1][1] if (found := _found(self._folder)) else None
        latest = self._worker.gather(latest)[0]
        _start(optimizer)
        if latest is None:
            return 0
        facts = json.loads((latest / _PROGRESS).read_text())
        before = facts["identity"]
        changed = [f"{name} was {before.get(name)}, is {value}" for name, value in self._identity.items()
                   if before.get(name) != value]  # fmt: skip
        if changed:
            raise ValueError(
                f"{latest} was written with another configuration ({'; '.join(changed)}), which changes what the next step "
                "does; go on with the same one, or train into another folder"
            )
        state = _state(model, optimizer)
        dcp.load(state, storage_reader=_Reader(latest), process_group=self._group, no_dist=self._worker.world == 1)
        return int(facts["step"])


def _state(model: ValueModel, optimizer: Optimizer) -> dict[str, Any]:
    """Tensors by name, the optimizer's own ones, so that loading into them restores it. Groups are configuration."""
    state: dict[str, Any] = {}
    for name, weight in model.named_parameters():
        state[f"model.{name}"] = weight.detach()
        if weight.requires_grad:
            state |= {f"{key}.{name}": optimizer.state[weight][key] for key in ("step", *MOMENTS)}
    return state


def _start(optimizer: Optimizer) -> None:
    """Give the optimizer the state that its first step would give it: to load into, and to save before any gradient."""
    for group in optimizer.param_groups:
        for weight in group["params"]:
            optimizer.state[weight] = {"step": torch.zeros((), dtype=torch.float32, device=weight.device)}
            optimizer.state[weight] |= {key: torch.zeros_like(weight) for key in MOMENTS}


def _found(folder: Path) -> list[tuple[int, Path]]:
    """Complete checkpoints by step."""
    matches = ((_NAME.fullmatch(path.name), path) for path in folder.glob("step-*"))
    return sorted((int(match[1]), path) for match, path in matches if match)


class _Reader(FileSystemReader):
    """torch keeps the list of tensors in a pickle; this reads only the classes that such a list is made of."""

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
        found = super().find_class(module, name) if (module, name) in self.ALLOWED or module == self.METADATA else None
        if found is None and module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            found = getattr(torch, name)
        if found is None or (module == self.METADATA and getattr(found, "__module__", "") != module):
            raise pickle.UnpicklingError(f"a checkpoint's metadata names {module}.{name}, which does not belong there")
        return found
