"""Stage tune with real Ray Train on made-up pairs: a killed worker, the written model, and pairs it can't train on."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toy_pairs import kill_a_worker, make_policy, pair_rows, rows_of, write_pairs_stage
from transformers import AutoModelForCausalLM

from pipelines import tune
from pipelines.recipes import svpo
from pipelines.tables.pair_store import pair_store
from vgs_ray.config import Recipe, ReferencePolicy
from vgs_ray.errors import UserError
from vgs_ray.prompts import load_tokenizer
from vgs_ray.value.policy_value import PolicyValueModel

STEPS = 24


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    base = svpo()
    config = replace(
        base.tune, max_length=16, batch_size=8, paths=8, micro_batch=4, epochs=STEPS // 4, checkpoint_every=3, validate_every=8,
        workers=2, shard_size=0,
    )  # fmt: skip
    return replace(base, root=str(tmp_path), policy=ReferencePolicy(make_policy(tmp_path / "policy")), tune=config)


def test_a_killed_worker_costs_the_steps_since_the_last_checkpoint(local_ray: None, recipe: Recipe) -> None:
    write_pairs_stage(recipe, pair_rows())
    folder = recipe.folder / "tune"
    killed_at: list[int] = []
    killer = threading.Thread(target=kill_a_worker, args=(folder / "metrics.jsonl", killed_at), daemon=True)
    killer.start()
    tune.run(recipe)
    steps = [row["step"] for row in rows_of(folder / "metrics.jsonl") if "validation_loss" not in row]
    again = next(at for at in range(1, len(steps)) if steps[at] <= steps[at - 1])
    assert killed_at
    assert steps == [*range(1, steps[again - 1] + 1), *range(steps[again], STEPS + 1)]
    assert steps[again] % 3 == 1  # the step after a checkpoint
    assert steps[again - 1] - steps[again] < 2 * 3  # the next checkpoint was being written
    check_model(folder / "model", recipe)
    manifest = json.loads((folder / "_stage.json").read_text())["counts"]
    assert manifest["pairs"] == {"train": 32, "validation": 8, "left_out": 0}
    assert manifest["value_paths"] == {"train": 8, "validation": 4, "left_out": 0}
    assert (manifest["steps"], manifest["validation"]["step"]) == (STEPS, STEPS)
    assert manifest["validation"]["validation_dpo_accuracy"] > 0.8
    assert {path.name for path in folder.iterdir()}.isdisjoint({"store", "checkpoints"})


def check_model(folder: Path, recipe: Recipe) -> None:
    """The folder is a plain policy for transformers, with the same weights as the model with its head."""
    plain, whole = AutoModelForCausalLM.from_pretrained(folder), PolicyValueModel.from_pretrained(folder)
    before = AutoModelForCausalLM.from_pretrained(recipe.policy.model)
    assert all(torch.equal(weight, whole.policy.state_dict()[name]) for name, weight in plain.state_dict().items())
    assert not torch.equal(plain.lm_head.weight, before.lm_head.weight)
    assert plain.config.eos_token_id == before.config.eos_token_id
    assert plain.generation_config.to_dict() == before.generation_config.to_dict()
    assert load_tokenizer(str(folder)).get_vocab() == load_tokenizer(recipe.policy.model).get_vocab()
    assert load_tokenizer(str(folder)).chat_template
    pair = pair_rows()[0]
    values = [
        whole.values(torch.tensor([pair["prompt_ids"] + pair[side]]))[0, -1] for side in ("chosen_ids", "rejected_ids")
    ]
    assert values[0] > values[1]
    assert "validation_dpo_accuracy" in (folder / "README.md").read_text()


def test_no_pair_that_fits_is_one_line(local_ray: None, recipe: Recipe) -> None:
    recipe = replace(recipe, tune=replace(recipe.tune, max_length=2))
    write_pairs_stage(recipe, pair_rows())
    with pytest.raises(
        UserError, match=r"^stage pairs has no pair of at most tune.max_length=2 tokens .*\(40 are longer\)"
    ):
        tune.run(recipe)


def test_another_tokenizer_is_one_line(recipe: Recipe, tmp_path: Path) -> None:
    other = Path(make_policy(tmp_path / "other"))
    vocabulary = json.loads((other / "tokenizer.json").read_text())
    tokens = vocabulary["model"]["vocab"]
    first, second = list(tokens)[-2:]
    tokens[first], tokens[second] = tokens[second], tokens[first]
    (other / "tokenizer.json").write_text(json.dumps(vocabulary))
    recipe = replace(recipe, tune=replace(recipe.tune, init=str(other)))
    write_pairs_stage(recipe, pair_rows())
    with pytest.raises(UserError, match=r"whose tokenizer differs from that of policy.model.*--tune.init$"):
        tune.check_data(recipe, pair_store(recipe))
