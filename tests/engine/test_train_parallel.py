"""Training in processes: equal losses for any number of workers, equal weights after a kill."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toy import CONFIG, in_processes, load, loss_and_gradient, new_model, poison, read_losses, run, weights_of
from upath import UPath

from vgs_ray.config.train import shard_count
from vgs_ray.data.storage import list_files
from vgs_ray.value.packing import lay_out
from vgs_ray.value.training.batches import Batches
from vgs_ray.value.training.checkpoint import Checkpoints
from vgs_ray.value.training.feed import to_device
from vgs_ray.value.training.loop import fit
from vgs_ray.value.training.loss import summed_loss
from vgs_ray.value.training.optimizer import make_optimizer
from vgs_ray.value.training.parallel import Worker, device_mesh, prepare, sharing
from vgs_ray.value.training.step import LossDivergedError
from vgs_ray.value.training.throughput import training_flops

PLAIN = replace(CONFIG, dropout=0.0, attention_dropout=0.0)
VARIANTS = {
    "sharded": PLAIN,
    "resharding": replace(PLAIN, reshard=True, activations="checkpoint", async_checkpoints=True),
    "copies": replace(PLAIN, shard_size=1),
    "nodes": PLAIN,
}
LONG = replace(CONFIG, steps=20, checkpoint_every=7)


def train_variants(worker: Worker, folder: Path, backbone: str, tables: Path, names: list[str]) -> None:
    for name in names:
        (folder / name).mkdir(exist_ok=True)
        if name == "nodes":
            os.environ["LOCAL_WORLD_SIZE"] = "2"
            mesh = device_mesh(sharing(0, worker), worker)
            assert mesh.mesh.tolist() == [[0, 1], [2, 3]]
            assert mesh.mesh_dim_names == ("replicate", "shard")
        run(backbone, tables, folder / name, replace(VARIANTS[name], validate_every=2), worker, held_out=8)


@pytest.mark.parametrize(("world", "names"), [(2, ["sharded", "resharding", "copies"]), (4, ["nodes"])])
def test_any_number_of_workers_gives_the_same_losses(
    backbone: str, tables: Path, tmp_path: Path, world: int, names: list[str]
) -> None:
    assert in_processes(world, train_variants, tmp_path / "many", backbone, tables, names) == [0] * world
    one = run(backbone, tables, tmp_path / "one", PLAIN)
    weights = torch.load(tmp_path / "one/final.pt")
    for name in names:
        assert read_losses(tmp_path / "many" / name) == pytest.approx(one, abs=1e-6)
        torch.testing.assert_close(torch.load(tmp_path / "many" / name / "final.pt"), weights, rtol=0, atol=1e-5)


def train_in_bf16(worker: Worker, folder: Path, backbone: str, tables: Path) -> None:
    worker = replace(worker, bf16=True)
    model, dtypes = new_model(backbone, dropout=0.0), []
    prepare(model, PLAIN, worker)
    for layer in model.model.layers:
        layer.register_forward_pre_hook(lambda _, states: dtypes.append(states[0].dtype))
    examples = [load(tables).example(index) for index in range(worker.rank, 8, worker.world)]
    loss = summed_loss(model, to_device(lay_out(examples, "packed"), worker.device), "outcome")
    loss.backward()
    assert set(dtypes) == {torch.bfloat16}
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    gradient = torch.cat([weight.grad.full_tensor().reshape(-1) for weight in model.parameters()])
    assert gradient.dtype == torch.float32
    torch.save((gradient, sum(worker.gather(loss.item()))), folder / "gradient.pt")
    run(backbone, tables, folder, replace(PLAIN, async_checkpoints=True), worker, held_out=8)


@pytest.mark.parametrize("world", [1, 2])
def test_bfloat16_with_float32_masters(backbone: str, tables: Path, tmp_path: Path, world: int) -> None:
    """What GPUs run, with gloo on a CPU. A single worker shards too."""
    assert in_processes(world, train_in_bf16, tmp_path, backbone, tables) == [0] * world
    examples = [load(tables).example(index) for index in range(8)]
    loss, expected = loss_and_gradient(new_model(backbone, dropout=0.0), examples, "packed", 10_000)
    gradient, in_bf16 = torch.load(tmp_path / "gradient.pt")
    assert in_bf16 / len(examples) == pytest.approx(float(loss), rel=5e-3)
    assert (gradient / len(examples) - expected).norm() < 0.05 * expected.norm()
    (tmp_path / "one").mkdir()
    assert read_losses(tmp_path) == pytest.approx(run(backbone, tables, tmp_path / "one", PLAIN), rel=0.01)
    model = new_model(backbone)  # the checkpoint in float32, loaded by one worker
    assert Checkpoints(tmp_path, 2, Worker()).load_latest(model, make_optimizer(model, PLAIN)) == PLAIN.steps
    assert torch.equal(weights_of(model), torch.load(tmp_path / "final.pt"))


@pytest.mark.parametrize(
    ("shard_size", "workers", "per_node", "expected"),
    [
        (0, 64, 8, 8),
        (0, 8, 8, 8),
        (0, 4, 1, 4),
        (0, 12, 4, 4),
        (0, 7, 0, 7),
        (16, 64, 8, 16),
        (1, 64, 8, 1),
        (8, 12, 4, 4),
    ],
)
def test_one_copy_of_the_weights_on_each_node(shard_size: int, workers: int, per_node: int, expected: int) -> None:
    assert shard_count(shard_size, workers, per_node) == expected


def train(
    worker: Worker, folder: Path, backbone: str, tables: Path, config, killed_at: int = 0, checkpoints=None
) -> None:
    run(backbone, tables, folder, config, worker, killed_at, checkpoints=checkpoints)


@pytest.mark.parametrize("world", [1, 2])
def test_killed_and_resumed_equals_uninterrupted(backbone: str, tables: Path, tmp_path: Path, world: int) -> None:
    """20 steps, and 7 + 13 steps: killed at step 9, training resumes from the checkpoint of step 7."""
    assert in_processes(world, train, tmp_path / "whole", backbone, tables, LONG) == [0] * world
    codes = in_processes(world, train, tmp_path / "parts", backbone, tables, LONG, 9)
    assert codes[0] == -signal.SIGKILL
    assert all(codes)  # the other workers can't continue alone
    assert in_processes(world, train, tmp_path / "parts", backbone, tables, LONG) == [0] * world
    assert read_losses(tmp_path / "parts") == read_losses(tmp_path / "whole")[7:]
    assert torch.equal(torch.load(tmp_path / "whole/final.pt"), torch.load(tmp_path / "parts/final.pt"))
    assert sorted(path.name for path in (tmp_path / "parts").glob("*step-*")) == ["step-0000014", "step-0000020"]


def test_killed_and_resumed_on_an_object_store(backbone: str, tables: Path, tmp_path: Path, s3_root: UPath) -> None:
    """Two workers, which share the checkpoints only; the result is loaded by one."""
    assert in_processes(2, train, tmp_path / "whole", backbone, tables, LONG) == [0, 0]
    assert all(in_processes(2, train, tmp_path / "parts", backbone, tables, LONG, 9, s3_root))
    (s3_root / "step-0000010/__0_0.distcp").write_bytes(b"of a save that was interrupted")
    assert in_processes(2, train, tmp_path / "parts", backbone, tables, LONG, 0, s3_root) == [0, 0]
    assert read_losses(tmp_path / "parts") == read_losses(tmp_path / "whole")[7:]
    final = torch.load(tmp_path / "whole/final.pt")
    assert torch.equal(torch.load(tmp_path / "parts/final.pt"), final)
    assert {name.partition("/")[0] for name in list_files(s3_root)} == {"step-0000014", "step-0000020"}
    model = new_model(backbone)
    assert Checkpoints(s3_root, 2, Worker()).load_latest(model, make_optimizer(model, LONG)) == 20
    assert torch.equal(weights_of(model), final)


def test_frozen_layers_do_not_change_and_the_others_learn_equally(backbone: str, tables: Path, tmp_path: Path) -> None:
    config = replace(PLAIN, trained_layers=1)
    for name, variant in (("sharded", config), ("copies", replace(config, shard_size=1))):
        assert in_processes(2, train, tmp_path / name, backbone, tables, variant) == [0, 0]
    one = run(backbone, tables, tmp_path / "one", config)
    assert read_losses(tmp_path / "sharded") == pytest.approx(one, abs=1e-6)
    assert read_losses(tmp_path / "copies") == pytest.approx(one, abs=1e-6)
    before, after = new_model(backbone), new_model(backbone)
    at, final = 0, torch.load(tmp_path / "sharded/final.pt")
    for name, weight in after.state_dict().items():
        weight.copy_(final[at : at + weight.numel()].view_as(weight))
        at += weight.numel()
        frozen = name.startswith(("model.embed_tokens", "model.layers.0"))
        assert torch.equal(weight, before.state_dict()[name]) == frozen, name


def test_training_resumes_with_another_number_of_workers(backbone: str, tables: Path, tmp_path: Path) -> None:
    config = replace(PLAIN, async_checkpoints=True)
    whole = run(backbone, tables, tmp_path / "whole", config)
    in_processes(2, train, tmp_path / "parts", backbone, tables, config, 5)
    again = run(backbone, tables, tmp_path / "parts", config)
    assert len(again) in (3, 6)  # the checkpoint of step 3 may not have been complete
    assert again == pytest.approx(whole[-len(again) :], abs=1e-6)


def diverge(worker: Worker, folder: Path, backbone: str, tables: Path) -> None:
    model = new_model(backbone)
    if worker.rank == 1:
        poison(model)
    try:
        fit(model, replace(CONFIG, shard_size=1), load(tables), [], folder / "run", 0, worker, lambda metrics, _: None)
    except LossDivergedError as error:
        (folder / f"error-{worker.rank}.txt").write_text(str(error))


def test_all_workers_stop_and_name_the_sequences_of_the_diverged_worker(
    backbone: str, tables: Path, tmp_path: Path
) -> None:
    assert in_processes(2, diverge, tmp_path, backbone, tables) == [0, 0]
    [message] = {(tmp_path / f"error-{rank}.txt").read_text() for rank in range(2)}
    examples, worker = load(tables), Worker(0, 2)
    units, partition = Batches(examples, CONFIG, 0, worker, training_flops(new_model(backbone))).batch(0)
    named = set(message.partition("roll-outs: ")[2].split(", "))
    for own, listed in zip(partition.packs, (False, True), strict=True):
        assert {examples.id(units[place, 0]) in named for pack in own for place in pack} == {listed}
