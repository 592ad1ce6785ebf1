"""Stages on disk: durable parts, the manifest, and what happens on a second run."""

import json
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.recipes import sandbox
from pipelines.stage import UserError, open_stage
from pipelines.tables import done_keys, parts_of
from vgs_ray.config import Clean, Recipe
from vgs_ray.schemas import PROBLEMS


@pytest.fixture
def recipe(tmp_path) -> Recipe:
    return replace(sandbox(), root=str(tmp_path))


def problems(*ids: str) -> pa.Table:
    rows = [{"problem_id": i, "problem": "p", "answer": "1", "split": "train"} for i in ids]
    return pa.Table.from_pylist(rows, schema=PROBLEMS)


def test_finished_stage_is_skipped(recipe: Recipe, capsys) -> None:
    stage = open_stage(recipe, "clean", ())
    stage.close(rows=3)
    assert open_stage(recipe, "clean", ()) is None
    assert "skipped" in capsys.readouterr().out


def test_other_configuration_is_refused_with_the_field_and_two_ways_on(recipe: Recipe) -> None:
    open_stage(recipe, "clean", ()).close(rows=3)
    other = replace(recipe, clean=replace(recipe.clean, limit=7))
    with pytest.raises(UserError, match=r"config\.limit was 4000 and is now 7.*--run-name.*remove"):
        open_stage(other, "clean", ())


def test_interrupted_stage_of_another_configuration_is_refused(recipe: Recipe) -> None:
    open_stage(recipe, "clean", ())
    with pytest.raises(UserError, match=r"config\.source"):
        open_stage(replace(recipe, clean=Clean(source="other", limit=4000)), "clean", ())


def test_changed_input_is_refused(recipe: Recipe) -> None:
    open_stage(recipe, "clean", ()).close(rows=3)
    open_stage(recipe, "roll_in", ("clean",)).close(rows=3)
    path = recipe.folder / "clean" / "_stage.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"config": {"limit": 1}}))
    with pytest.raises(UserError, match=r"inputs\.clean"):
        open_stage(recipe, "roll_in", ("clean",))


def test_parts_are_whole_typed_and_never_doubled(recipe: Recipe) -> None:
    open_stage(recipe, "clean", ())
    parts = parts_of(recipe, "clean")
    parts.write(problems("a", "b"))
    parts.write(problems("a", "b"))  # a retried write of the same rows
    parts.write(problems("c"))
    assert parts.rows() == 3
    assert done_keys(parts) == {"a", "b", "c"}
    assert all(pq.read_schema(file).equals(PROBLEMS) for file in parts.files())


def test_wrong_columns_are_refused_and_leave_nothing(recipe: Recipe) -> None:
    open_stage(recipe, "clean", ())
    parts = parts_of(recipe, "clean")
    with pytest.raises(KeyError):
        parts.write(pa.table({"problem_id": ["a"]}))
    assert not list(parts.folder.glob("*part-*"))


def test_interrupted_parts_stay_or_go(recipe: Recipe) -> None:
    open_stage(recipe, "clean", ())
    parts = parts_of(recipe, "clean")
    parts.write(problems("a"))
    (parts.folder / ".part-torn.parquet.1").write_bytes(b"PAR1")
    open_stage(recipe, "clean", ())
    assert done_keys(parts) == {"a"}
    assert not list(parts.folder.glob(".part-*"))
    open_stage(recipe, "clean", (), keep_parts=False)
    assert parts.rows() == 0


def test_lookup_reads_the_wanted_rows(recipe: Recipe) -> None:
    open_stage(recipe, "clean", ())
    parts = parts_of(recipe, "clean")
    parts.write(problems("a", "b"))
    parts.write(problems("c"))
    assert parts.lookup(["c", "a", "a"], ["answer"]) == {
        "a": {"problem_id": "a", "answer": "1"},
        "c": {"problem_id": "c", "answer": "1"},
    }
