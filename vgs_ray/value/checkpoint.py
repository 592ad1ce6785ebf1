"""Training state on disk: written beside, then renamed, so that a checkpoint is whole or absent; the last ones are kept.

In: a model and its optimizer. Out: `step-*/state.pt` and the step to go on from. Random state is not in it, because the
loop seeds every step by its number.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import torch
from torch.optim import Optimizer

from vgs_ray.value.model import ValueModel

KEPT = 2
_NAME = re.compile(r"step-(\d+)")


def save(folder: Path, step: int, model: ValueModel, optimizer: Optimizer) -> None:
    """Write the state after `step` steps and remove all but the newest `KEPT`."""
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"step-{step:07d}"
    beside = folder / f".{final.name}"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    with (beside / "state.pt").open("wb") as file:
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
        file.flush()
        os.fsync(file.fileno())  # the new name must not become durable before the bytes, or a power cut leaves a stump
    shutil.rmtree(final, ignore_errors=True)
    os.replace(beside, final)
    for _, old in _found(folder)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def load_latest(folder: Path, model: ValueModel, optimizer: Optimizer, device: torch.device) -> int:
    """Restore the newest state and return its step; 0 without one. Nothing but tensors and plain values is unpickled."""
    found = _found(folder)
    if not found:
        return 0
    step, path = found[-1]
    state = torch.load(path / "state.pt", map_location=device, weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return step


def _found(folder: Path) -> list[tuple[int, Path]]:
    """Complete checkpoints by step."""
    matches = ((_NAME.fullmatch(path.name), path) for path in folder.glob("step-*"))
    return sorted((int(match[1]), path) for match, path in matches if match)
