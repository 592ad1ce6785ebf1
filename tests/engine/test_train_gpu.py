"""Training on a GPU equals training on a CPU within the precision of bfloat16. Needs a GPU, torch and transformers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toy import CONFIG, CPU, load, loss_and_gradient, new_model

from vgs_ray.config import Train
from vgs_ray.value.attention import choose_attention
from vgs_ray.value.model import ValueModel
from vgs_ray.value.packing import lay_out
from vgs_ray.value.training.feed import to_device
from vgs_ray.value.training.loop import fit
from vgs_ray.value.training.loss import summed_loss
from vgs_ray.value.training.parallel import Worker

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
GPU = torch.device("cuda")
NO_DROPOUT = replace(CONFIG, dropout=0.0, attention_dropout=0.0)


def losses_of(model: ValueModel, config: Train, tables: Path, folder: Path, stop_after: int = 0) -> list[float]:
    """Train on the GPU; stop after step `stop_after` like an interrupted process."""
    losses: list[float] = []

    def report(metrics: dict[str, float], _: object) -> None:
        losses.append(metrics["loss"])
        if metrics["step"] == stop_after:
            raise KeyboardInterrupt

    try:
        fit(model.to(GPU), config, load(tables), [], folder, 0, Worker(device=GPU), report)
    except KeyboardInterrupt:
        assert stop_after
    return losses


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return float((actual.cpu() - expected).norm() / expected.norm())


def close(actual: Sequence[float], expected: Sequence[float]) -> bool:
    return actual == pytest.approx(expected, rel=2e-2)


# With torch 2.11, flex_attention has no kernel for rows of 80 tokens and heads of this size.
@pytest.mark.parametrize(
    ("attention", "budget"),
    [("varlen", 10_000), ("varlen", 80), ("sdpa", 10_000), ("sdpa", 80), ("flex_attention", 10_000)],
)
def test_packed_on_a_gpu_equals_padded_on_a_cpu(backbone: str, tables: Path, attention: str, budget: int) -> None:
    examples = [load(tables).example(index) for index in range(12)]
    loss, gradient = loss_and_gradient(new_model(backbone).eval(), examples, "bucketed", 10_000)
    model = ValueModel.from_backbone(backbone, seed=0, attn_implementation=attention).eval().to(GPU)
    gpu_loss, gpu_gradient = loss_and_gradient(model, examples, "packed", budget, device=GPU)
    assert close([float(gpu_loss)], [float(loss)])
    assert relative_error(gpu_gradient, gradient) < 0.05


def test_packed_sequences_do_not_attend_to_each_other(backbone: str, tables: Path) -> None:
    examples, model = [load(tables).example(index) for index in range(6)], new_model(backbone).eval().to(GPU)
    together = summed_loss(model, to_device(lay_out(examples, "packed"), GPU), "outcome").detach()
    alone = sum(
        float(summed_loss(model, to_device(lay_out([each], "packed"), GPU), "outcome").detach()) for each in examples
    )
    assert close([float(together)], [alone])


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_losses_equal_those_on_a_cpu(
    backbone: str, tables: Path, tmp_path: Path, compiled: bool, checkpointing: bool
) -> None:
    expected: list[float] = []
    model = new_model(backbone, dropout=0.0)
    fit(model, NO_DROPOUT, load(tables), [], tmp_path / "cpu", 0, Worker(), lambda row, _: expected.append(row["loss"]))
    config = replace(NO_DROPOUT, compile=compiled, activation_checkpointing=checkpointing)
    assert close(losses_of(new_model(backbone, dropout=0.0), config, tables, tmp_path / "gpu"), expected)


@pytest.mark.parametrize("background", [False, True])
def test_resumed_equals_uninterrupted(backbone: str, tables: Path, tmp_path: Path, background: bool) -> None:
    config = replace(NO_DROPOUT, async_checkpoints=background)
    whole = losses_of(new_model(backbone, dropout=0.0), config, tables, tmp_path / "whole")
    first = losses_of(new_model(backbone, dropout=0.0), config, tables, tmp_path / "cut", stop_after=5)
    rest = losses_of(new_model(backbone, dropout=0.0), config, tables, tmp_path / "cut")
    assert (len(first), len(rest)) == (5, 3)
    assert close(first[:3] + rest, whole)


@pytest.mark.parametrize("in_attention", [0.0, CONFIG.attention_dropout])
def test_it_learns_with_dropout_and_the_saved_model_loads_on_a_cpu(
    backbone: str, tables: Path, tmp_path: Path, in_attention: float
) -> None:
    attention = choose_attention("auto", GPU, in_attention)
    model = ValueModel.from_backbone(
        backbone, dropout=CONFIG.dropout, seed=0, attn_implementation=attention, attention_dropout=in_attention
    )
    losses = losses_of(model, replace(CONFIG, steps=60), tables, tmp_path / "run")
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])
    model.eval().save_pretrained(tmp_path / "saved")
    tokens = torch.from_numpy(load(tables).example(0).tokens).long()[None]
    saved = ValueModel.from_pretrained(tmp_path / "saved")
    torch.testing.assert_close(
        saved.success_probs(tokens), model.success_probs(tokens.to(GPU)).to(CPU), rtol=0, atol=0.02
    )


def test_dropout_of_packed_sequences_is_refused(backbone: str, tables: Path) -> None:
    model = new_model(backbone, dropout=0.1).train().to(GPU)
    with pytest.raises(ValueError, match="install flash-attn, or set train"):
        summed_loss(model, to_device(lay_out([load(tables).example(0)], "packed"), GPU), "outcome")
