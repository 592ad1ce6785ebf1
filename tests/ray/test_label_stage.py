"""Stage label on tables whose problems are spread over many parts: labels equal those computed directly."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import ray
from hypothesis import given
from hypothesis import strategies as st
from made_up_run import CUTS, PROBLEMS, ROLL_INS, rows_of_run, write_run

from pipelines import label
from pipelines.tables.by_problem import ProblemGroups
from pipelines.tables.stage_table import stage_table
from pipelines.tables.tasks import map_items, write_dataset
from vgs_ray.config import Label
from vgs_ray.data import schemas
from vgs_ray.data.order import by_locality
from vgs_ray.errors import UserError
from vgs_ray.labels.outcomes import OUTCOME_CLASSES, hopeless_problems, keeps_hopeless, outcome_labels
from vgs_ray.labels.token_values import token_values
from vgs_ray.prompts import delimiter_tokens, load_tokenizer
from vgs_ray.sandbox import policy_path

pytestmark = pytest.mark.usefixtures("local_ray")


def labels_of(root: Path, config: Label) -> dict[str, dict[str, object]]:
    recipe = write_run(root, config)
    label.run(recipe)
    table = stage_table(recipe, "label").read()
    assert table.schema.equals(schemas.LABELS)
    rows = {row["roll_out_id"]: row for row in table.to_pylist()}
    assert len(rows) == table.num_rows
    return rows


def by_id(name: str, key: str) -> dict[str, dict[str, object]]:
    return {row[key]: row for row in rows_of_run()[name]}


def test_outcome_labels_leave_out_unknown_and_hopeless(tmp_path: Path, capsys) -> None:
    found = labels_of(tmp_path, Label(hopeless_share=0.0))
    verified, problems = by_id("verify", "roll_out_id"), by_id("clean", "problem_id")
    solved = {row["problem_id"] for row in verified.values() if row["outcome"] == "correct"}
    expected = {i for i, row in verified.items() if row["outcome"] != "unknown" and row["problem_id"] in solved}
    assert set(found) == expected
    assert len(solved) < PROBLEMS
    roll_outs = by_id("roll_out", "roll_out_id")
    for identity, row in found.items():
        assert row["label"] == OUTCOME_CLASSES[str(verified[identity]["outcome"])]
        assert row["split"] == problems[str(row["problem_id"])]["split"]
        assert (row["cut"], row["roll_in_id"]) == (roll_outs[identity]["cut"], roll_outs[identity]["roll_in_id"])
        assert row["values"] is None
    unknown = sum(row["outcome"] == "unknown" for row in verified.values())
    assert f"unknown {unknown}" in capsys.readouterr().out


def test_a_share_of_the_hopeless_problems_is_kept(tmp_path: Path) -> None:
    verified = by_id("verify", "roll_out_id")
    known = {i for i, row in verified.items() if row["outcome"] != "unknown"}
    assert set(labels_of(tmp_path / "all", Label(hopeless_share=1.0))) == known
    half = {str(row["problem_id"]) for row in labels_of(tmp_path / "half", Label(hopeless_share=0.5)).values()}
    solved = {str(row["problem_id"]) for row in verified.values() if row["outcome"] == "correct"}
    hopeless = {str(row["problem_id"]) for row in verified.values()} - solved
    assert half - solved == {problem for problem in hopeless if keeps_hopeless(problem, 0.5)}
    assert half >= solved


def test_token_values_equal_those_computed_from_the_paths(tmp_path: Path) -> None:
    found = labels_of(tmp_path, Label(kind="token_values", hopeless_share=1.0))
    roll_outs, roll_ins = by_id("roll_out", "roll_out_id"), by_id("roll_in", "roll_in_id")
    for problem in {row["problem_id"] for row in found.values()}:
        rows = [row for row in found.values() if row["problem_id"] == problem]
        outs = [roll_outs[str(row["roll_out_id"])] for row in rows]
        paths = [[*roll_ins[out["roll_in_id"]]["tokens"][: out["cut"]], *out["tokens"]] for out in outs]
        values = token_values(paths, [row["label"] == 1 for row in rows])
        for row, out, expected in zip(rows, outs, values, strict=True):
            assert row["values"] == pytest.approx(expected[out["cut"] :].tolist(), abs=1e-6)


@pytest.mark.parametrize("kind", ["outcome_values", "step_values"])
def test_targets_of_the_baselines_are_in_the_table(tmp_path: Path, kind: str) -> None:
    delimiter = "3"  # the token 100 of the sandbox is "93"
    found = labels_of(tmp_path, Label(kind=kind, hopeless_share=1.0, delimiter=delimiter))
    ends = delimiter_tokens(load_tokenizer(str(policy_path("ref"))), delimiter)
    tvm = labels_of(tmp_path / "tvm", Label(kind="token_values", hopeless_share=1.0))
    for identity, row in found.items():
        tokens, values = by_id("roll_out", "roll_out_id")[identity]["tokens"], np.array(row["values"])
        if kind == "outcome_values":
            assert (values == (row["label"] == 1)).all()
            continue
        targets = np.isin(tokens, ends) | (np.arange(len(tokens)) == len(tokens) - 1)
        assert (np.isfinite(values) == targets).all()
        assert values[targets].tolist() == np.array(tvm[identity]["values"])[targets].tolist()


def test_only_the_first_paths_are_used(tmp_path: Path, capsys) -> None:
    found = labels_of(tmp_path, Label(kind="token_values", hopeless_share=1.0, paths=2))
    used = {i for i, row in by_id("verify", "roll_out_id").items() if int(i.split("/")[2]) < 2}
    unknown = {i for i in used if by_id("verify", "roll_out_id")[i]["outcome"] == "unknown"}
    assert set(found) == used - unknown
    assert f"left_out: other_paths {PROBLEMS * 2 * CUTS}, unknown {len(unknown)}, hopeless 0" in capsys.readouterr().out


def test_a_delimiter_that_no_token_has_is_refused(tmp_path: Path) -> None:
    recipe = write_run(tmp_path, Label(kind="step_values", delimiter="no such step"))
    with pytest.raises(UserError, match=r"label\.delimiter can't be used: no token ends with"):
        label.run(recipe)


def test_batches_hold_whole_problems_and_every_row(tmp_path: Path) -> None:
    recipe = write_run(tmp_path, Label())
    tables = {name: stage_table(recipe, name) for name in ("roll_out", "roll_in")}
    batches = ProblemGroups.scan(tables.values()).batches(max_rows=50)
    assert len(batches) > 3
    read = [batch.read_rows(tables["roll_out"], ["problem_id"])["problem_id"].to_pylist() for batch in batches]
    assert all(len(rows) == ROLL_INS * CUTS * len(set(rows)) <= 50 for rows in read)
    assert sum(map(len, read)) == PROBLEMS * ROLL_INS * CUTS
    assert sum(len(batch.read_rows(tables["roll_in"], ["seed"])) for batch in batches) == PROBLEMS * ROLL_INS


def test_all_cpus_make_and_commit_labels_at_the_same_time(tmp_path: Path) -> None:
    """Each task waits for as many tasks as there are CPUs."""
    count = int(ray.cluster_resources()["CPU"])
    started, committed = tmp_path / "started", tmp_path / "committed"

    def work(item: dict[str, int]) -> pa.Table:
        started.mkdir(exist_ok=True)
        (started / str(item["number"])).touch()
        end = time.monotonic() + 30
        while (at_once := len(list(started.iterdir()))) < count and time.monotonic() < end:
            time.sleep(0.05)
        return pa.table({"at_once": [at_once]})

    def commit(rows: pa.Table) -> None:
        with committed.open("a") as file:
            file.writelines(f"{number}\n" for number in rows["at_once"].to_pylist())

    write_dataset(map_items([{"number": number} for number in range(count)], work), commit, cpus=1.0)
    assert committed.read_text().split() == [str(count)] * count


def test_wrong_share_is_refused(tmp_path: Path) -> None:
    recipe = write_run(tmp_path, Label())
    with pytest.raises(UserError, match=r"label\.hopeless_share is 2; it must be less than or equal to 1"):
        label.run(replace(recipe, label=Label(hopeless_share=2)))
    with pytest.raises(ValueError, match="hopeless_share is -1"):
        keeps_hopeless("a", -1)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["incorrect", "correct", "incomplete", "unknown"]))))
def test_column_functions_agree_with_a_count(rows: list[tuple[str, str]]) -> None:
    problems = pa.chunked_array([[problem for problem, _ in rows]], pa.string())
    labels = outcome_labels(pa.chunked_array([[outcome for _, outcome in rows]], pa.string()))
    assert labels.to_pylist() == [OUTCOME_CLASSES.get(outcome) for _, outcome in rows]
    solved = {problem for problem, outcome in rows if outcome == "correct"}
    assert set(hopeless_problems(problems, labels).to_pylist()) == {problem for problem, _ in rows} - solved


def test_about_the_given_share_of_problems_is_kept() -> None:
    kept = [keeps_hopeless(str(index), 0.3) for index in range(4000)]
    assert 0.27 < np.mean(kept) < 0.33
    assert all(keeps_hopeless(str(index), 0.6) for index in range(4000) if kept[index])  # a larger share keeps the same


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 8)), min_size=1))
def test_locality_order_has_every_problem_once(pairs: list[tuple[int, int]]) -> None:
    problems, codes = np.unique([problem for problem, _ in pairs], return_inverse=True)
    order = by_locality(codes, np.array([file for _, file in pairs]))
    assert sorted(order.tolist()) == list(range(len(problems)))


def test_neighbours_in_the_locality_order_share_files() -> None:
    draw, count, each = np.random.default_rng(0), 2000, 10
    place = draw.permutation(count)  # ids and file names say nothing of the order in which rows were written
    names = draw.permutation(2 * count // each + 1)
    files = np.stack([names[place // each], names[count // each + (place + 5) // each]])  # two files for each problem
    order = by_locality(np.tile(np.arange(count), 2), files.ravel())
    opened = [len(np.unique(files[:, order[start : start + 40]])) for start in range(0, count, 40)]
    assert np.mean(opened) < 16  # 40 neighbours need 9 files; 40 problems at random about 73
