"""Training: exact whatever the packing, the number of workers and the restarts; it learns; it stops on NaN."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Qwen2Config, Qwen2ForCausalLM

from vgs_ray.config import Train
from vgs_ray.schemas import LABELS, ROLL_INS, ROLL_OUTS
from vgs_ray.value.loader import Examples, Order
from vgs_ray.value.loss import outcome_loss
from vgs_ray.value.metrics import validate
from vgs_ray.value.model import ValueModel
from vgs_ray.value.packing import micro_batches
from vgs_ray.value.train import LossDivergedError, Worker, fit, learning_rate

CPU = torch.device("cpu")
CONFIG = Train(
    max_length=64, batch_size=8, micro_tokens=96, steps=6, lr=3e-3, workers=1, checkpoint_every=3, validate_every=100,
    dropout=0.1,
)  # fmt: skip


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=40, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=128, tie_word_embeddings=True, eos_token_id=0,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("backbone")
    Qwen2ForCausalLM(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy task: an answer is correct when its completion has the token 7."""
    draw, root = np.random.default_rng(0), tmp_path_factory.mktemp("tables")
    ins, outs, labels = [], [], []
    for index in range(120):
        name = f"p{index // 4}/a/{index % 4}"
        tokens = draw.integers(8, 40, 10).tolist()
        ins.append({"roll_in_id": name, "problem_id": f"p{index // 4}", "policy": "a", "seed": 0, "prompt": [1, 2, 3],
                    "tokens": tokens, "finish_reason": "stop", "sampling": "{}"})  # fmt: skip
        for cut in range(2):
            good = bool(draw.integers(2))
            completion = ([7] if good else [5]) + draw.integers(8, 40, int(draw.integers(1, 20))).tolist()
            shared = {
                "roll_out_id": f"{name}/{cut}",
                "roll_in_id": name,
                "problem_id": f"p{index // 4}",
                "cut": cut + 2,
            }
            outs.append({**shared, "seed": 0, "tokens": completion, "finish_reason": "stop"})
            labels.append({**shared, "split": "train" if index < 100 else "validation", "label": int(good)})
    for stage, schema, rows in (("roll_in", ROLL_INS, ins), ("roll_out", ROLL_OUTS, outs), ("label", LABELS, labels)):
        (root / stage).mkdir()
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), root / stage / "part-0.parquet")
    return root


def load(tables: Path, split: str = "train") -> Examples:
    return Examples(tables / "label", tables / "roll_in", tables / "roll_out", split)


def new_model(backbone: str, dropout: float = CONFIG.dropout) -> ValueModel:
    return ValueModel.from_backbone(backbone, dropout=dropout, seed=0)


def weights_of(model: ValueModel) -> torch.Tensor:
    return torch.cat([weight.detach().reshape(-1) for weight in model.parameters()])


def poison(model: ValueModel) -> None:
    with torch.no_grad():
        model.score[0].weight.fill_(float("nan"))


def run(backbone: str, tables: Path, folder: Path, config: Train = CONFIG, worker: Worker | None = None) -> list[float]:
    model, losses = new_model(backbone, config.dropout), []
    worker = worker or Worker()
    fit(model, config, load(tables), [], folder, 0, worker, lambda metrics: losses.append(metrics["loss"]))
    if worker.rank == 0:
        torch.save(weights_of(model), folder / "final.pt")
    return losses


def test_loader_joins_prompt_prefix_and_completion(tables: Path) -> None:
    examples = load(tables)
    assert len(examples) == 200
    example = examples.example(0)
    assert example.id == "p0/a/0/0"
    assert example.target_start == 3 + 2
    assert example.tokens[:3].tolist() == [1, 2, 3]
    assert example.tokens[5] in (5, 7)
    assert example.label == int(example.tokens[5] == 7)


def test_packed_equals_padded(backbone: str, tables: Path) -> None:
    examples, results = [load(tables).example(index) for index in range(12)], []
    for layout, budget in (("packed", 10_000), ("bucketed", 10_000), ("bucketed", 60)):
        model = new_model(backbone).eval()
        total = torch.zeros(())
        for batch in micro_batches(examples, budget, 64, layout):
            loss = outcome_loss(model, batch, CPU)
            loss.backward()
            total += loss.detach()
        results.append((total, torch.cat([w.grad.reshape(-1) for w in model.parameters() if w.grad is not None])))
    for loss, grads in results[1:]:
        torch.testing.assert_close(loss, results[0][0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(grads, results[0][1], rtol=1e-4, atol=1e-5)


def test_loss_is_that_of_the_model(backbone: str, tables: Path) -> None:
    model, examples = new_model(backbone).eval(), [load(tables).example(index) for index in range(6)]
    [batch] = micro_batches(examples, 10_000, 64, "bucketed")
    mask = torch.from_numpy(batch.weights > 0)
    labels = torch.from_numpy(batch.labels[:, 0])
    whole = model.loss(torch.from_numpy(batch.input_ids), labels, mask, torch.from_numpy(batch.attention_mask))
    torch.testing.assert_close(outcome_loss(model, batch, CPU) / batch.sequences, whole)


@pytest.mark.parametrize("killed_at", [4, 6])  # one step after a checkpoint; between the last report and its checkpoint
def test_resumed_equals_uninterrupted(backbone: str, tables: Path, tmp_path: Path, killed_at: int) -> None:
    whole = run(backbone, tables, tmp_path / "whole")

    class Killed(Exception):
        pass

    def die(metrics: dict[str, float]) -> None:
        if metrics["step"] == killed_at:
            raise Killed

    with pytest.raises(Killed):
        fit(new_model(backbone), CONFIG, load(tables), [], tmp_path / "parts", 0, Worker(), die)
    again = run(backbone, tables, tmp_path / "parts")
    assert again == whole[3:]
    assert torch.equal(torch.load(tmp_path / "whole/final.pt"), torch.load(tmp_path / "parts/final.pt"))
    assert sorted(path.name for path in (tmp_path / "parts").glob("step-*")) == ["step-0000003", "step-0000006"]


def _rank(rank: int, backbone: str, tables: Path, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    losses = run(backbone, tables, folder, replace(CONFIG, dropout=0.0), Worker(rank, 2))
    if rank == 0:
        (folder / "losses.txt").write_text("\n".join(map(str, losses)))
    model = new_model(backbone)
    if rank == 1:
        poison(model)
    try:
        fit(model, CONFIG, load(tables), [], folder / "diverged", 0, Worker(rank, 2), lambda metrics: None)
    except LossDivergedError as error:
        (folder / f"error-{rank}.txt").write_text(str(error))
    dist.destroy_process_group()


def test_two_workers_equal_one(backbone: str, tables: Path, tmp_path: Path) -> None:
    (tmp_path / "two").mkdir()
    mp.spawn(_rank, (backbone, tables, tmp_path / "two"), nprocs=2)
    one = run(backbone, tables, tmp_path / "one", replace(CONFIG, dropout=0.0))
    two = [float(line) for line in (tmp_path / "two/losses.txt").read_text().splitlines()]
    assert two == pytest.approx(one, abs=1e-6)
    messages = {(tmp_path / f"two/error-{rank}.txt").read_text() for rank in range(2)}
    assert len(messages) == 1
    examples = load(tables)
    for rank, listed in ((0, False), (1, True)):  # both workers blame the sequences of the one whose loss is NaN
        share = Order(examples.groups(CONFIG.group_size), 0).batch(0, CONFIG.batch_size, rank, 2)
        named = set(messages.copy().pop().partition("train.lr: ")[2].split(", "))
        assert {examples.ids[index] in named for index in share} == {listed}


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(1, 5), min_size=1, max_size=12), batch=st.integers(1, 9), data=st.data())
def test_each_sample_of_an_epoch_occurs_once_whatever_the_workers(sizes: list[int], batch: int, data) -> None:
    starts = np.cumsum([0, *sizes])
    order = Order([list(range(a, b)) for a, b in itertools.pairwise(starts)], seed=3)
    steps = -(-2 * order.size // batch)
    seen = []
    for step in range(steps):  # the number of workers may change at every step, as after a restart
        world = data.draw(st.integers(1, 4))
        shares = [order.batch(step, batch, rank, world) for rank in range(world)]
        seen += [shares[place % world][place // world] for place in range(batch)]
    for epoch in range(2):
        assert sorted(seen[epoch * order.size : (epoch + 1) * order.size]) == list(range(order.size))


def test_it_learns_a_toy_task(backbone: str, tables: Path, tmp_path: Path) -> None:
    config, model = replace(CONFIG, steps=60, batch_size=16, micro_tokens=1024), new_model(backbone)
    fit(model, config, load(tables), [], tmp_path, 0, Worker(), lambda metrics: None)
    validation = load(tables, "validation")
    found = validate(model, [validation.example(i) for i in range(len(validation))], 1024, 64, "bucketed")
    assert found["auc"] > 0.9
    assert found["brier"] < 0.15
    assert 0 < found["cross_entropy"] < 0.5


def test_diverged_loss_stops_with_the_ids(backbone: str, tables: Path, tmp_path: Path) -> None:
    model = new_model(backbone)
    poison(model)
    with pytest.raises(LossDivergedError, match=r"loss is nan at step 0.*p\d+/a/\d/\d"):
        fit(model, CONFIG, load(tables), [], tmp_path, 0, Worker(), lambda metrics: None)


def test_diverged_gradient_stops_before_it_spoils_the_weights(backbone: str, tables: Path, tmp_path: Path) -> None:
    model = new_model(backbone)
    before = weights_of(model)
    model.score[2].weight.register_hook(lambda grad: grad * float("inf"))
    with pytest.raises(LossDivergedError, match=r"at step 0 \(norm of its gradient: (nan|inf)\)"):
        fit(model, CONFIG, load(tables), [], tmp_path, 0, Worker(), lambda metrics: None)
    assert torch.equal(weights_of(model), before)


def test_overlong_sequences_are_counted(backbone: str, tables: Path, tmp_path: Path) -> None:
    rows: list[dict[str, float]] = []
    config, train = replace(CONFIG, steps=1, max_length=18), load(tables)
    fit(new_model(backbone), config, train, [], tmp_path, 0, Worker(), rows.append)
    sizes = [len(train.example(i).tokens) for i in Order(train.groups(2), 0).batch(0, config.batch_size)]
    assert 0 < rows[0]["overlong"] == sum(size > 18 for size in sizes)
    assert rows[0]["tokens"] == sum(size for size in sizes if size <= 18)


def test_nothing_to_validate_on_is_found_before_the_first_step(backbone: str, tables: Path, tmp_path: Path) -> None:
    config, train = replace(CONFIG, max_length=4), load(tables)
    with pytest.raises(ValueError, match="max_length=4"):
        fit(new_model(backbone), config, train, [train.example(0)], tmp_path, 0, Worker(), lambda metrics: None)


def test_nothing_to_train_on_is_named() -> None:
    with pytest.raises(ValueError, match="train split has no labels"):
        Order([], seed=0)


def test_metrics_survive_a_torn_line_and_redone_steps(tmp_path: Path) -> None:
    from pipelines.train import mend, read_metrics, summary

    log = tmp_path / "metrics.jsonl"
    log.write_text('{"step": 1, "tokens": 5, "overlong": 1}\n{"step": 2, "tokens": 6, "overlong": 0}\n{"step": 3, "to')
    mend(log)
    final = {"cross_entropy": 0.5, "auc": 0.75, "brier": 0.2, "auc_start": 0.6, "auc_end": 0.9}
    with log.open("a") as file:
        for row in ({"step": 2, "tokens": 7, "overlong": 0}, {"step": 3, "tokens": 8, "overlong": 2, **final}):
            file.write(json.dumps(row) + "\n")
    assert summary(read_metrics(log)) == {"steps": 3, "tokens": 20, "overlong": 3, "validation": final}


def test_held_out_examples_are_spread() -> None:
    from pipelines.train import spread

    assert spread(3, 10) == [0, 1, 2]
    assert spread(0, 10) == []
    assert spread(100, 4) == [0, 25, 50, 75]


def test_schedule_warms_up_and_falls_to_its_share() -> None:
    config = Train(steps=100, lr=1.0, warmup_share=0.1, min_lr_share=0.1)
    assert learning_rate(config, 0) == pytest.approx(0.1)
    assert learning_rate(config, 9) == pytest.approx(1.0)
    assert learning_rate(config, 99) == pytest.approx(0.1, abs=0.01)


def test_missing_tokens_are_named(tables: Path, tmp_path: Path) -> None:
    (tmp_path / "roll_out").mkdir()
    pq.write_table(ROLL_OUTS.empty_table(), tmp_path / "roll_out" / "part-0.parquet")
    with pytest.raises(ValueError, match="has no tokens"):
        Examples(tables / "label", tables / "roll_in", tmp_path / "roll_out", "train")
