"""The estimated costs of a recipe, checked by hand, and the measured values that replace assumptions."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_up_run import write_run
from planned_costs import costs_of

from pipelines.cli import parse
from pipelines.plan import Flags, plan, run
from pipelines.recipes import RECIPES
from pipelines.tables.stage_table import stage_table
from vgs_ray.config import Label, RollOut
from vgs_ray.errors import UserError
from vgs_ray.evaluate.estimate import PAPER, cut_means
from vgs_ray.evaluate.estimate_svpo import PAIRS_PER_SIMULATION
from vgs_ray.labels.outcomes import cut_positions
from vgs_ray.search.flops import forward_flops
from vgs_ray.search.model_size import size_from_config


def test_published_recipe_has_the_papers_rows(tmp_path: Path) -> None:
    costs, _ = costs_of("vgs", "--root", str(tmp_path), "--plan.problems", "49394", "--clean.test", "0")
    assert costs["roll_in"].rows == 691_516
    assert costs["roll_out"].rows == costs["verify"].rows == 2_766_064
    assert costs["label"].rows == pytest.approx(2_492_504, rel=1e-3)
    assert costs["train"].rows == 12_170 * 1024
    assert costs["train"].tokens / 5 == pytest.approx(35.7e9, rel=0.01)
    labelled = costs["roll_out"].tokens * costs["label"].rows / costs["roll_out"].rows
    assert labelled == pytest.approx(14.4e9, rel=0.01)
    assert costs["train"].hours == pytest.approx(PAPER["train"].hours, rel=0.3)


def test_the_tokens_on_the_disk_of_a_node_are_counted(tmp_path: Path) -> None:
    costs, text = costs_of("vgs", "--root", str(tmp_path), "--plan.problems", "49394", "--clean.test", "0")
    roll_ins = float(re.search(r"^roll-in tokens: ([\d,.]+)", text, re.M)[1].replace(",", ""))
    prompt = float(re.search(r"^prompt tokens: ([\d,.]+)", text, re.M)[1].replace(",", ""))
    tokens = costs["roll_in"].rows * (prompt + roll_ins) + costs["roll_out"].tokens
    found = re.search(r"^disk of each node that trains: (\d+)GB of tokens", text, re.M)
    assert found is not None
    assert float(found[1]) == pytest.approx(4 * tokens / 1e9, rel=0.01)


def test_test_problems_cost_nothing(tmp_path: Path) -> None:
    costs, _ = costs_of("vgs", "--root", str(tmp_path), "--plan.problems", "49394")
    assert costs["clean"].rows == 49_394
    assert costs["roll_in"].rows == 14 * 48_894
    assert costs["roll_out"].rows == costs["verify"].rows == 56 * 48_894
    few, _ = costs_of("vgs", "--root", str(tmp_path), "--plan.problems", "200")
    assert few["roll_in"].rows == 14 * 180  # a tenth at most


def test_rows_and_hours_follow_the_options(tmp_path: Path) -> None:
    shared = (
        "vgs",
        "--root",
        str(tmp_path),
        "--plan.problems",
        "100",
        "--clean.test",
        "0",
        "--roll-out.cuts",
        "2",
        "--roll-in.per-problem",
        "8",
    )
    slow, _ = costs_of(*shared, "--plan.tokens-per-s", "1000", "--plan.roll-out-tokens", "500")
    quick, said = costs_of(*shared, "--plan.tokens-per-s", "4000", "--plan.roll-out-tokens", "500")
    assert slow["roll_out"].rows == 1600
    assert slow["roll_out"].tokens == 800_000
    assert slow["roll_out"].hours == pytest.approx(800 / 3600)
    assert quick["roll_in"].hours == pytest.approx(slow["roll_in"].hours / 4)
    assert (
        quick["roll_in"].hours > quick["roll_in"].tokens / 4000 / 3600
    )  # most generators are larger than the reference
    assert "4,000 tokens/s (given)" in said
    kept, _ = costs_of(*shared, "--label.hopeless-share", "1")
    assert kept["label"].rows == 1600
    assert slow["label"].rows == round(1600 * (1 - 0.099))
    values, _ = costs_of(*shared, "--label.kind", "token_values")
    assert values["label"].size > 10 * slow["label"].size


def test_flops_by_hand(tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    folder.mkdir()
    config = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 50,
              "model_type": "llama", "architectures": ["LlamaForCausalLM"]}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    layer = 4 * 8 * 8 + 3 * 8 * 16 + 2 * 8
    body = 2 * layer + 8
    lengths = ("--plan.prompt-tokens", "10", "--plan.roll-in-tokens", "100", "--plan.roll-out-tokens", "40")
    models = (
        "--policy.model",
        str(folder),
        "--train.init",
        str(folder),
        "--train.steps",
        "3",
        "--train.batch-size",
        "2",
    )
    recipe = parse("pipelines.plan", ["sandbox", "--root", str(tmp_path), "--plan.problems", "7", *lengths, *models])
    generators = tuple(replace(each, model=str(folder)) for each in recipe.roll_in.generators)
    found = {
        cost.stage: cost for cost in plan(replace(recipe, roll_in=replace(recipe.roll_in, generators=generators)))[0]
    }

    def forward(tokens: int, before: int, params: int) -> float:
        context = sum(before + i + 1 for i in range(tokens))
        return 2 * params * tokens + 4 * 2 * 8 * context

    assert found["roll_in"].flops == pytest.approx(14 * forward(110, 0, body + 400))
    latest = round(10 + 100 * 2 / 3)  # of two uniform cuts
    roll_outs = 14 * forward(latest, 0, body + 400) + 28 * forward(40, 60, body + 400)
    assert found["roll_out"].flops == pytest.approx(roll_outs)
    assert found["train"].flops == pytest.approx(3 * 6 * forward(100, 0, body))


@pytest.mark.parametrize("scheme", ["cuts", "fan"])
@pytest.mark.parametrize("law", ["uniform", "sqrt"])
def test_cut_means_are_those_of_drawn_cuts(scheme, law) -> None:
    drawn = np.array([cut_positions(10_000, 4, law, seed, scheme) for seed in range(3000)])
    cut, latest = cut_means(RollOut(cuts=4, positions=law, scheme=scheme), 10_000)
    assert drawn.mean() == pytest.approx(cut, rel=0.03)
    assert drawn.max(axis=1).mean() == pytest.approx(latest, rel=0.03)


def test_run_folder_replaces_assumptions(tmp_path: Path) -> None:
    recipe = write_run(tmp_path, Label(hopeless_share=1.0))
    costs, lines = plan(recipe)
    by_stage = {cost.stage: cost for cost in costs}
    tokens = [len(row) for row in stage_table(recipe, "roll_in").read(["tokens"])["tokens"].to_pylist()]
    assert by_stage["clean"].rows == stage_table(recipe, "clean").count_rows()
    assert by_stage["roll_in"].tokens == pytest.approx(by_stage["roll_in"].rows * np.mean(tokens))
    on_disk = sum(file.stat().st_size for file in stage_table(recipe, "verify").files())
    verified = stage_table(recipe, "verify").read(["outcome"])["outcome"].to_pylist()
    assert by_stage["verify"].size / by_stage["verify"].rows == pytest.approx(on_disk / len(verified))
    unknown = verified.count("unknown") / len(verified)
    assert by_stage["label"].rows == round(by_stage["verify"].rows * (1 - unknown))
    assert "kept in" in "\n".join(lines)


def test_layers_that_are_not_trained_cost_one_forward_pass(tmp_path: Path) -> None:
    asked = ("sandbox", "--root", str(tmp_path))
    whole, some = costs_of(*asked)[0]["train"], costs_of(*asked, "--train.trained-layers", "2")[0]["train"]
    assert some.flops / whole.flops == pytest.approx((1 + 2 * 2 / 5) / 3)


def test_the_measured_rate_of_training_is_used(tmp_path: Path) -> None:
    asked = ("sandbox", "--root", str(tmp_path))
    folder = tmp_path / "sandbox" / "train"
    folder.mkdir(parents=True)
    rows = [{"step": step, "tokens_per_s": 100.0 * step, "workers": 2} for step in (1, 2)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    costs, text = costs_of(*asked)
    assert "(measured by stage train)" in text
    assert costs["train"].hours == pytest.approx(2 * costs["train"].tokens / 200 / 3600, rel=0.1)


def test_no_hours_where_nothing_was_measured_on_cpu(tmp_path: Path) -> None:
    costs, said = costs_of("sandbox", "--root", str(tmp_path))
    assert {cost.hours for cost in costs.values()} == {None}
    assert "unknown on CPU" in said
    given, _ = costs_of("sandbox", "--root", str(tmp_path), "--plan.tokens-per-s", "5000")
    assert given["roll_out"].hours == pytest.approx(given["roll_out"].tokens / 5000 / 3600)


def test_stages_of_svpo_by_hand(tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    folder.mkdir()
    config = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 50,
              "model_type": "llama", "architectures": ["LlamaForCausalLM"]}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    size = size_from_config(config)
    lengths = ("--plan.prompt-tokens", "10", "--plan.roll-in-tokens", "100", "--plan.block-tokens", "7")
    search = ("--trees.search.simulations", "6", "--trees.search.width", "3", "--trees.per-problem", "2")
    costs, said = costs_of(
        "svpo", "--root", str(tmp_path), "--plan.problems", "9", "--policy.model", str(folder), *lengths, *search,
        "--plan.tokens-per-s", "100", "--evaluate.limit", "5",
    )  # fmt: skip
    assert list(costs) == [*RECIPES["svpo"]().stages]
    trees, blocks = 18, 18
    assert (costs["trees"].rows, costs["trees"].tokens) == (trees, trees * blocks * 7)
    one_tree = forward_flops(size, 10, 0) + blocks * forward_flops(size, 7, 60)
    assert costs["trees"].flops == pytest.approx(trees * one_tree)
    assert costs["trees"].hours == pytest.approx(trees * blocks * 7 / 100 / 3600)
    pairs = round(trees * 6 * PAIRS_PER_SIMULATION)
    assert costs["pairs"].rows == costs["tune"].rows == pairs
    of_paths = math.ceil(pairs / 64) * 256 * forward_flops(size, 110, 0)
    assert costs["tune"].flops == pytest.approx(4 * 2 * pairs * forward_flops(size, 67, 0) + 3 * of_paths)
    responses = 5 * (16 + 16 + 1)  # samples, beams and greedy, scored by the policy's own head
    assert costs["evaluate"].flops == pytest.approx(responses * forward_flops(size, 100, 10))
    assert "tune.max_length" in said


@pytest.mark.parametrize("name", RECIPES)
def test_table_fits_in_100_columns(name: str, tmp_path: Path, capsys) -> None:
    try:
        run(parse("pipelines.plan", [name, "--root", str(tmp_path)]), Flags())
    except UserError as error:
        pytest.skip(str(error))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    assert {line.split()[0] for line in lines if line} >= {*RECIPES[name]().stages, "total"}


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--plan.tokens-a-second", "5"], "--plan.tokens-a-second"),
        (["--plan.problems", "-3"], "plan.problems is -3; it must be greater than or equal to 0"),
        (["--plan.train-share", "0"], "plan.train_share is 0.0; it must be greater than 0"),
        (["--policy.model", "somebody/unheard-of"], "hf download somebody/unheard-of config.json"),
        (["--policy.model", "./not-made-yet"], "./not-made-yet is not a folder.*make the model first"),
    ],
)
def test_bad_options_stop_with_one_line(arguments: list[str], named: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=named):
        run(parse("pipelines.plan", ["vgs", "--root", str(tmp_path), *arguments]), Flags())


def test_command_prints_a_plan_and_leaves_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.plan", "vgs", "--root", str(tmp_path / "runs")],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "paper" in done.stdout
    assert not (tmp_path / "runs").exists()
