"""The main job end to end through its command line: real Ray, real vLLM, real Parquet, killed with SIGKILL and resumed."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.cli import parse
from pipelines.plan import plan
from pipelines.recipes.rounds import next_round
from pipelines.roll_in import assign_generators
from pipelines.tables.stage import summary_line
from pipelines.tables.stage_table import LAYOUT, StageTable, stage_table
from vgs_ray.config import Recipe
from vgs_ray.data.ids import roll_in_id, roll_out_id

SMALL = shlex.split(
    "--clean.limit 320 --clean.validation 27 --clean.test 20 --roll-out.whole "
    "--train.steps 16 --train.batch-size 16 --train.checkpoint-every 4 "
    "--train.validate-every 8 --evaluate.limit 8 --evaluate.samples 8 --evaluate.beam.groups 4 --evaluate.budgets 4 8 "
    "--evaluate.bootstrap 200"
)
LIMIT_S = 600


def recipe_in(root: Path, *extra: str) -> Recipe:
    return parse("pipelines.run", ["sandbox", "--root", str(root), *SMALL, *extra])


def start(root: Path, *extra: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "pipelines.run", "sandbox", "--root", str(root), *SMALL, *extra],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def kill_when(ready: Callable[[], bool], root: Path, after_s: float, *extra: str) -> None:
    """Start a run and SIGKILL it so long after something is there."""
    process = start(root, *extra)
    deadline = time.time() + LIMIT_S
    while not ready() and process.poll() is None and time.time() < deadline:
        time.sleep(0.05)
    time.sleep(after_s)
    assert process.poll() is None, f"the run ended before it could be killed: {process.stdout.read()}"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


MOMENTS = {  # files that appear when the stage has begun its work, and seconds to wait then; test_kills has other stages
    "clean": ("_started.json", 0.2),
    "roll_out": ("_parts/**/*.parquet", 0.0),
    "train": ("checkpoints/step-*", 0.0),
    "evaluate": ("_parts/**/*.parquet", 0.0),
}


SEARCHED_BEFORE: dict[str, str] = {}
"""Trees of the searches that were durable when `evaluate` was killed, by their ids."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, str]:
    """A run that was killed in four of its stages, and then ran to its end."""
    root = tmp_path_factory.mktemp("runs")
    recipe = recipe_in(root)
    for stage, (pattern, after_s) in MOMENTS.items():
        folder = recipe.folder / stage
        kill_when(lambda: bool(list(folder.glob(pattern))), root, after_s)  # noqa: B023
        assert not (folder / "_stage.json").exists(), f"{stage} was killed too late to show anything"
    SEARCHED_BEFORE.update(trees(recipe))
    done = start(root)
    output, _ = done.communicate(timeout=LIMIT_S)
    assert done.returncode == 0, output
    return recipe, output


@pytest.mark.timeout(900)
def test_every_table_opens_and_matches_its_schema(finished: tuple[Recipe, str]) -> None:
    recipe, _ = finished
    for stage in LAYOUT.keys() & {*recipe.stages, "dropped"}:
        parts = stage_table(recipe, stage)
        table = parts.read()
        assert table.num_rows > 0, stage
        assert table.schema.equals(parts.schema), stage
        assert len(set(table[parts.key].to_pylist())) == table.num_rows, f"{stage} has a doubled id"


def trees(recipe: Recipe) -> dict[str, str]:
    found = stage_table(recipe, "evaluate").read(["search_id", "tree", "seconds"]).to_pylist()
    return {row["search_id"]: f"{row['seconds']} {row['tree']}" for row in found}


@pytest.mark.timeout(900)
def test_a_search_that_was_durable_is_not_done_again(finished: tuple[Recipe, str]) -> None:
    recipe, _ = finished
    after = trees(recipe)
    assert 0 < len(SEARCHED_BEFORE) < len(after) == 2 * 8
    assert {name: after[name] for name in SEARCHED_BEFORE} == SEARCHED_BEFORE


def ids(parts: StageTable) -> list[str]:
    return sorted(parts.read([parts.key])[parts.key].to_pylist())


@pytest.mark.timeout(900)
def test_killed_run_has_exactly_the_ids_that_exist_before_generation(finished: tuple[Recipe, str]) -> None:
    recipe, _ = finished
    splits = {row["problem_id"]: row["split"] for row in stage_table(recipe, "clean").read().to_pylist()}
    assert Counter(splits.values()) == {"train": 278 - 47, "validation": 27, "test": 20}
    problems = sorted(problem for problem, split in splits.items() if split != "test")
    places = assign_generators(recipe.roll_in.generators, recipe.roll_in.per_problem)
    roll_ins = sorted(roll_in_id(problem, place.name, i) for problem in problems for i, place in enumerate(places))
    assert ids(stage_table(recipe, "roll_in")) == roll_ins
    cuts = [*range(recipe.roll_out.cuts), "whole"]
    roll_outs = sorted(roll_out_id(roll_in, cut) for roll_in in roll_ins for cut in cuts)
    assert ids(stage_table(recipe, "roll_out")) == roll_outs
    assert ids(stage_table(recipe, "verify")) == roll_outs
    assert ids(stage_table(recipe, "label")) == roll_outs


@pytest.mark.timeout(900)
def test_report_follows_the_contract(finished: tuple[Recipe, str]) -> None:
    recipe, output = finished
    report = json.loads((recipe.folder / "evaluate" / "report.json").read_text())
    columns = {
        "benchmark", "method", "budget", "accuracy", "low", "high", "problems", "samples", "generated_tokens",
        "scored_tokens", "flops", "seconds",
    }  # fmt: skip
    assert all(columns <= set(row) for row in report["rows"])
    assert all(0 <= row["low"] <= row["accuracy"] <= row["high"] <= 1 for row in report["rows"])
    assert all(row["problems"] == 8 for row in report["rows"])
    assert report["comparisons"]
    assert (recipe.folder / "evaluate" / "accuracy_vs_flops.png").stat().st_size > 10_000
    assert (recipe.folder / "evaluate" / "report.md").read_text().count("|") > 20
    table = [line for line in output.splitlines() if line.startswith(("method", "single", "majority", "vgs_"))]
    assert len(table) > 8
    assert max(map(len, table)) <= 100


@pytest.mark.timeout(900)
def test_stored_trees_give_the_same_report(finished: tuple[Recipe, str]) -> None:
    recipe, _ = finished
    names = ("report.json", "report.csv", "report.md", "report.tex", "accuracy_vs_flops.pdf", "calibration.png")
    files = [recipe.folder / "evaluate" / name for name in names]
    before = [file.read_bytes() for file in files]
    for file in files:
        file.unlink()
    command = [sys.executable, "-m", "pipelines.evaluate", "sandbox", "--root", recipe.root, "--from-trees", *SMALL]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT_S)
    assert done.returncode == 0, done.stderr
    assert [file.read_bytes() for file in files] == before


@pytest.mark.timeout(900)
def test_served_search_answers_the_question(finished: tuple[Recipe, str]) -> None:
    _, output = finished
    assert "usage" in output
    assert "value" in output


@pytest.mark.timeout(900)
def test_manifests_have_counts_and_versions(finished: tuple[Recipe, str]) -> None:
    recipe, output = finished
    for stage in ("clean", "roll_in", "roll_out", "verify", "label", "train", "evaluate"):
        manifest = json.loads((recipe.folder / stage / "_stage.json").read_text())
        assert manifest["stage"] == stage
        assert manifest["versions"]["ray"]
        assert manifest["counts"]
        assert summary_line(manifest).split()[0] == stage
        assert stage in output


@pytest.mark.timeout(900)
def test_training_takes_every_label_of_its_split(finished: tuple[Recipe, str]) -> None:
    recipe, output = finished
    counts = json.loads((recipe.folder / "train" / "_stage.json").read_text())["counts"]
    labels = stage_table(recipe, "label").read(["split", "label"]).to_pylist()
    wanted = Counter(row["label"] for row in labels if row["split"] == "train")
    assert list(counts["classes"].values()) == [wanted[0], wanted[1], wanted[2]]
    assert min(counts["classes"].values()) > 0
    assert counts["too_long"] == {"cut": 0, "left_out": 0}
    assert f"classes: incorrect {wanted[0]}, correct {wanted[1]}, incomplete {wanted[2]}" in output


@pytest.mark.timeout(900)
def test_second_run_with_another_configuration_is_refused(finished: tuple[Recipe, str]) -> None:
    recipe, _ = finished
    again = start(Path(recipe.root), "--train.lr", "0.5")
    output, _ = again.communicate(timeout=LIMIT_S)
    assert again.returncode == 2
    assert "lr was 0.001 and is now 0.5" in output
    assert "--run-name" in output


@pytest.mark.timeout(900)
def test_plan_has_the_rows_of_the_run(finished: tuple[Recipe, str]) -> None:
    recipe, _ = finished
    costs = {cost.stage: cost for cost in plan(recipe)[0]}
    for stage in ("clean", "roll_in", "roll_out", "verify", "label", "evaluate"):
        assert costs[stage].rows == stage_table(recipe, stage).count_rows(), stage
    # A kill may come so late that the command that closed the stage had nothing left to generate, and so no speed.
    measured = json.loads((recipe.folder / "roll_out" / "_stage.json").read_text())["counts"]["speed"]
    assert bool(costs["roll_out"].hours) == bool(measured)


def selected(recipe: Recipe) -> dict[str, list[int]]:
    """The tokens of the roll-ins by their ids."""
    rows = stage_table(recipe, "roll_in").read(["roll_in_id", "tokens"]).to_pylist()
    return {row["roll_in_id"]: row["tokens"] for row in rows}


SELECTED_BEFORE: dict[str, list[int]] = {}
"""Roll-ins of round 2 that were durable when it was killed."""


@pytest.fixture(scope="module")
def second_round(finished: tuple[Recipe, str]) -> tuple[Recipe, str]:
    """Round 2 of the finished run, killed while it searches for roll-ins, and then run to its end."""
    root, later = Path(finished[0].root), next_round(finished[0], 2)
    folder = later.folder / "roll_in"
    kill_when(lambda: bool(list(folder.glob("_parts/**/*.parquet"))), root, 0.0, "--rounds", "2")
    assert not (folder / "_stage.json").exists(), "round 2 was killed too late to show anything"
    SELECTED_BEFORE.update(selected(later))
    done = start(root, "--rounds", "2")
    output, _ = done.communicate(timeout=LIMIT_S)
    assert done.returncode == 0, output
    return later, output


@pytest.mark.timeout(900)
def test_a_killed_round_continues_and_trains_on_the_rows_of_both_rounds(
    finished: tuple[Recipe, str], second_round: tuple[Recipe, str]
) -> None:
    first, later = finished[0], second_round[0]
    splits = {row["problem_id"]: row["split"] for row in stage_table(first, "clean").read().to_pylist()}
    after = selected(later)
    assert len(SELECTED_BEFORE) > 0
    assert {name: after[name] for name in SELECTED_BEFORE} == SELECTED_BEFORE
    assert sorted(after) == sorted(
        roll_in_id(problem, "round-2", index)
        for problem, split in splits.items()
        if split != "test"
        for index in (0, 1)
    )
    ends = [row for row in stage_table(later, "roll_out").read().to_pylist() if row["roll_out_id"].endswith("/whole")]
    assert {row["roll_in_id"]: after[row["roll_in_id"]][row["cut"] :] for row in ends} == {
        row["roll_in_id"]: row["tokens"] for row in ends
    }
    assert {len(row["tokens"]) for row in ends} == {1}
    assert not (later.folder / "clean").exists()
    labels = stage_table(later, "label").read().to_pylist()
    sampled = [*ids(stage_table(first, "verify")), *ids(stage_table(later, "verify"))]
    assert sorted(row["roll_out_id"] for row in labels) == sorted(sampled)
    counts = json.loads((later.folder / "train" / "_stage.json").read_text())["counts"]["classes"]
    assert sum(counts.values()) == sum(row["split"] == "train" for row in labels)


@pytest.mark.timeout(900)
def test_the_table_of_rounds_is_printed_and_written(
    finished: tuple[Recipe, str], second_round: tuple[Recipe, str]
) -> None:
    rows = json.loads((finished[0].folder / "rounds.json").read_text())["rows"]
    assert {(row["round"], row["run"]) for row in rows} == {(1, "sandbox"), (2, "sandbox-round-2")}
    assert "round 2" in second_round[1]
    assert (finished[0].folder / "rounds.png").stat().st_size > 10_000
