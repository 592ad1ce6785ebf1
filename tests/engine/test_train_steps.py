"""The shapes of micro-batches, and what happens in a step beside the model: no waiting for the device, no compilation."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._dynamo.utils import counters
from torch.profiler import ProfilerActivity, profile
from toy import CONFIG, CPU, load, loss_and_gradient, new_model, weights_of

from vgs_ray.config import Train
from vgs_ray.value.packing import Example, lay_out, sequence_bounds
from vgs_ray.value.training.batches import Batches
from vgs_ray.value.training.feed import ahead, host_batch, row_multiple, to_device
from vgs_ray.value.training.loop import fit
from vgs_ray.value.training.loss import summed_loss
from vgs_ray.value.training.parallel import Worker
from vgs_ray.value.training.throughput import TrainingFlops

PLAIN = replace(CONFIG, dropout=0.0, attention_dropout=0.0)
WAITS = (
    "aten::item",
    "aten::_local_scalar_dense",
    "aten::nonzero",
    "aten::is_nonzero",
    "aten::masked_select",
    "aten::equal",
)


def test_a_tail_changes_neither_loss_nor_gradient(backbone: str, tables: Path) -> None:
    examples = [load(tables).example(index) for index in range(12)]
    results = [
        loss_and_gradient(new_model(backbone).eval(), examples, "packed", budget, multiple=multiple)
        for budget, multiple in ((10_000, 1), (10_000, 256), (80, 16), (80, 128))
    ]
    for loss, gradient in results[1:]:
        torch.testing.assert_close(loss, results[0][0], rtol=0, atol=1e-5)
        torch.testing.assert_close(gradient, results[0][1], rtol=0, atol=1e-5)


def test_the_tokens_of_a_tail_do_not_matter(backbone: str, tables: Path) -> None:
    examples, losses, model = [load(tables).example(index) for index in range(3)], [], new_model(backbone).eval()
    micro, size = lay_out(examples, "packed", multiple=128), sum(len(example.tokens) for example in examples)
    for token in (0, 7):
        micro.input_ids[0, size:] = token
        losses.append(float(summed_loss(model, to_device(micro, CPU), "outcome").detach()))
    assert losses[0] == losses[1]
    assert micro.input_ids.shape[1] == 128 > size


@given(sizes=st.lists(st.integers(1, 40), max_size=40), multiple=st.integers(1, 64))
def test_bounds_hold_every_sequence_and_then_empty_ones(sizes: list[int], multiple: int) -> None:
    micro = lay_out([Example("", np.ones(size, np.int32), 0, 0) for size in sizes], "packed", multiple=multiple)
    length, bounds = micro.input_ids.shape[1], sequence_bounds(micro.position_ids)
    tail = length - sum(sizes)
    expected = [*sizes, *([tail] if tail else [])]
    assert np.diff(bounds).tolist() == expected + [0] * (len(bounds) - 1 - len(expected))
    assert len(bounds) - 1 in (8, 16, 32, 64)
    assert length % multiple == 0
    assert tail < multiple or (length, sizes) == (multiple, [])


def test_rows_have_few_shapes(tables: Path) -> None:
    config = replace(PLAIN, micro_tokens=128, compile=True)
    assert row_multiple(config, CPU) == 8
    assert row_multiple(Train(micro_tokens=17_408), torch.device("cuda")) == 1024
    assert row_multiple(replace(config, compile=False), CPU) == 1
    batches = Batches(load(tables, config=config), config, 0, Worker(), TrainingFlops(1.0, 0.0))
    prepared = [batches.prepare(step) for step in range(50)]
    shapes = {micro.shape for step in prepared for micro in step.micro_batches}
    assert len(shapes) <= 16
    assert all(length % 8 == 0 and length <= 128 for _, length in shapes)
    for step in prepared:
        padded = sum(micro.shape[1] for micro in step.micro_batches)
        assert step.partition.padding == 1 - step.partition.tokens / padded


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile on CPU needs a C++ compiler, g++")
def test_compiled_equals_eager_and_is_compiled_once(backbone: str, tables: Path, tmp_path: Path) -> None:
    losses, weights, frames = [], [], []

    def report(row: dict[str, float], _: object) -> None:
        losses.append(row["loss"])
        frames.append(counters["frames"]["total"])
        if row["step"] == 3:
            weights.append(weights_of(model))

    constant = replace(PLAIN, warmup_share=0.0, min_lr_share=1.0, checkpoint_every=50)  # equal for any number of steps
    for compiled, steps in ((False, 3), (True, 50)):
        model = new_model(backbone, dropout=0.0)
        config = replace(constant, compile=compiled, steps=steps)
        fit(model, config, load(tables), [], tmp_path / str(compiled), 0, Worker(), report)
    assert losses[3:6] == pytest.approx(losses[:3], abs=1e-5)
    torch.testing.assert_close(weights[1], weights[0], rtol=0, atol=1e-4)
    assert frames[3] > frames[2]
    assert frames[-1] == frames[4], "steps of other lengths were compiled again"


@pytest.mark.parametrize("loss", ["outcome", "bradley_terry"])
def test_a_step_does_not_wait_for_the_device(backbone: str, tables: Path, tmp_path: Path, loss: str) -> None:
    profiler = profile(activities=[ProfilerActivity.CPU])

    def report(row: dict[str, float], _: object) -> None:
        if row["step"] == 1:
            profiler.start()
        if row["step"] == 3:
            profiler.stop()

    config = replace(CONFIG, loss=loss, checkpoint_every=100)
    fit(new_model(backbone), config, load(tables, config=config), [], tmp_path, 0, Worker(), report)
    events = profiler.events()
    assert any(event.name == "aten::index_select" for event in events)
    # On a CPU, AdamW reads its number of steps; on a GPU it does not.
    waits = Counter(
        event.name for event in events if event.name in WAITS and "aten::_fused_adamw_" not in callers(event)
    )
    assert not waits


def callers(event) -> set[str]:
    """Names of the operators that called this one."""
    names = set()
    while (event := event.cpu_parent) is not None:
        names.add(event.name)
    return names


def test_a_micro_batch_is_one_buffer(tables: Path) -> None:
    micro = lay_out([load(tables).example(index) for index in range(5)], "packed", multiple=64)
    host = host_batch(micro, CPU)
    batch, targets = host.to(CPU), np.flatnonzero(micro.weights)
    storage = host.buffer.untyped_storage().data_ptr()
    assert {part.untyped_storage().data_ptr() for part in batch if isinstance(part, torch.Tensor)} == {storage}
    assert np.array_equal(batch.input_ids, micro.input_ids)
    assert np.array_equal(batch.targets, targets)
    for name in ("labels", "values", "weights"):
        assert np.array_equal(getattr(batch, name), getattr(micro, name).reshape(-1)[targets])


def test_the_next_item_is_made_meanwhile_and_errors_come_through() -> None:
    second = Event()

    def items() -> Iterator[int]:
        yield 0
        second.set()
        yield 1
        raise OSError("the disk is gone")

    taken = ahead(items(), CPU)
    assert next(taken) == 0
    assert second.wait(10)
    assert next(taken) == 1
    with pytest.raises(OSError, match="the disk is gone"):
        next(taken)
