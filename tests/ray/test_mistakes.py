"""Typical mistakes: each ends in one line that names the value, the rule and the remedy, before anything starts."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import get_type_hints

import pytest
from made_up_run import write_run

from pipelines import clean, evaluate, export, import_vm, label, plan, roll_in, roll_out, run, serve, train, verify
from pipelines.cli import parse
from pipelines.recipes import RECIPES, sandbox
from pipelines.tables.stage_table import stage_table
from vgs_ray.config import (
    Evaluate,
    Generator,
    ImportVM,
    Label,
    Recipe,
    Resources,
    RollOut,
    Serve,
    Train,
    Variant,
)
from vgs_ray.config.checks import check_recipe
from vgs_ray.config.help import range_of
from vgs_ray.errors import UserError

COMMANDS: dict[str, Callable[[Recipe], object]] = {
    "clean": clean.run, "roll_in": roll_in.run, "roll_out": roll_out.run, "verify": verify.run, "label": label.run,
    "train": train.run, "evaluate": evaluate.run, "from_trees": evaluate.report_again, "export": export.run,
    "import_vm": import_vm.run, "plan": plan.plan,
    "run": lambda recipe: run.run(recipe, run.Flags()), "serve": serve.run, "start": serve.start,
}  # fmt: skip
SECTIONS = (Recipe, Generator, Variant, *(type(getattr(sandbox(), f.name)) for f in dataclasses.fields(Recipe)[5:]))


def refused(recipe: Recipe) -> str:
    with pytest.raises(UserError) as error:
        check_recipe(recipe)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", RECIPES)
def test_shipped_recipes_can_run(name: str) -> None:
    check_recipe(RECIPES[name]())
    check_recipe(Recipe("built"))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ("--roll_out.cuts 0", ["roll_out.cuts is 0", "roll_out.whole is False", "pass --roll-out.whole"]),
        ("--roll_out.cuts -1", ["roll_out.cuts is -1", "pass another --roll-out.cuts"]),
        ("--label.kind step_values", ["label.delimiter is empty", "pass --label.delimiter TEXT"]),
        ("--train.share-policy", ["train.trained_layers is 0", "pass --train.trained-layers 1 or more"]),
        (
            "--train.share-policy --train.trained-layers 1 --train.init sandbox:weak",
            ["train.init is 'sandbox:weak' and policy.model 'sandbox:ref'", "pass --train.init sandbox:ref"],
        ),
        ("--train.loss mse", ["train.loss is mse and label.kind is outcome", "pass --label.kind token_values"]),
        ("--label.paths -1", ["label.paths is -1"]),
        ("--train.epochs 0", ["train.epochs is 0"]),
        ("--train.steps -1 --train.workers -2", ["train.steps is -1", "train.workers is -2", "--train.workers"]),
        ("--roll_in.resources.replicas 0", ["roll_in.resources.replicas is 0"]),
        ("--serve.resources.replicas 0", ["serve.resources.replicas is 0"]),
        ("--roll_in.per-problem 0", ["roll_in.per_problem is 0"]),
        ("--trees.search.back-up blocks", ["trees.search.back_up is 'blocks'", "--trees.search.back-up prefix"]),
        ("--roll_in.sampling.temperature nan", ["roll_in.sampling.temperature is nan", "finite"]),
        ("--train.lr inf", ["train.lr is inf", "finite"]),
        ("--roll_out.sampling.top-p 0", ["roll_out.sampling.top_p is 0.0", "greater than 0"]),
        ("--roll_out.sampling.top-p 1.5", ["less than or equal to 1"]),
        ("--train.betas 0.9 1.0", ["train.betas.1 is 1.0", "less than 1", "--train.betas"]),
        ("--train.dropout 1", ["train.dropout is 1.0", "less than 1"]),
        ("--serve.port 0", ["serve.port is 0"]),
        ("--serve.port 65536", ["serve.port is 65536", "less than or equal to 65535"]),
        ("--judge.timeout-s 0", ["judge.timeout_s is 0.0", "greater than 0"]),
        ("--label.hopeless-share 1.5", ["label.hopeless_share is 1.5"]),
        ("--roll_in.max-error-share -0.1", ["roll_in.max_error_share is -0.1"]),
        ("--evaluate.bootstrap 0", ["evaluate.bootstrap is 0"]),
        ("--evaluate.budgets 0 4", ["evaluate.budgets.0 is 0", "pass another --evaluate.budgets"]),
        ("--evaluate.budgets", ["evaluate.budgets is ()", "at least 1 item"]),
        ("--evaluate.benchmarks", ["evaluate.benchmarks is ()", "at least 1 item"]),
        ("--roll_in.generators.0.share -1", ["roll_in.generators.0.share is -1.0"]),
        ("--policy.model=", ["policy.model is ''", "at least 1 character"]),
        ("--seed -1", ["seed is -1", "greater than or equal to 0"]),
        ("--plan.peak-tflops 0", ["plan.peak_tflops is 0.0"]),
        ("--run-name ../../evil", ["run_name is '../../evil'", "one folder", "--run-name"]),
        ("--run-name /etc", ["run_name is '/etc'"]),
        ("--run-name ..", ["run_name is '..'"]),
        ("--run-name=.hidden", ["run_name is '.hidden'"]),
        ("--run-name=-rf", ["run_name is '-rf'"]),
        ("--run-name a\nb", ["run_name is 'a\\nb'"]),
        (f"--run-name {'x' * 101}", ["at most 100"]),
        ("--root=", ["root is ''", "--root"]),
        ("--root https://bucket/runs", ["root: https://bucket/runs is not supported", "s3://bucket/runs"]),
        ("--root s3:/bucket/runs", ["root: s3:/bucket/runs is not supported"]),
        ("--root gs://", ["root: gs:// is not supported"]),
        ("--clean.source https://example.org/a.parquet", ["clean.source is 'https://", "is not supported"]),
        ("--clean.exclude gsm8k hf://b/x.jsonl", ["clean.exclude.1 is 'hf://", "--clean.exclude"]),
        ("--evaluate.benchmarks sandbox hf://a/b", ["evaluate.benchmarks.1 is 'hf://a/b'"]),
        ("--evaluate.benchmark-folder http://b", ["evaluate.benchmark_folder is 'http://b'"]),
        ("--import-vm.source s3:/b", ["import_vm.source is 's3:/b'"]),
        ("--serve.value-model https://b/value", ["serve.value_model is 'https://b/value'", "--serve.value-model"]),
        ("--export.hub my/team", ["export.hub is 'my/team'"]),
        ("--train.push-to my-model", ["train.push_to is 'my-model'"]),
        ("--roll_in.generators.1.name ref", ["names ref, ref", "must occur once"]),
        ("--roll_in.generators.0.share 0 --roll_in.generators.1.share 0", ["only shares of 0"]),
        ("--train.min-workers 3", ["train.min_workers is 3 and train.workers is 2", "--train.min-workers"]),
        ("--tune.batch-size 100", ["tune.batch_size is 100", "tune.workers * tune.micro_batch (8 * 4)"]),
        ("--tune.paths 100", ["tune.paths is 100", "tune.batch_size / tune.micro_batch (128 / 4)", "--tune.paths"]),
        ("--tune.gpus-per-worker 0", ["tune.bf16 is True and tune.gpus_per_worker is 0", "--tune.no-bf16"]),
        ("--roll_out.resources.num-gpus 1.5", ["roll_out.resources.num_gpus is 1.5", "whole GPUs"]),
        (
            "--roll_out.resources.num-gpus 1 --roll_out.engine.tensor-parallel-size 2",
            ["--roll-out.resources.num-gpus 2"],
        ),
        ("--roll_out.engine.urls host:8000", ["roll_out.engine.urls has 'host:8000'", "http://HOST:PORT"]),
        (
            "--evaluate.value-engine.urls http://a:1",
            ["evaluate.value_engine.urls is http://a:1", "an engine of its own"],
        ),
        (
            "--roll_out.engine.urls http://a:1 --roll-out.resources.num-gpus 1",
            ["roll_out.engine.urls needs no GPU", "--roll-out.resources.num-gpus 0"],
        ),
        (
            "--serve.policy-engine.urls http://a:1 --serve.layout apart",
            ["serve.policy_engine.urls is http://a:1", "--serve.layout together"],
        ),
        (
            "--serve.policy-engine.urls http://a:1 --serve.value-model policy",
            ["no server returns the values of the policy's own head"],
        ),
        ("--roll_out.sampling.max-tokens 512", ["max_tokens is 512 and roll_out.engine.max_model_len 512"]),
        ("--clean.answer-column= --clean.solution-column=", ["clean.answer_column", "--clean.solution-column"]),
        ("--evaluate.samples 8", ["evaluate.budgets has 16 and evaluate.samples is 8"]),
        ("--evaluate.beam.groups 2", ["has 8, 16", "keep * branch (2), up to keep * branch * groups (4)"]),
        ("--evaluate.budgets 3 4", ["evaluate.budgets has 3;"]),
        ("--train.activations budget", ["train.activations is 'budget'", "train.compile is False", "--train.compile"]),
        ("--evaluate.confidence 0.4", ["evaluate.confidence is 0.4", "over 0.5"]),
        ("--evaluate.benchmarks a/x.jsonl b/x.jsonl", ["call x, x", "may occur once"]),
        ("--serve.beam.groups 200", ["budget of 400", "serve.max_budget is 256"]),
        (
            "--serve.layout apart --serve.policy-resources.replicas 3 --serve.policy-max-replicas 2",
            ["serve.policy_max_replicas is 2"],
        ),
        ("--serve.policy-resources.replicas 3", ["serve.policy_resources", "'together'", "--serve.layout apart"]),
        (
            "--evaluate.value-model policy --evaluate.value-engine.threads 3",
            ["evaluate.value_engine is set", "--evaluate.value-model"],
        ),
        ("--serve.layout apart --serve.resources.replicas 3", ["serve.resources is set", "--serve.layout together"]),
        (
            "--evaluate.resources.num-gpus 1 --evaluate.policy-engine.gpu-memory-utilization 0.3",
            ["evaluate.policy_engine and evaluate.value_engine share a GPU", "1.2"],
        ),
    ],
)
def test_a_recipe_that_cannot_run_is_refused_in_one_line(options: str, named: list[str], tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        parse("pipelines.clean", ["sandbox", "--root", str(tmp_path / "runs"), *options.split(" ")])
    text = str(error.value)
    assert "\n" not in text
    for part in named:
        assert part in text
    assert not list(tmp_path.iterdir()), "nothing was made"


@pytest.mark.parametrize(
    "recipe",
    [
        replace(sandbox(), roll_out=RollOut(cuts=True)),
        replace(sandbox(), roll_out=RollOut(cuts=4.0)),  # type: ignore[arg-type]
        replace(sandbox(), train=Train(betas=(0.9,))),  # type: ignore[arg-type]
        replace(sandbox(), evaluate=replace(sandbox().evaluate, budgets=[4])),  # type: ignore[arg-type]
        replace(sandbox(), serve=Serve(layout="side by side")),  # type: ignore[arg-type]
        replace(
            sandbox(),
            roll_in=replace(sandbox().roll_in, generators=(Generator("a", "b", resources=Resources(replicas=0)),)),
        ),
        replace(
            sandbox(), evaluate=replace(sandbox().evaluate, variants=(Variant("a", replace(Evaluate().beam, keep=0)),))
        ),
        replace(sandbox(), clean=None),  # type: ignore[arg-type]
    ],
)
def test_values_built_in_code_are_held_to_type_and_range(recipe: Recipe) -> None:
    assert " is " in refused(recipe)


def test_every_number_and_text_has_a_range() -> None:
    free = {"run_name", "base_run", "instruction", "delimiter", "init", "policy", "value_model", "benchmark_folder", "hub",
            "push_to", "answer_column", "solution_column"}  # in these, empty has a meaning  # fmt: skip
    for section in {*SECTIONS} - {ImportVM}:
        for name, hint in get_type_hints(section, include_extras=True).items():
            plain = re.search(r"\b(int|float|str)\b", str(hint))
            assert not plain or range_of(hint) or name in free, f"{section.__name__}.{name} has no range"
    assert range_of(get_type_hints(Train, include_extras=True)["betas"]) == "each >= 0 and < 1"
    assert range_of(get_type_hints(Evaluate, include_extras=True)["budgets"]) == "not empty, each >= 1"


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_starts_with_a_recipe_that_cannot_run(command: str, tmp_path: Path) -> None:
    recipe = replace(sandbox(), root=str(tmp_path / "runs"), roll_out=replace(sandbox().roll_out, cuts=0))
    with pytest.raises(UserError, match=r"roll_out\.cuts is 0"):
        COMMANDS[command](recipe)
    with pytest.raises(UserError, match="run_name is"):
        COMMANDS[command](replace(sandbox(), root=str(tmp_path / "runs"), run_name="../evil"))
    assert not list(tmp_path.iterdir())


def test_a_damaged_table_stops_the_next_stage(tmp_path: Path) -> None:
    recipe = write_run(tmp_path, Label())
    parts = stage_table(recipe, "roll_out")
    (file,) = parts.files()
    content = file.read_bytes()
    file.unlink()
    with pytest.raises(UserError, match=r"part-00000-of-00001\.parquet is missing, and the manifest says .* bytes"):
        label.run(recipe)
    file.write_bytes(content[:100])
    with pytest.raises(UserError, match=r"part-00000-of-00001\.parquet has 100 bytes, and the manifest says .* bytes"):
        label.run(recipe)
    file.write_bytes(content[:100] + bytes(len(content) - 100))
    for command in (label.run, plan.plan):
        with pytest.raises(UserError, match=r"part-00000-of-00001\.parquet is damaged"):
            command(recipe)
    manifest = recipe.folder / "roll_out" / "_stage.json"
    for text in ("", "{", "[]", "{}"):
        manifest.write_text(text)
        for command in (label.run, plan.plan):
            with pytest.raises(UserError, match=r"_stage\.json is damaged.*python -m pipelines\.roll_out"):
                command(recipe)
