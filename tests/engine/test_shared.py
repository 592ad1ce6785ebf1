"""A value model that shares its lower layers with the policy: its folder, as transformers and other readers load it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from headed import add_layers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from pipelines.evaluate import inputs_of
from pipelines.recipes import sandbox
from vgs_ray.config import Train
from vgs_ray.config.checks import check_recipe
from vgs_ray.errors import UserError
from vgs_ray.models import OWN_HEAD
from vgs_ray.models.checks import check_models, evaluated_policy, value_model
from vgs_ray.sandbox import policy_path
from vgs_ray.search.flops import model_size, model_sizes
from vgs_ray.value.critic import load_source
from vgs_ray.value.model import ValueModel
from vgs_ray.value.policy_value import PolicyValueModel
from vgs_ray.value.score_sequences import token_probs
from vgs_ray.value.shared import new_head, save_shared

TOKENS = torch.arange(2, 62).reshape(2, 30)
HEAD = "value_head"


@pytest.mark.parametrize(("layers", "num_labels"), [(1, 3), (1, 1), (2, 3)])
def test_the_folder_is_the_plain_policy_and_the_whole_value_model(
    policy_folder: Path, tmp_path: Path, layers: int, num_labels: int
) -> None:
    folder = tmp_path / "shared"
    model = add_layers(policy_folder, folder, layers, 119, num_labels)
    for file in policy_folder.glob("*.safetensors"):
        assert (folder / file.name).read_bytes() == file.read_bytes()
    plain, policy = (AutoModelForCausalLM.from_pretrained(path) for path in (policy_folder, folder))
    assert torch.equal(policy(TOKENS).logits, plain(TOKENS).logits)
    again = ValueModel.from_pretrained(folder)
    assert (again.num_labels, again.dropout.p) == (num_labels, 0.05)
    assert {name: value.tolist() for name, value in again.state_dict().items()} == {
        name: value.tolist() for name, value in model.state_dict().items()
    }
    head = load_file(folder / HEAD / "model.safetensors")
    assert not [name for name in head if "embed" in name or f"layers.{layers}." in name]
    probs = model.success_probs(TOKENS)
    assert probs.std() > 0.01
    for found, expected in zip(
        token_probs(folder, list(TOKENS.numpy().astype(np.int32)), torch.device("cpu")), probs, strict=True
    ):
        assert found == pytest.approx(expected.numpy(), abs=1e-5)
    source = load_source(folder, torch.device("cpu"))
    assert torch.allclose(source.probs(source.backbone(TOKENS).last_hidden_state), probs, atol=1e-5)
    with pytest.raises(ValueError, match=f"has a value head with {layers} layers of its own"):
        PolicyValueModel.from_pretrained(folder)


def test_a_damaged_head_is_named(policy_folder: Path, tmp_path: Path) -> None:
    add_layers(policy_folder, tmp_path, 1, 119)
    file = tmp_path / HEAD / "model.safetensors"
    weights = load_file(file)
    del weights["model.norm.weight"]
    save_file(weights, file)
    with pytest.raises(ValueError, match=r"has tensors \{'model.norm.weight': None\}; .*: \(64,\)"):
        ValueModel.from_pretrained(tmp_path)


def test_flops_of_the_head_are_those_of_its_layers(policy_folder: Path, tmp_path: Path) -> None:
    model = add_layers(policy_folder, tmp_path, 1, 119)
    policy, value, head = model_sizes(str(tmp_path), "policy")
    trained = (*model.model.layers[-1:], model.model.norm, model.score)
    assert policy == model_size(policy_folder)
    assert head.params == sum(weight.numel() for module in trained for weight in module.parameters())
    assert (head.layers, head.hidden) == (1, policy.hidden)
    assert (value.params, value.layers) == (policy.params + head.params, policy.layers + 1)


def test_more_layers_than_the_policy_has_are_refused(policy_folder: Path) -> None:
    config = Train(init=str(policy_folder), trained_layers=3, share_policy=True)
    with pytest.raises(ValueError, match=r"train.trained_layers is 3, and .* has 2 layers"):
        new_head(config)


def test_the_head_has_a_slot_and_the_settings_of_training(tmp_path: Path) -> None:
    head = new_head(Train(init="sandbox:ref", trained_layers=2, share_policy=True, loss="soft", dropout=0.1))
    assert (head.layers, head.num_labels, head.dropout) == (2, 1, 0.1)
    save_shared(
        ValueModel.from_backbone(policy_path("ref"), 1).state_dict(), head, "sandbox:ref", "card", tmp_path / "one"
    )
    assert json.loads((tmp_path / "one" / HEAD / "config.json").read_text())["slot"] == head.slot
    assert (tmp_path / "one" / "tokenizer.json").is_file()


def test_a_recipe_searches_with_the_policy_that_stage_train_writes(policy_folder: Path, tmp_path: Path) -> None:
    train = replace(sandbox().train, share_policy=True, trained_layers=2)
    recipe = replace(sandbox(), root=str(tmp_path), train=train)
    check_recipe(recipe)
    written = tmp_path / "sandbox/train/value_model"
    assert (evaluated_policy(recipe), value_model(recipe)) == (str(written), OWN_HEAD)
    assert [recipe.uses_own_head(stage) for stage in ("evaluate", "serve", "trees")] == [True, True, False]
    check_models(recipe, "evaluate")  # stage train may still have to run
    with pytest.raises(
        UserError, match=r"value_model is missing, which stage train writes: run python -m pipelines.train"
    ):
        check_models(recipe, "serve")
    separate = replace(recipe, evaluate=replace(recipe.evaluate, policy="sandbox:ref", value_model="random"))
    assert (evaluated_policy(separate), separate.uses_own_head("evaluate")) == ("sandbox:ref", False)
    assert (inputs_of(recipe), inputs_of(separate)) == (("train",), ())
    add_layers(policy_folder, tmp_path / "shared", 1, 119)
    with pytest.raises(UserError, match=r"is a policy with a value head.* pass it as --evaluate.policy"):
        value_model(recipe, str(tmp_path / "shared"))
