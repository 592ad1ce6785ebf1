"""Losses: against their formulas, packed against bucketed, and in training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from toy import CONFIG, CPU, build_store, load, loss_and_gradient, read_rows, sources

from vgs_ray.data.schemas import LABELS
from vgs_ray.value.model import ValueModel
from vgs_ray.value.packing import Example, lay_out
from vgs_ray.value.training.batches import Batches
from vgs_ray.value.training.feed import to_device
from vgs_ray.value.training.loader import Examples
from vgs_ray.value.training.loop import fit
from vgs_ray.value.training.loss import summed_loss
from vgs_ray.value.training.metrics import summarize
from vgs_ray.value.training.parallel import Worker
from vgs_ray.value.training.throughput import TrainingFlops
from vgs_ray.value.training.validation import validate

WITH_VALUES = LABELS if "values" in LABELS.names else LABELS.append(pa.field("values", pa.list_(pa.float32())))


@pytest.fixture(scope="module")
def valued(tables: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a value for each token: 0.9 with the token 7, 0.2 without it; every tenth label has no values."""
    root = tmp_path_factory.mktemp("valued")
    given = sources(tables)
    lengths = {row["roll_out_id"]: len(row["tokens"]) for row in read_rows(given.roll_outs)}
    rows = read_rows(given.labels)
    for index, row in enumerate(rows):
        value = 0.9 if row["label"] else 0.2
        row["values"] = None if index % 10 == 0 else [value] * lengths[row["roll_out_id"]]
    pq.write_table(pa.Table.from_pylist(rows, schema=WITH_VALUES), root / "part-0.parquet")
    build_store(given._replace(labels=[root / "part-0.parquet"]), root / "store")
    return root / "store"


def one_output(backbone: str) -> ValueModel:
    return ValueModel.from_backbone(backbone, num_labels=1, seed=0).eval()


def random_examples(count: int, without_value: float = 0.0) -> list[Example]:
    """`without_value` is the share of roll-out tokens without a value."""
    draw = np.random.default_rng(1)
    examples = []
    for index in range(count):
        size = int(draw.integers(4, 30))
        values = draw.random(size - 2, np.float32)
        values[draw.random(size - 2) < without_value] = np.nan
        examples.append(Example(str(index), draw.integers(1, 40, size).astype(np.int32), 2, 1 - index % 2, values))
    return examples


@pytest.mark.parametrize(
    ("loss", "without_value"), [("soft", 0.0), ("mse", 0.0), ("bradley_terry", 0.0), ("soft", 0.8), ("mse", 0.8)]
)
def test_loss_equals_its_formula_for_any_packing(backbone: str, loss: str, without_value: float) -> None:
    examples = random_examples(8, without_value)
    model = one_output(backbone)
    logits = [model(torch.from_numpy(each.tokens).long()[None])[0, :, 0] for each in examples]
    if loss == "bradley_terry":
        pairs = zip(logits[0::2], logits[1::2], strict=True)
        expected = torch.stack([-torch.log(torch.sigmoid(right[-1] - wrong[-1])) for right, wrong in pairs]).mean()
    else:
        means = []
        for each, logit in zip(examples, logits, strict=True):
            targets = torch.from_numpy(~np.isnan(each.values))
            prob, value = logit[2:].sigmoid()[targets], torch.from_numpy(each.values)[targets]
            entropy = -(value * prob.log() + (1 - value) * (1 - prob).log())
            losses = entropy if loss == "soft" else (prob - value) ** 2
            means.append(losses.mean() if len(losses) else torch.zeros(()))
        expected = torch.stack(means).mean()
    results = [
        loss_and_gradient(one_output(backbone), examples, layout, budget, loss)
        for layout, budget in (("packed", 10_000), ("packed", 70), ("bucketed", 10_000), ("bucketed", 70))
    ]
    for loss_value, grads in results:
        torch.testing.assert_close(loss_value, expected.detach(), rtol=0, atol=1e-5)
        torch.testing.assert_close(grads, results[0][1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("loss", ["outcome", "soft"])
@pytest.mark.parametrize("empty", [(), (0,), (1, 4, 5)])
def test_the_mean_is_the_published_one(backbone: str, loss: str, empty: tuple[int, ...]) -> None:
    """The mean over all sequences of each sequence's mean over roll-out tokens, which is 0 without roll-out tokens."""
    examples = [
        each._replace(target_start=len(each.tokens), values=each.values[:0]) if index in empty else each._replace(label=index % 3)
        for index, each in enumerate(random_examples(6))
    ]  # fmt: skip
    labels = 3 if loss == "outcome" else 1
    model, total = ValueModel.from_backbone(backbone, labels, seed=0).eval(), torch.zeros(())
    for each in examples:
        logits = model(torch.from_numpy(each.tokens).long()[None])[0, each.target_start :]
        if not len(logits):
            continue
        if loss == "outcome":
            total += -logits.log_softmax(-1)[:, each.label].mean()
        else:
            prob, value = logits[:, 0].sigmoid(), torch.from_numpy(each.values)
            total += -(value * prob.log() + (1 - value) * (1 - prob).log()).mean()
    (total / len(examples)).backward()
    expected = torch.cat([weight.grad.reshape(-1) for weight in model.parameters() if weight.grad is not None])
    for layout, budget in (("packed", 10_000), ("packed", 40), ("bucketed", 10_000), ("bucketed", 40)):
        fresh = ValueModel.from_backbone(backbone, labels, seed=0).eval()
        loss_value, gradient = loss_and_gradient(fresh, examples, layout, budget, loss)
        torch.testing.assert_close(loss_value, (total / len(examples)).detach(), rtol=0, atol=1e-5)
        torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("layout", ["packed", "bucketed"])
def test_a_micro_batch_without_target_adds_nothing(backbone: str, layout) -> None:
    for loss, labels in (("outcome", 3), ("soft", 1), ("bradley_terry", 1)):
        model = ValueModel.from_backbone(backbone, num_labels=labels, seed=0)
        total = summed_loss(model, to_device(lay_out([], layout, multiple=8), CPU), loss)
        total.backward()
        assert total.item() == 0
        assert all(weight.grad is not None and not weight.grad.any() for weight in model.parameters())


def test_sequences_without_values_are_not_used(valued: Path, tables: Path) -> None:
    examples = Examples(valued, "train", "mse", 64)
    units = examples.units()
    assert len(units) == 180
    assert len(Examples(valued, "train", "outcome", 64).units()) == 200
    for index in units[:20, 0]:
        example = examples.example(int(index))
        assert example.values is not None
        assert len(example.values) == len(example.tokens) - example.target_start
        assert set(example.values.tolist()) == {np.float32(0.9 if example.label else 0.2)}
    assert load(tables).example(0).values is None


def test_pairs_are_a_correct_and_an_incorrect_answer_to_one_problem(tables: Path) -> None:
    examples = load(tables, config=replace(CONFIG, loss="bradley_terry"))
    units = examples.units()
    assert examples.labels[units].tolist() == [[1, 0]] * len(units)
    problems = [[examples.id(index).partition("/")[0] for index in pair] for pair in units]
    assert all(left == right for left, right in problems)
    assert len(np.unique(units)) == units.size  # each answer is in one pair at most
    batches = Batches(examples, replace(CONFIG, loss="bradley_terry"), 0, Worker(), TrainingFlops(1.0, 0.0))
    assert batches.size == CONFIG.batch_size // 2
    for micro in batches.micro_batches(batches.batch(0)):
        assert micro.labels[micro.weights > 0].tolist() == [1, 0] * (len(micro.ids) // 2)


@pytest.mark.parametrize("loss", ["soft", "mse", "bradley_terry"])
def test_it_learns(backbone: str, valued: Path, tmp_path: Path, loss: str) -> None:
    config = replace(
        CONFIG,
        loss=loss,
        steps=60,
        batch_size=16,
        micro_tokens=1024,
        checkpoint_every=60,
        dropout=0.0,
        attention_dropout=0.0,
    )
    model, validation = one_output(backbone), Examples(valued, "validation", loss, 64)
    fit(model, config, Examples(valued, "train", loss, 64), [], tmp_path, 0, Worker(), lambda metrics, _: None)
    predictions = validate(model, [validation.example(index) for index in range(len(validation))], config, Worker())
    assert summarize(predictions)["auc_end"] > 0.9
    if loss != "bradley_terry":  # a ranking does not determine the scale of the values
        for hit, expected in ((True, 0.9), (False, 0.2)):
            assert predictions.value[predictions.correct == hit].mean() == pytest.approx(expected, abs=0.12)


def test_labels_of_the_test_split_are_in_no_store(tables: Path, tmp_path: Path) -> None:
    given = sources(tables)
    rows = read_rows(given.labels)
    for row in rows[::5]:
        row["split"] = "test"
    pq.write_table(pa.Table.from_pylist(rows, schema=LABELS), tmp_path / "part-0.parquet")
    build_store(given._replace(labels=[tmp_path / "part-0.parquet"]), tmp_path / "store")
    both = [Examples(tmp_path / "store", split, "outcome", 64) for split in ("train", "validation")]
    ids = {examples.id(index) for examples in both for index in range(len(examples))}
    assert ids == {row["roll_out_id"] for row in rows if row["split"] != "test"}


def test_a_wrong_number_of_values_is_an_error(tables: Path, tmp_path: Path) -> None:
    given = sources(tables)
    rows = [{**row, "values": [0.5]} for row in read_rows(given.labels)]
    pq.write_table(pa.Table.from_pylist(rows, schema=WITH_VALUES), tmp_path / "part-0.parquet")
    with pytest.raises(ValueError, match=r"has 1 values for \d+ roll-out tokens"):
        build_store(given._replace(labels=[tmp_path / "part-0.parquet"]), tmp_path / "store")
