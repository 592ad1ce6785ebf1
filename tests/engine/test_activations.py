"""What the forward pass keeps, in bfloat16: the estimate against what autograd keeps, and gradients against those in float32."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from toy import CONFIG, in_processes
from transformers import AutoModel, LlamaConfig, Qwen2Config

from vgs_ray.config import Train
from vgs_ray.value.model import ValueModel
from vgs_ray.value.packing import Example, lay_out
from vgs_ray.value.training.activations import first_that_fits, training_bytes
from vgs_ray.value.training.feed import to_device
from vgs_ray.value.training.loss import summed_loss
from vgs_ray.value.training.memory import token_bytes
from vgs_ray.value.training.parallel import Worker, prepare

TOKENS = 512
SIZE = {
    "vocab_size": 64, "hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": TOKENS,
}  # fmt: skip
PLAIN = replace(CONFIG, dropout=0.0, attention_dropout=0.0, micro_tokens=TOKENS)


def build(kind: type = Qwen2Config, **sizes: int) -> ValueModel:
    torch.manual_seed(0)
    return ValueModel(AutoModel.from_config(kind(**SIZE | sizes), attn_implementation="varlen"))


def loss_of(model: ValueModel) -> torch.Tensor:
    micro = lay_out([Example("", np.arange(TOKENS, dtype=np.int32) % 7 + 1, 0, 1)], "packed")
    return summed_loss(model, to_device(micro, torch.device("cpu")), "outcome")


def kept_by(model: ValueModel) -> int:
    """Bytes of the arrays over all tokens that the forward pass keeps; the backward pass follows."""
    kept: dict[int, int] = {}
    alive: list[torch.Tensor] = []  # so that no address is used twice

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if TOKENS in tensor.shape:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss_of(model).backward()
    return sum(kept.values())


def compare(worker: Worker, folder: Path, configs: list[Train], family: type = Qwen2Config) -> None:
    plain = build(family)
    loss_of(plain).backward()
    for config in configs:
        model = build(family)
        prepare(model, config, replace(worker, bf16=True))
        kept, estimate = (
            kept_by(model.train()),
            TOKENS * token_bytes(model.config.to_dict(), config, config.activations),
        )
        assert estimate == pytest.approx(kept, rel=0.15), (config, kept, estimate)
        both = [each for each in zip(model.parameters(), plain.parameters(), strict=True) if each[0].requires_grad]
        actual = torch.cat([weight.grad.full_tensor().reshape(-1) for weight, _ in both])
        expected = torch.cat([weight.grad.reshape(-1) for _, weight in both])
        assert (actual - expected).norm() < 0.05 * expected.norm(), config


def test_the_estimate_is_what_autograd_keeps_and_gradients_are_the_same(tmp_path: Path) -> None:
    kinds = [replace(PLAIN, activations=kind) for kind in ("keep", "checkpoint")]
    frozen = replace(PLAIN, activations="keep", trained_layers=2)
    assert in_processes(1, compare, tmp_path, [*kinds, frozen]) == [0]
    assert in_processes(1, compare, tmp_path, kinds[:1], LlamaConfig) == [0]


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile on CPU needs a C++ compiler, g++")
@pytest.mark.parametrize("kind", ["keep", "budget", "checkpoint"])
def test_the_estimate_is_what_compiled_layers_keep_and_gradients_are_the_same(tmp_path: Path, kind: str) -> None:
    assert in_processes(1, compare, tmp_path, [replace(PLAIN, activations=kind, compile=True)]) == [0]


def test_a_gpu_takes_the_first_that_fits() -> None:
    with torch.device("meta"):  # the published model
        model = build(
            hidden_size=1536, intermediate_size=8960, num_hidden_layers=28, num_attention_heads=12, vocab_size=151_936
        )
    published = replace(PLAIN, micro_tokens=17_408, compile=True)
    needed = {kind: training_bytes(model, published, 8, kind) / 1e9 for kind in ("keep", "budget", "checkpoint")}
    assert needed == pytest.approx({"keep": 53, "budget": 34, "checkpoint": 15}, abs=1)
    for compiled, memory, expected in (
        (True, 80e9, "keep"), (True, 40e9, "budget"), (True, 20e9, "checkpoint"), (True, 1e9, "checkpoint"),
        (False, 80e9, "keep"), (False, 40e9, "checkpoint"),
    ):  # fmt: skip
        assert first_that_fits(model, replace(published, compile=compiled), 8, memory) == expected
