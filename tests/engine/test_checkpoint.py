"""Checkpoints are complete or absent, the newest are kept, those of other settings are refused, and loading runs no code."""

from __future__ import annotations

import os
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.distributed.checkpoint.api import CheckpointException
from toy import CONFIG, new_model, run, weights_of
from upath import UPath

from vgs_ray.value.model import ValueModel
from vgs_ray.value.training.checkpoint import Checkpoints
from vgs_ray.value.training.optimizer import make_optimizer
from vgs_ray.value.training.parallel import Worker


def trained(backbone: str) -> tuple[ValueModel, torch.optim.Optimizer]:
    """A model and an optimizer after one arbitrary step."""
    model = new_model(backbone)
    optimizer = make_optimizer(model, CONFIG)
    model(torch.arange(8, 28)[None]).square().sum().backward()
    optimizer.step()
    return model, optimizer


@pytest.mark.parametrize("background", [False, True])
def test_a_checkpoint_has_the_state_at_the_time_of_the_save(backbone: str, any_root: UPath, background: bool) -> None:
    checkpoints = Checkpoints(any_root, 2, Worker(), background)
    model, optimizer = trained(backbone)
    expected = weights_of(model)
    moments = [optimizer.state[weight]["exp_avg"].clone() for weight in model.parameters()]
    checkpoints.save(5, 40, model, optimizer)
    with torch.no_grad():  # training continues while the checkpoint is written
        for weight in model.parameters():
            weight.add_(1)
            optimizer.state[weight]["exp_avg"].add_(1)
    checkpoints.wait()
    other = new_model(backbone)
    fresh = make_optimizer(other, CONFIG)
    assert Checkpoints(any_root, 2, Worker()).load_latest(other, fresh) == 5
    assert torch.equal(weights_of(other), expected)
    for moment, weight in zip(moments, other.parameters(), strict=True):
        assert torch.equal(fresh.state[weight]["exp_avg"], moment)
        assert fresh.state[weight]["step"] == 1


def test_an_incomplete_checkpoint_is_ignored_and_the_newest_are_kept(backbone: str, tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, 3, Worker())
    model, optimizer = trained(backbone)
    for step in range(1, 6):
        checkpoints.save(step, step * 8, model, optimizer)
    (tmp_path / ".step-0000006").mkdir()  # left by a process that was killed while saving
    assert sorted(path.name for path in tmp_path.glob("step-*")) == [f"step-000000{step}" for step in (3, 4, 5)]
    assert Checkpoints(tmp_path, 3, Worker()).load_latest(model, optimizer) == 5
    assert not (tmp_path / ".step-0000006").exists()


def test_what_was_reported_is_stored_before_a_checkpoint_counts(backbone: str, any_root: UPath) -> None:
    seen: list[bool] = []
    checkpoints = Checkpoints(
        any_root, 2, Worker(), before_commit=lambda: seen.append((any_root / "step-0000001/progress.json").exists())
    )
    checkpoints.save(1, 8, *trained(backbone))
    assert seen == [False]
    assert (any_root / "step-0000001/progress.json").exists()


def test_a_checkpoint_of_other_settings_is_refused(backbone: str, tables: Path, tmp_path: Path) -> None:
    run(backbone, tables, tmp_path, CONFIG)
    with pytest.raises(ValueError, match=r"batch_size was 8, is 4.*lr was 0\.003, is 0\.1"):
        run(backbone, tables, tmp_path, replace(CONFIG, batch_size=4, lr=0.1))


class Harmful:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_loading_a_checkpoint_runs_no_code(backbone: str, tmp_path: Path) -> None:
    model, optimizer = trained(backbone)
    checkpoints = Checkpoints(tmp_path / "run", 2, Worker())
    checkpoints.save(1, 8, model, optimizer)
    metadata = tmp_path / "run/step-0000001/.metadata"
    metadata.write_bytes(pickle.dumps(Harmful(tmp_path / "harm")))
    with pytest.raises(CheckpointException, match=r"names posix\.mkdir, which is not allowed"):
        checkpoints.load_latest(model, optimizer)
    assert not (tmp_path / "harm").exists()
