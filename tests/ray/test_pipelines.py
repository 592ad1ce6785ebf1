"""The main job end to end through its command line: real Ray, real vLLM, real Parquet, on a disk and on an S3 server.

Both runs are killed with SIGKILL and continued. Of the one on the server, a worker and the server itself are killed too, and one
request in 20 fails. The local one begins before the first test (see `early_work`).
"""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
from early import EARLY
from flaky_proxy import FlakyProxy, flaky_proxy
from ray_processes import workers
from s3_server import BUCKET, S3Server, reach
from whole_run import COMPARED, LEFT, LIMIT_S, SMALL, Run, finish, has_file, kill, recipe_in, rows, start, wait

from pipelines.plan import plan
from pipelines.recipes.rounds import next_round
from pipelines.roll_in import assign_generators
from pipelines.serving.ingress import free_ports
from pipelines.tables.stage import summary_line
from pipelines.tables.stage_table import LAYOUT, StageTable, stage_table
from vgs_ray.config import Recipe
from vgs_ray.data.ids import roll_in_id, roll_out_id
from vgs_ray.data.storage import list_files

pytestmark = pytest.mark.timeout(2400)  # the first test waits for both runs
ONE_REPLICA = ("--roll-out.resources.replicas", "1", "--evaluate.resources.replicas", "1")
OUTAGE_S = 2.0


class Local(NamedTuple):
    """A run of two rounds on a disk, which was killed while it cleaned, and while it searched for roll-ins in round 2.

    Attributes:
        selected_before: roll-ins of round 2 that were durable then.
    """

    recipe: Recipe
    later: Recipe
    selected_before: dict[str, list[int]]
    output: str


class Remote(NamedTuple):
    """A run on the S3 server, which was killed in three stages.

    Attributes:
        searched_before: trees of the searches that were durable when stage `evaluate` was killed.
    """

    recipe: Recipe
    searched_before: dict[str, str]
    output: str
    proxy: FlakyProxy


@pytest.fixture(scope="module")
def local(remote: Remote) -> Local:  # so that the run on the server does not wait for the local one
    return EARLY.result(__name__)


@pytest.fixture(scope="module")
def remote(no_session: None, s3: S3Server) -> Iterator[Remote]:
    [port] = free_ports(1)
    with flaky_proxy(s3.endpoint, port) as proxy, reach(f"http://127.0.0.1:{port}"):
        yield run_on_s3(f"s3://{BUCKET}/runs", s3, proxy)


def starter(root: object, *extra: str, environment: Mapping[str, str] | None = None) -> Callable[[], Run]:
    """Starts the command of a run, each time with the same port for its endpoint."""
    [port] = free_ports(1)
    return partial(start, root, *ONE_REPLICA, "--serve.port", str(port), *extra, environment=environment)


def early_work(root: Path, environment: Mapping[str, str]) -> Local:
    """The local run. It takes as long as the one on the server, and most of its time goes into starts."""
    recipe = recipe_in(root)
    later = next_round(recipe, 2)
    started = starter(root, "--rounds", "2", environment=environment)
    run = started()
    wait(has_file(recipe, "clean", "_started.json"), run)
    kill(run, recipe, "clean")
    run = started()
    wait(has_file(later, "roll_in", "_parts/", ".parquet"), run)
    kill(run, later, "roll_in")
    before = selected(later)
    return Local(recipe, later, before, finish(started()))


def run_on_s3(root: str, s3: S3Server, proxy: FlakyProxy) -> Remote:
    recipe = recipe_in(root)
    started = starter(root)
    run = started()
    wait(has_file(recipe, "roll_in", "_parts/.attempts"), run)  # an actor has begun its block
    wait(lambda: workers(run.pid, "SamplingActor"), run)[0].kill()
    wait(has_file(recipe, "roll_in", "_parts/", ".parquet"), run)
    with s3.outage(OUTAGE_S):
        assert run.poll() is None
    wait(has_file(recipe, "roll_out", "_parts/", ".parquet"), run)
    kill(run, recipe, "roll_out")
    run = started()
    wait(has_file(recipe, "train", "checkpoints/step-"), run)
    kill(run, recipe, "train")
    run = started()
    wait(has_file(recipe, "evaluate", "_parts/", ".parquet"), run)
    kill(run, recipe, "evaluate")
    before = trees(recipe)
    return Remote(recipe, before, finish(started()), proxy)


@pytest.mark.parametrize("stage", COMPARED)
def test_the_killed_run_on_s3_has_the_tables_of_the_local_run(local: Local, remote: Remote, stage: str) -> None:
    found, expected = rows(remote.recipe, stage), rows(local.recipe, stage)
    assert len(found) == len(expected) > 0
    for name in COMPARED[stage]:
        assert found[name].to_pylist() == expected[name].to_pylist(), name


def test_the_run_on_s3_is_complete_and_leaves_no_parts(remote: Remote) -> None:
    names = list_files(remote.recipe.folder)
    assert {name.partition("/")[0] for name in names if name.endswith("_stage.json")} == set(remote.recipe.stages)
    assert not [name for name in names if any(each in name for each in LEFT)]
    assert {"evaluate/report.json", "evaluate/report.md", "train/value_model/config.json"} <= set(names)
    assert remote.proxy.failed["down"] > 0
    assert remote.proxy.failed.total() - remote.proxy.failed["down"] > 10


def test_every_table_opens_and_matches_its_schema(local: Local, remote: Remote) -> None:
    for recipe in (local.recipe, local.later, remote.recipe):
        for stage in LAYOUT.keys() & {*recipe.stages, "dropped"} - {*recipe.base_stages}:
            parts = stage_table(recipe, stage)
            table = parts.read()
            assert table.num_rows > 0, stage
            assert table.schema.equals(parts.schema), stage
            assert len(set(table[parts.key].to_pylist())) == table.num_rows, f"{stage} has a doubled id"


def trees(recipe: Recipe) -> dict[str, str]:
    found = stage_table(recipe, "evaluate").read(["search_id", "tree", "seconds"]).to_pylist()
    return {row["search_id"]: f"{row['seconds']} {row['tree']}" for row in found}


def test_a_search_that_was_durable_is_not_done_again(remote: Remote) -> None:
    before, after = remote.searched_before, trees(remote.recipe)
    assert 0 < len(before) < len(after) == 2 * 8
    assert {name: after[name] for name in before} == before


def ids(parts: StageTable) -> list[str]:
    return sorted(parts.read([parts.key])[parts.key].to_pylist())


def test_the_runs_have_exactly_the_ids_that_exist_before_generation(local: Local) -> None:
    recipe = local.recipe
    splits = {row["problem_id"]: row["split"] for row in stage_table(recipe, "clean").read().to_pylist()}
    assert Counter(splits.values()) == {"train": 139 - 23, "validation": 13, "test": 10}
    problems = sorted(problem for problem, split in splits.items() if split != "test")
    places = assign_generators(recipe.roll_in.generators, recipe.roll_in.per_problem)
    roll_ins = sorted(roll_in_id(problem, place.name, i) for problem in problems for i, place in enumerate(places))
    assert ids(stage_table(recipe, "roll_in")) == roll_ins
    cuts = [*range(recipe.roll_out.cuts), "whole"]
    roll_outs = sorted(roll_out_id(roll_in, cut) for roll_in in roll_ins for cut in cuts)
    assert ids(stage_table(recipe, "roll_out")) == roll_outs
    assert ids(stage_table(recipe, "verify")) == roll_outs
    assert ids(stage_table(recipe, "label")) == roll_outs


def test_report_follows_the_contract(local: Local) -> None:
    recipe, output = local.recipe, local.output
    report = json.loads((recipe.folder / "evaluate" / "report.json").read_text())
    columns = {
        "benchmark", "method", "budget", "accuracy", "low", "high", "problems", "samples", "generated_tokens",
        "prefilled_tokens", "scored_tokens", "flops", "seconds",
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


def test_stored_trees_give_the_same_report(local: Local) -> None:
    recipe = local.recipe
    names = ("report.json", "report.csv", "report.md", "report.tex", "accuracy_vs_flops.pdf", "calibration.png")
    files = [recipe.folder / "evaluate" / name for name in names]
    before = [file.read_bytes() for file in files]
    for file in files:
        file.unlink()
    command = [sys.executable, "-m", "pipelines.evaluate", "sandbox", "--root", recipe.root, "--from-trees", *SMALL]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT_S)
    assert done.returncode == 0, done.stderr
    assert [file.read_bytes() for file in files] == before


def test_served_search_answers_the_question(local: Local, remote: Remote) -> None:
    for output in (local.output, remote.output):
        assert "\nanswer " in output, output[-2000:]
        assert "\ncost " in output, output[-2000:]


def test_manifests_have_counts_and_versions(local: Local) -> None:
    recipe, output = local.recipe, local.output
    for stage in ("clean", "roll_in", "roll_out", "verify", "label", "train", "evaluate"):
        manifest = json.loads((recipe.folder / stage / "_stage.json").read_text())
        assert manifest["stage"] == stage
        assert manifest["versions"]["ray"]
        assert manifest["counts"]
        assert summary_line(manifest).split()[0] == stage
        assert stage in output


def test_training_takes_every_label_of_its_split(local: Local) -> None:
    recipe, output = local.recipe, local.output
    counts = json.loads((recipe.folder / "train" / "_stage.json").read_text())["counts"]
    labels = stage_table(recipe, "label").read(["split", "label"]).to_pylist()
    wanted = Counter(row["label"] for row in labels if row["split"] == "train")
    assert list(counts["classes"].values()) == [wanted[0], wanted[1], wanted[2]]
    assert min(counts["classes"].values()) > 0
    assert counts["too_long"] == {"cut": 0, "left_out": 0}
    assert f"classes: incorrect {wanted[0]}, correct {wanted[1]}, incomplete {wanted[2]}" in output


def test_second_run_with_another_configuration_is_refused(local: Local) -> None:
    recipe = local.recipe
    again = start(recipe.root, "--train.lr", "0.5")
    output, _ = again.communicate(timeout=LIMIT_S)
    assert again.returncode == 2
    assert "lr was 0.001 and is now 0.5" in output
    assert "--run-name" in output


def test_plan_has_the_rows_of_the_run(local: Local) -> None:
    recipe = local.recipe
    costs = {cost.stage: cost for cost in plan(recipe)[0]}
    for stage in ("clean", "roll_in", "roll_out", "verify", "label", "evaluate"):
        assert costs[stage].rows == stage_table(recipe, stage).count_rows(), stage
    assert costs["roll_out"].hours


def selected(recipe: Recipe) -> dict[str, list[int]]:
    """The tokens of the roll-ins by their ids."""
    rows = stage_table(recipe, "roll_in").read(["roll_in_id", "tokens"]).to_pylist()
    return {row["roll_in_id"]: row["tokens"] for row in rows}


def test_a_killed_round_continues_and_trains_on_the_rows_of_both_rounds(local: Local) -> None:
    first, later, before = local.recipe, local.later, local.selected_before
    splits = {row["problem_id"]: row["split"] for row in stage_table(first, "clean").read().to_pylist()}
    after = selected(later)
    assert len(before) > 0
    assert {name: after[name] for name in before} == before
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


def test_the_table_of_rounds_is_printed_and_written(local: Local) -> None:
    rows = json.loads((local.recipe.folder / "rounds.json").read_text())["rows"]
    assert {(row["round"], row["run"]) for row in rows} == {(1, "sandbox"), (2, "sandbox-round-2")}
    assert "round 2" in local.output
    assert (local.recipe.folder / "rounds.png").stat().st_size > 10_000
