"""Training on a GPU equals training on a CPU within the precision of bfloat16. Needs a GPU, torch and transformers."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.fsdp import FSDPModule
from toy import CONFIG, CPU, load, loss_and_gradient, new_model
from train import draw, make_trainer, packed

from vgs_ray.config import Train
from vgs_ray.value.attention import KERNELS, activate_kernel, choose_attention
from vgs_ray.value.model import ValueModel
from vgs_ray.value.packing import lay_out
from vgs_ray.value.training.activations import training_bytes
from vgs_ray.value.training.batches import Batches
from vgs_ray.value.training.feed import to_device
from vgs_ray.value.training.loop import fit
from vgs_ray.value.training.loss import summed_loss
from vgs_ray.value.training.optimizer import make_optimizer
from vgs_ray.value.training.parallel import Worker, prepare, whole_weights
from vgs_ray.value.training.step import Trainer
from vgs_ray.value.training.throughput import training_flops

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


def installed(attention: str) -> bool:
    try:
        activate_kernel(attention)
    except ValueError:
        return False
    return True


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return float((actual.cpu() - expected).norm() / expected.norm())


def close(actual: Sequence[float], expected: Sequence[float]) -> bool:
    return actual == pytest.approx(expected, rel=2e-2)


# With torch 2.11, flex_attention has no kernel for rows of 80 tokens and heads of this size.
@pytest.mark.parametrize(
    ("attention", "budget"),
    [
        ("varlen", 10_000),
        ("varlen", 80),
        *(
            pytest.param(name, 80, marks=pytest.mark.skipif(not installed(name), reason="no package"))
            for name in KERNELS
        ),
        ("sdpa", 10_000),
        ("sdpa", 80),
        ("flex_attention", 10_000),
    ],
)
def test_packed_on_a_gpu_equals_padded_on_a_cpu(backbone: str, tables: Path, attention: str, budget: int) -> None:
    examples = [load(tables).example(index) for index in range(12)]
    loss, gradient = loss_and_gradient(new_model(backbone).eval(), examples, "bucketed", 10_000)
    model = ValueModel.from_backbone(backbone, seed=0, attn_implementation=attention).eval().to(GPU)
    activate_kernel(attention)
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


@pytest.mark.parametrize(
    ("activations", "compiled"),
    [("keep", False), ("checkpoint", False), ("keep", True), ("budget", True), ("checkpoint", True), ("auto", True)],
)
def test_losses_equal_those_on_a_cpu(
    backbone: str, tables: Path, tmp_path: Path, activations: Any, compiled: bool
) -> None:
    expected: list[float] = []
    model = new_model(backbone, dropout=0.0)
    fit(model, NO_DROPOUT, load(tables), [], tmp_path / "cpu", 0, Worker(), lambda row, _: expected.append(row["loss"]))
    config = replace(NO_DROPOUT, compile=compiled, activations=activations)
    assert close(losses_of(new_model(backbone, dropout=0.0), config, tables, tmp_path / "gpu"), expected)


def test_a_single_worker_shards_in_bfloat16(backbone: str) -> None:
    model = new_model(backbone, dropout=0.0).to(GPU)
    prepare(model, NO_DROPOUT, Worker(device=GPU))
    assert isinstance(model, FSDPModule)
    assert {(weight.dtype, weight.device.type) for weight in model.parameters()} == {(torch.float32, "cuda")}
    dtypes = []
    model.model.layers[1].register_forward_pre_hook(lambda _, states: dtypes.append(states[0].dtype))
    model(torch.arange(1, 33, device=GPU)[None])
    assert dtypes == [torch.bfloat16]


def test_a_step_waits_for_the_gpu_once(backbone: str, tables: Path) -> None:
    """When the loss and the norm are read; torch refuses any other wait."""
    config, worker = NO_DROPOUT, Worker(device=GPU)
    model = new_model(backbone, dropout=0.0).to(GPU)
    batches = Batches(load(tables), config, 0, worker, training_flops(model))
    prepare(model, config, worker)
    trainer = Trainer(model.train(), make_optimizer(model, config), config, worker)
    trainer.step(0, batches.prepare(0))  # allocates, and chooses kernels
    prepared = batches.prepare(1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            trainer.step(1, prepared)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    waits = [str(warning.message) for warning in caught if "synchroniz" in str(warning.message)]
    assert len(waits) == 1, waits


def test_the_estimate_of_memory_is_not_exceeded() -> None:
    """A model that is large enough for its activations to be most of the memory, uncompiled."""
    sizes = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 8, "num_attention_heads": 8}
    config = replace(NO_DROPOUT, activations="keep", micro_tokens=16_384)
    trainer = make_trainer({"vocab_size": 512, "num_key_value_heads": 8, **sizes}, 4096, config, Worker(device=GPU))
    step = packed(draw(4, 4096, 1.0, 0.1, 512), config.micro_tokens, 1024, GPU)
    torch.cuda.reset_peak_memory_stats()
    trainer.step(0, step)
    estimate = training_bytes(trainer.model, config, 1, "keep")
    assert 0.7 * estimate < torch.cuda.max_memory_allocated() < 1.1 * estimate


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
    attention = choose_attention("auto", GPU, in_attention, CONFIG.micro_tokens)
    model = ValueModel.from_backbone(
        backbone, dropout=CONFIG.dropout, seed=0, attn_implementation=attention, attention_dropout=in_attention
    )
    losses = losses_of(model, replace(CONFIG, steps=60), tables, tmp_path / "run")
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])
    model.eval().save_pretrained(tmp_path / "saved", whole_weights(model))
    tokens = torch.from_numpy(load(tables).example(0).tokens).long()[None]
    saved = ValueModel.from_pretrained(tmp_path / "saved")
    torch.testing.assert_close(
        saved.success_probs(tokens), model.success_probs(tokens.to(GPU)).to(CPU), rtol=0, atol=0.02
    )


def test_dropout_of_packed_sequences_is_refused(backbone: str, tables: Path) -> None:
    model = new_model(backbone, dropout=0.1).train().to(GPU)
    with pytest.raises(ValueError, match="install flash-attn, or set train"):
        summed_loss(model, to_device(lay_out([load(tables).example(0)], "packed"), GPU), "outcome")
