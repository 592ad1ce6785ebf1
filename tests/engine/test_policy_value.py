"""A policy with a value head: its folder, its values, the choice of the slot, and folders that are wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from vgs_ray.models import model_path
from vgs_ray.models.content import content_of
from vgs_ray.value.policy_value import PolicyValueModel
from vgs_ray.value.slot import choose_slot

TOKENS = torch.arange(2, 62).reshape(2, 30)
HEAD = "value_head"


@pytest.fixture
def folder(policy_folder: Path, tmp_path: Path) -> Path:
    PolicyValueModel.from_policy(policy_folder, seed=2).save_pretrained(tmp_path / "it's one")
    return tmp_path / "it's one"


def test_the_folder_is_the_plain_policy_and_the_head(folder: Path, policy_folder: Path) -> None:
    plain, saved = (AutoModelForCausalLM.from_pretrained(path) for path in (policy_folder, folder))
    assert torch.equal(saved(TOKENS).logits, plain(TOKENS).logits)
    assert load_file(folder / "model.safetensors").keys() == load_file(policy_folder / "model.safetensors").keys()
    hidden = plain(TOKENS, output_hidden_states=True).hidden_states[-1]
    head = load_file(folder / HEAD / "model.safetensors")
    assert {name: (tuple(value.shape), value.dtype) for name, value in head.items()} == {
        "weight": ((1, 64), torch.float32),
        "bias": ((1,), torch.float32),
    }
    assert head["weight"].std() == pytest.approx(plain.config.initializer_range, rel=0.3)
    assert json.loads((folder / HEAD / "config.json").read_text()) == {
        "slot": 0, "dropout": 0.1, "layers": 0, "num_labels": 1,
    }  # fmt: skip
    expected = (hidden @ head["weight"][0] + head["bias"]).tanh()
    got = PolicyValueModel.from_pretrained(folder).values(TOKENS)
    assert (got.dtype, got.shape) == (torch.float32, (2, 30))
    assert torch.allclose(got, expected, atol=1e-6)


def test_values_ignore_padding_and_seeds_give_other_heads(policy_folder: Path) -> None:
    model = PolicyValueModel.from_policy(policy_folder).eval()
    mask = torch.ones_like(TOKENS)
    mask[1, 20:] = 0
    padded = TOKENS.where(mask.bool(), 0)
    assert torch.allclose(model.values(padded, mask)[1, :20], model.values(TOKENS[1:, :20])[0], atol=1e-6)
    again, other = (PolicyValueModel.from_policy(policy_folder, seed=seed).linear.weight for seed in (0, 1))
    assert torch.equal(model.linear.weight, again)
    assert not torch.equal(model.linear.weight, other)


def test_dropout_acts_in_training_only(policy_folder: Path) -> None:
    model = PolicyValueModel.from_policy(policy_folder, dropout=0.5)
    hidden = torch.ones(8, 64)
    assert model.train().q_values(hidden).std() > 1e-3
    assert model.eval().q_values(hidden).std() < 1e-6


def test_in_bfloat16_the_head_stays_in_float32(folder: Path, tmp_path: Path) -> None:
    model = PolicyValueModel.from_pretrained(folder, dtype=torch.bfloat16)
    model.save_pretrained(tmp_path / "half")
    assert load_file(tmp_path / "half" / "model.safetensors")["model.norm.weight"].dtype == torch.bfloat16
    again = PolicyValueModel.from_pretrained(tmp_path / "half")
    assert torch.equal(again.linear.weight, model.linear.weight)
    assert torch.allclose(again.values(TOKENS), model.values(TOKENS), atol=0.1)


def test_given_weights_are_saved_and_another_head_is_another_model(folder: Path, tmp_path: Path) -> None:
    model = PolicyValueModel.from_pretrained(folder)
    before = content_of(str(folder))
    state = {name: value + (name == "head.1.bias") for name, value in model.state_dict().items()}
    model.save_pretrained(tmp_path / "other", state)
    assert torch.equal(PolicyValueModel.from_pretrained(tmp_path / "other").linear.bias, model.linear.bias + 1)
    model.save_pretrained(folder, state)
    assert content_of(str(folder)) != before


def rewrite(folder: Path, **fields: Any) -> None:
    (folder / HEAD / "config.json").write_text(json.dumps(fields))


def resize(folder: Path, **tensors: torch.Tensor) -> None:
    save_file(tensors, folder / HEAD / "model.safetensors")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda at: shutil.rmtree(at / HEAD), r"has no value head \(value_head/config.json is missing\)"),
        (lambda at: (at / HEAD / "model.safetensors").unlink(), r"no value head \(value_head/model.safetensors is"),
        (lambda at: (at / HEAD / "config.json").write_text("{"), "config.json is not JSON"),
        (lambda at: rewrite(at, dropout=0.1), "has slot None; it must be a number"),
        (lambda at: rewrite(at, slot=120), "slot of the value head is 120; it must be 0 to 119"),
        (lambda at: rewrite(at, slot=5, layers=9), "has layers 9; it must be 0 to 2"),
        (lambda at: rewrite(at, slot=1), "slot of the value head is 1, an end token"),
        (lambda at: (at / HEAD / "model.safetensors").write_bytes(b"x" * 20), "model.safetensors is damaged"),
        (lambda at: resize(at, weight=torch.zeros(1, 32), bias=torch.zeros(1)), r"'weight': \(1, 32\).*\(1, 64\)"),
        (lambda at: resize(at, weight=torch.zeros(1, 64)), r"has tensors \{'bias': None\}"),
    ],
)
def test_a_wrong_folder_is_named(folder: Path, damage: Callable[[Path], None], reason: str) -> None:
    damage(folder)
    with pytest.raises(ValueError, match=reason) as error:
        PolicyValueModel.from_pretrained(folder)
    assert "\n" not in str(error.value)


def test_the_slot_is_a_token_that_texts_do_not_contain(tmp_path: Path) -> None:
    """An unused row of the embedding, else the padding token unless it ends answers, else a special token without a role."""

    def slot(vocab_size: int, **config: Any) -> int:
        return choose_slot(tmp_path, AutoConfig.for_model("qwen2", vocab_size=vocab_size, **config))

    assert slot(10, eos_token_id=1, pad_token_id=3) == 3  # without a tokenizer, all rows may be in use
    shutil.copytree(model_path("sandbox:ref"), tmp_path, dirs_exist_ok=True)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    rows = len(tokenizer)
    assert slot(rows + 20, eos_token_id=1) == rows
    assert slot(rows, eos_token_id=1) == tokenizer.pad_token_id == 0
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [0, 1]}')
    with pytest.raises(ValueError, match="no token that can carry the value"):
        slot(rows, eos_token_id=1)
    tokenizer.add_tokens(["<|spare a|>", "<|spare b|>"], special_tokens=True)
    tokenizer.chat_template += "<|spare b|>"
    tokenizer.save_pretrained(tmp_path)
    assert slot(rows + 2, eos_token_id=1) == rows
