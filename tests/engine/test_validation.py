"""Validation, trackers, and the saved value model."""

from __future__ import annotations

import json
import struct
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from toy import CONFIG, load, new_model

from vgs_ray.calibration import reliability
from vgs_ray.value.model import ValueModel
from vgs_ray.value.packing import Example
from vgs_ray.value.publish import check_hub_token, model_card, save_value_model
from vgs_ray.value.training.metrics import Predictions, by_position, summarize
from vgs_ray.value.training.parallel import Worker, whole_weights
from vgs_ray.value.training.trackers import check_trackers, open_trackers
from vgs_ray.value.training.validation import validate
from vgs_ray.value.training.validation_report import write_validation


def predictions_of(value: np.ndarray, hit: np.ndarray, position: np.ndarray | None = None) -> Predictions:
    ones = np.ones(len(value))
    position = np.arange(len(value)) if position is None else position
    return Predictions(ones * 0.5, value, hit, ones, position, ones == 1, ones == 1)


def test_calibration_error_is_the_gap_between_prediction_and_outcome() -> None:
    draw = np.random.default_rng(0)
    value = draw.random(20_000)
    hit = draw.random(20_000) < value
    assert summarize(predictions_of(value, hit))["ece"] < 0.015
    confident = np.where(value > 0.5, 0.99, 0.01)
    gap = abs(0.99 - hit[value > 0.5].mean()) * np.mean(value > 0.5) + abs(hit[value <= 0.5].mean() - 0.01) * np.mean(
        value <= 0.5
    )
    assert summarize(predictions_of(confident, hit))["ece"] == pytest.approx(gap, abs=1e-6)
    assert sum(each.share for each in reliability(value, hit)) == pytest.approx(1)
    assert [each.low for each in reliability(np.array([0.0, 1.0]), np.array([True, False]))] == [
        0,
        9 / 10,
    ]


def test_accuracy_and_ranking_by_position() -> None:
    value = np.array([0.9, 0.1, 0.9, 0.1])
    hit = np.array([False, True, True, False])
    early, late = by_position(predictions_of(value, hit, np.array([0, 1023, 1024, 2047])), 1024)
    assert (early.low, early.accuracy, early.auc, early.share) == (0, 0, 0, 0.5)
    assert (late.low, late.accuracy, late.auc) == (1024, 1, 1)


def with_value_at_every_third(example: Example) -> Example:
    """Of the roll-out tokens, from the first one; the others are no targets."""
    values = np.full(len(example.tokens) - example.target_start, np.nan, np.float32)
    values[::3] = 0.5
    return example._replace(values=values)


@pytest.mark.parametrize("layout", ["bucketed", "packed"])
@pytest.mark.parametrize("every", [1, 3])
def test_predictions_are_those_of_the_model(backbone: str, tables: Path, layout, every: int) -> None:
    model, examples = new_model(backbone).eval(), [load(tables).example(index) for index in range(5)]
    ends = [(len(each.tokens) - 1 - each.target_start) // every * every + each.target_start for each in examples]
    given = examples if every == 1 else [with_value_at_every_third(each) for each in examples]
    predictions = validate(model, given, CONFIG, Worker(layout=layout))
    assert predictions.weight.sum() == pytest.approx(5)
    assert predictions.first.sum() == predictions.last.sum() == 5
    probs = [model.success_probs(torch.from_numpy(each.tokens).long()[None])[0] for each in examples]
    expected = sorted(float(each[end]) for each, end in zip(probs, ends, strict=True))
    assert sorted(predictions.value[predictions.last].tolist()) == pytest.approx(expected, abs=1e-5)
    starts = sorted(float(prob[each.target_start]) for prob, each in zip(probs, examples, strict=True))
    assert sorted(predictions.value[predictions.first].tolist()) == pytest.approx(starts, abs=1e-5)
    assert sorted(predictions.position[predictions.last]) == sorted(ends)


def test_validation_files(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    value = draw.random(500)
    write_validation(predictions_of(value, draw.random(500) < value), 7, 100, tmp_path)
    report = json.loads((tmp_path / "validation.json").read_text())
    assert report["step"] == 7
    assert [each["low"] for each in report["by_position"]] == [0, 100, 200, 300, 400]
    picture = (tmp_path / "reliability.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 10_000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["reliability.png", "validation.json"]


def read_curves(file: Path) -> list[tuple[int, str, float]]:
    """Scalars of an event file; a record is the length, its checksum, the event, and its checksum."""
    from tensorboardX.proto.event_pb2 import Event

    raw, at, scalars = file.read_bytes(), 0, []
    while at < len(raw):
        size = struct.unpack_from("<Q", raw, at)[0]
        event = Event.FromString(raw[at + 12 : at + 12 + size])
        scalars += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
        at += size + 16
    return scalars


def test_tensorboard_has_the_curves(tmp_path: Path) -> None:
    track = open_trackers(("tensorboard",), tmp_path, "run", {})
    for step in (1, 2):
        track(step, {"loss": 1 / step})
    [file] = (tmp_path / "tensorboard").iterdir()
    deadline = time.monotonic() + 15
    while len(read_curves(file)) < 2 and time.monotonic() < deadline:  # a background thread writes
        time.sleep(0.1)
    assert read_curves(file) == [(1, "loss", 1.0), (2, "loss", 0.5)]


def test_missing_tracker_and_token_are_detected_before_training(monkeypatch) -> None:
    import importlib.util

    check_trackers(("tensorboard",))
    if importlib.util.find_spec("wandb") is None:
        with pytest.raises(ValueError, match=r"wandb.*pip install '.\[tracking\]'"):
            check_trackers(("tensorboard", "wandb"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    check_hub_token("")
    with pytest.raises(ValueError, match="HF_TOKEN is not set"):
        check_hub_token("someone/value")


def test_saved_value_model_is_complete_and_has_a_model_card(backbone: str, tables: Path, tmp_path: Path) -> None:
    model, config = new_model(backbone), asdict(replace(CONFIG, init=backbone))
    train = load(tables)
    data = {"train": train.counts(train.units())}
    assert sum(data["train"].values()) == 200
    (Path(backbone) / "tokenizer.json").write_text("{}")
    for metrics in ({"auc": 0.75, "ece": 0.125}, {}):
        save_value_model(
            model, whole_weights(model), backbone, model_card("toy", config, 3, metrics, data), tmp_path / "value"
        )
        card = (tmp_path / "value/README.md").read_text()
        assert ("| auc | 0.7500 |" in card) == bool(metrics)
        assert "| train | 200 |" in card
        assert '"batch_size": 8' in card
    tokens = torch.arange(8, 28)[None]
    model.eval()
    assert torch.equal(
        ValueModel.from_pretrained(tmp_path / "value").success_probs(tokens), model.success_probs(tokens)
    )
    assert (tmp_path / "value/tokenizer.json").exists()
    assert not (tmp_path / ".value").exists()
