"""Training is exact for any packing, number of workers and restarts; it learns; it stops on NaN."""

import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import CONFIG, CPU, build_store, load, loss_and_gradient, new_model, poison, sources, weights_of

from vgs_ray.config import Train
from vgs_ray.data.schemas import ROLL_OUTS
from vgs_ray.value.attention import activate_kernel, choose_attention, choose_layout
from vgs_ray.value.model import ValueModel
from vgs_ray.value.packing import Example, lay_out
from vgs_ray.value.training.batches import Batches
from vgs_ray.value.training.feed import to_device
from vgs_ray.value.training.loader import Order, group_bounds, spread
from vgs_ray.value.training.loop import fit
from vgs_ray.value.training.loss import summed_loss
from vgs_ray.value.training.metrics import summarize
from vgs_ray.value.training.metrics_log import (
    append_metrics,
    last_step,
    progress_text,
    read_metrics,
    repair_log,
    summarize_run,
)
from vgs_ray.value.training.number_of_steps import with_steps
from vgs_ray.value.training.optimizer import learning_rate
from vgs_ray.value.training.parallel import Worker
from vgs_ray.value.training.partition import partition_batch
from vgs_ray.value.training.step import LossDivergedError
from vgs_ray.value.training.throughput import TrainingFlops
from vgs_ray.value.training.validation import validate

LAYOUTS = ("packed", "bucketed")


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
    examples = [load(tables).example(index) for index in range(12)]
    results = []
    for attention in ("varlen", "sdpa", "eager"):
        for layout, budget in (
            ("packed", 10_000),
            ("packed", 80),
            ("bucketed", 10_000),
            ("bucketed", 60),
            ("bucketed", 1),
        ):
            model = ValueModel.from_backbone(backbone, seed=0, attn_implementation=attention).eval()
            results.append(loss_and_gradient(model, examples, layout, budget))
    for loss, grads in results[1:]:
        torch.testing.assert_close(loss, results[0][0], rtol=0, atol=1e-5)
        torch.testing.assert_close(grads, results[0][1], rtol=0, atol=1e-5)


def test_attention_is_one_that_the_machine_supports() -> None:
    assert choose_attention("auto", CPU, 0.1, 16_384) == "varlen"
    assert choose_attention("eager", CPU, 0.1, 16_384) == "eager"
    assert [choose_layout(name, CPU) for name in ("varlen", "eager")] == ["packed", "bucketed"]


@pytest.mark.parametrize(("choice", "dropout"), [("sdpa", 0.0), ("eager", 0.0), ("auto", 0.1)])
def test_a_mask_over_a_long_row_is_refused_on_a_gpu(choice: str, dropout: float) -> None:
    gpu = torch.device("cuda")
    assert choose_attention(choice, gpu, dropout, 4096) in ("sdpa", "eager")
    with pytest.raises(ValueError, match=r"16,384 x 16,384 tokens .* at most 4,096: pass --train.attention auto"):
        choose_attention(choice, gpu, dropout, 16_384)


@pytest.mark.parametrize("name", ["varlen_fa3", "varlen_fa4"])
def test_a_kernel_that_is_not_installed_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"train.attention is '{name}'.*--train.attention varlen"):
        activate_kernel(name)


def test_memory_follows_the_budget_and_not_the_longest_sequence(backbone: str) -> None:
    def saved_bytes(length: int, budget: int) -> int:
        """Bytes that the forward pass of one full micro-batch stores for the backward pass."""
        tokens = np.arange(length, dtype=np.int32) % 7 + 1
        micro = lay_out([Example(str(i), tokens, length // 2, i % 3) for i in range(budget // length)], "packed")
        model, kept = ValueModel.from_backbone(backbone, seed=0, attn_implementation="varlen"), {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = summed_loss(model, to_device(micro, CPU), "outcome")
        weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
        assert loss.requires_grad
        return sum(size for place, size in kept.items() if place not in weights)

    base = saved_bytes(16, 256)
    assert saved_bytes(128, 256) == pytest.approx(base, rel=0.05)
    assert saved_bytes(256, 256) == pytest.approx(base, rel=0.05)
    assert saved_bytes(16, 512) == pytest.approx(2 * base, rel=0.05)


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=12),
    batch=st.integers(1, 9),
    group=st.integers(1, 3),
    lives=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(0, 4)), min_size=1, max_size=6),
    layout=st.sampled_from(LAYOUTS),
)
def test_each_sample_of_an_epoch_occurs_once_for_any_workers_and_kills(sizes, batch, group, lives, layout) -> None:
    order = Order(group_bounds(np.repeat(np.arange(len(sizes)), sizes), group), seed=3)
    lengths = np.random.default_rng(batch).integers(1, 50, (order.size, 1))
    steps = -(-2 * order.size // batch)
    seen: dict[int, list[int]] = {}
    done = life = 0
    while done < steps:
        # One life of the run: it has some workers and is killed some steps after its last checkpoint; those are repeated.
        world, durable, lost = lives[life % len(lives)]
        for step in range(done, min(steps, done + durable + lost)):
            units = order.batch(step, batch)
            partition = partition_batch(lengths[units], lengths[units], world, 60, layout)
            assert len({len(own) for own in partition.packs}) == 1  # otherwise a worker would wait for ever
            places = [place for own in partition.packs for pack in own for place in pack]
            assert sorted(places) == list(range(batch))  # each sample on exactly one worker
            again = units[np.sort(places)].tolist()
            assert seen.setdefault(step, again) == again
        done, life = done + durable, life + 1
    samples = [unit for step in range(steps) for unit in seen[step]]
    for epoch in range(2):
        assert sorted(samples[epoch * order.size : (epoch + 1) * order.size]) == list(range(order.size))


@pytest.mark.parametrize(("loss", "steps"), [("outcome", 58), ("bradley_terry", 0)])
def test_epochs_are_passes_over_all_units(tables: Path, loss, steps: int) -> None:
    config = replace(CONFIG, loss=loss, steps=0, epochs=2, batch_size=7)
    examples = load(tables, config=config)
    found = with_steps(config, examples).steps
    batches = Batches(examples, config, 0, Worker(), TrainingFlops(1.0, 0.0))
    units = [tuple(unit) for step in range(found) for unit in batches.batch(step).units]
    assert found == (
        steps or -(-2 * len(examples.units()) // 3)
    )  # three pairs are six of the seven sequences of a batch
    assert Counter(units[: 2 * len(examples.units())]) == {tuple(unit): 2 for unit in examples.units()}
    assert with_steps(replace(config, steps=5), examples).steps == 5


def test_it_learns_a_toy_task(backbone: str, tables: Path, tmp_path: Path) -> None:
    config, model = (
        replace(CONFIG, steps=60, batch_size=16, micro_tokens=1024, checkpoint_every=60),
        new_model(backbone),
    )
    fit(model, config, load(tables), [], tmp_path, 0, Worker(), lambda metrics, _: None)
    validation = load(tables, "validation")
    metrics = summarize(validate(model, [validation.example(i) for i in range(len(validation))], config, Worker()))
    assert metrics["auc"] > 0.9
    assert metrics["brier"] < 0.15
    assert 0 < metrics["cross_entropy"] < 0.5


def test_diverged_loss_stops_with_the_ids(backbone: str, tables: Path, tmp_path: Path) -> None:
    model = new_model(backbone)
    poison(model)
    with pytest.raises(LossDivergedError, match=r"loss is nan .* at step 0; .*p\d+/a/\d/\d"):
        fit(model, CONFIG, load(tables), [], tmp_path, 0, Worker(), lambda metrics, _: None)
    details = json.loads((tmp_path / "diverged.json").read_text())
    assert (details["step"], details["loss"]) == (0, "nan")
    assert set(details["suspects"]) <= set(details["batch"])
    assert len(set(details["batch"])) == CONFIG.batch_size


def test_diverged_gradient_stops_before_the_weights_change(backbone: str, tables: Path, tmp_path: Path) -> None:
    model = new_model(backbone)
    before = weights_of(model)
    model.score[2].weight.register_hook(lambda grad: grad * float("inf"))
    with pytest.raises(LossDivergedError, match=r"gradient norm is (nan|inf) at step 0"):
        fit(model, CONFIG, load(tables), [], tmp_path, 0, Worker(), lambda metrics, _: None)
    assert torch.equal(weights_of(model), before)


def test_a_split_without_usable_examples_is_an_error(tables: Path) -> None:
    short = replace(CONFIG, max_length=4)
    with pytest.raises(ValueError, match=r"none of the 40 sequences of the validation split.*max_length=4"):
        load(tables, "validation", short).held_out(8)
    with pytest.raises(ValueError, match=r"a label of at most 4 tokens"):
        load(tables, config=short).units()
    with pytest.raises(ValueError, match=r"train\.loss=soft.*value for each token"):
        load(tables, config=replace(CONFIG, loss="soft")).units()


def test_metrics_log_allows_incomplete_lines_and_repeated_steps(tmp_path: Path) -> None:
    log = tmp_path / "metrics.jsonl"
    log.write_text('{"step": 1, "tokens": 5}\n{"step": 2, "tokens": 6}\n{"step": 3, "to')
    repair_log(log)
    final = {"cross_entropy": 0.5, "auc": 0.75, "brier": 0.2, "ece": 0.1, "auc_start": 0.6, "auc_end": 0.9}
    for row in ({"step": 2, "tokens": 7}, {"step": 3, "tokens": 8, **final}):
        append_metrics(log, row)
    assert summarize_run(read_metrics(log)) == {"steps": 3, "tokens": 20, "validation": final}


def test_progress_line_fits(tmp_path: Path) -> None:
    from tqdm import tqdm

    from pipelines.train import BAR_FORMAT

    log = tmp_path / "metrics.jsonl"
    assert (last_step(log), progress_text(log)) == (0, "starting workers")
    row = {"loss": 12.3456, "tokens_per_s": 1_234_567.8, "padding": 0.031, "mfu": 0.456, "seconds_left": 86_399.0}
    for step in range(1, 2000):
        append_metrics(log, {"step": step, **row} | ({"auc": 0.7514} if step % 50 == 0 else {}))
    assert last_step(log) == 1999
    note = progress_text(log)
    assert note == "23:59:59 left, loss 12.346, 1.23M tok/s, pad 3%, MFU 46%, AUC 0.751"
    line = tqdm.format_meter(1999, 12170, 86_399, bar_format=BAR_FORMAT, prefix=f"{'train':<9}", postfix=note)
    assert len(line) <= 100
    assert note in line


def test_held_out_examples_are_spread() -> None:
    assert spread(3, 10).tolist() == [0, 1, 2]
    assert spread(0, 10).tolist() == []
    assert spread(100, 4).tolist() == [0, 25, 50, 75]


def test_published_schedule() -> None:
    """Computed by hand for the published run: 608 warm-up steps (5% of 12,170 is 608.5, rounded to even)."""
    config = Train()
    by_step = {1: 1e-4 / 608, 304: 0.5e-4, 608: 1e-4, 6389: 0.55e-4, 12_170: 0.1e-4}
    for step, expected in by_step.items():
        assert learning_rate(config, step - 1) == pytest.approx(expected, rel=1e-9), step
    quarter = 608 + (12_170 - 608) / 4  # between two steps: cos(pi / 4)
    around = [learning_rate(config, math.floor(quarter) - 1), learning_rate(config, math.floor(quarter))]
    assert np.mean(around) == pytest.approx(1e-5 + 9e-5 * (1 + math.sqrt(0.5)) / 2, rel=1e-6)


@pytest.mark.parametrize(
    ("steps", "minimum", "by_step"),
    [
        (1000, 100, {50: 0.5, 100: 1.0, 550: 0.55, 1000: 0.1}),  # 5% would be 50
        (560, 0, {14: 0.5, 28: 1.0, 294: 0.55, 560: 0.1}),  # the sandbox
        (100, 100, {1: 0.01, 100: 1.0}),
        (60, 100, {60: 0.6}),  # ends during the warm-up
        (1, 0, {1: 1.0}),
    ],
)
def test_minimum_of_the_warm_up(steps: int, minimum: int, by_step: dict[int, float]) -> None:
    config = Train(steps=steps, lr=1.0, min_warmup_steps=minimum)
    assert {step: learning_rate(config, step - 1) for step in by_step} == pytest.approx(by_step)


def test_labels_without_tokens_are_an_error(tables: Path, tmp_path: Path) -> None:
    pq.write_table(ROLL_OUTS.empty_table(), tmp_path / "part-0.parquet")
    with pytest.raises(ValueError, match="has no tokens"):
        build_store(sources(tables)._replace(roll_outs=[tmp_path / "part-0.parquet"]), tmp_path / "store")
