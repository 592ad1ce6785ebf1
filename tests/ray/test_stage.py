"""Stages on disk: committed parts, the manifest, and a second run."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

from pipelines.cli import cli
from pipelines.recipes import sandbox
from pipelines.tables import parts, publish
from pipelines.tables.stage import Stage, open_stage
from pipelines.tables.stage_table import Displaced, StageTable, committed_ids, stage_table
from vgs_ray.config import Clean, Recipe
from vgs_ray.data.schemas import PROBLEMS
from vgs_ray.errors import UserError


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


def test_other_configuration_is_refused_with_the_field_and_both_remedies(recipe: Recipe) -> None:
    open_stage(recipe, "clean", ()).close(rows=3)
    other = replace(recipe, clean=replace(recipe.clean, limit=7))
    with pytest.raises(UserError, match=r"clean\.limit was 3000 and is now 7.*--run-name.*remove"):
        open_stage(other, "clean", ())


def test_interrupted_stage_of_another_configuration_is_refused(recipe: Recipe) -> None:
    open_stage(recipe, "clean", ())
    stage_table(recipe, "clean").write_part(problems("a"))
    with pytest.raises(UserError, match=r"clean\.source"):
        open_stage(replace(recipe, clean=Clean(source="other", limit=3000)), "clean", ())


def test_interrupted_stage_without_rows_may_start_with_another_configuration(recipe: Recipe) -> None:
    open_stage(recipe, "clean", ())
    assert open_stage(replace(recipe, clean=Clean(source="other", limit=3000)), "clean", ())
    open_stage(replace(recipe, clean=Clean(source="other", limit=3000)), "clean", ()).close(kept=0)
    with pytest.raises(UserError, match=r"clean\.source"):
        open_stage(recipe, "clean", ())


def test_changed_input_is_refused(recipe: Recipe) -> None:
    open_stage(recipe, "clean", ()).close(rows=0)
    open_stage(recipe, "roll_in", ("clean",)).close(rows=0)
    path = recipe.folder / "clean" / "_stage.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"identity": {"clean.limit": 1}}))
    with pytest.raises(UserError, match=r"inputs\.clean"):
        open_stage(recipe, "roll_in", ("clean",))


def test_parts_have_the_schema_and_a_retried_write_duplicates_no_row(recipe: Recipe) -> None:
    open_stage(recipe, "clean", ())
    parts = stage_table(recipe, "clean")
    parts.write_part(problems("a", "b"))
    parts.write_part(problems("a", "b"))  # a retried write of the same rows
    parts.write_part(problems("c"))
    assert parts.count_rows() == 3
    assert set(committed_ids(parts).to_pylist()) == {"a", "b", "c"}
    assert all(pq.read_schema(file).equals(PROBLEMS) for file in parts.files())


def test_wrong_columns_are_refused_and_leave_nothing(recipe: Recipe) -> None:
    open_stage(recipe, "clean", ())
    parts = stage_table(recipe, "clean")
    with pytest.raises(KeyError):
        parts.write_part(pa.table({"problem_id": ["a"]}))
    assert not list(parts.folder.glob("_parts/*"))


def test_interrupted_parts_are_kept_or_removed(recipe: Recipe) -> None:
    open_stage(recipe, "clean", ())
    parts = stage_table(recipe, "clean")
    parts.write_part(problems("a"))
    (parts.parts_folder / ".torn-1.parquet.0123.tmp").write_bytes(b"PAR1")
    open_stage(recipe, "clean", ())
    assert set(committed_ids(parts).to_pylist()) == {"a"}
    assert not list(parts.folder.glob("**/.torn*"))
    open_stage(recipe, "clean", (), keep_parts=False)
    assert parts.count_rows() == 0


def published(recipe: Recipe, *groups: str) -> StageTable:
    """A complete stage clean with one file for each group of ids."""
    stage, table = open_stage(recipe, "clean", ()), stage_table(recipe, "clean")
    assert stage is not None
    for ids in groups:
        table.write_part(problems(*ids))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(publish, "FILE_BYTES", 1)
        stage.publish(table, publish.in_this_process)
    stage.close(kept=sum(map(len, groups)))
    return table


def test_published_table_is_plain_parquet_and_has_no_parts(recipe: Recipe) -> None:
    table = published(recipe, "ab", "c")
    assert sorted(pads.dataset(table.folder).to_table()["problem_id"].to_pylist()) == ["a", "b", "c"]
    names = {path.name for path in table.folder.rglob("*")} - {"_stage.json", "_started.json", "_writer"}
    assert names == {"part-00000-of-00002.parquet", "part-00001-of-00002.parquet"}
    assert table.count_rows() == 3
    assert table.count_bytes() == sum(path.stat().st_size for path in table.files())


def test_an_id_in_two_parts_is_published_once(recipe: Recipe) -> None:
    ids = published(recipe, "ab", "bc", "cda").read(["problem_id"])["problem_id"].to_pylist()
    assert sorted(ids) == ["a", "b", "c", "d"]


def test_small_parts_are_published_together_in_the_order_of_their_ids(recipe: Recipe) -> None:
    """Readers by problem then open few row groups. The names of parts, which are hashes, would scatter the problems."""
    ids = [f"{number:04d}" for number in range(1024 * 3)]
    parts = [tuple(ids[begin : begin + 128]) for begin in range(0, len(ids), 128)]
    stage, table = open_stage(recipe, "clean", ()), stage_table(recipe, "clean")
    assert stage is not None
    for part in parts:
        table.write_part(problems(*part))
    stage.publish(table, publish.in_this_process)
    stage.close(kept=len(ids))
    assert table.read(["problem_id"])["problem_id"].to_pylist() == ids
    groups = pq.read_metadata(table.files()[0])
    assert [groups.row_group(index).num_rows for index in range(groups.num_row_groups)] == [1024] * 3


def test_a_file_that_is_removed_with_the_manifest_costs_its_own_rows_only(recipe: Recipe) -> None:
    table = published(recipe, "ab", "c", "def")
    first, *others = table.files()
    lost = set(pq.read_table(first)["problem_id"].to_pylist())
    first.unlink()
    (table.stage / "_stage.json").unlink()
    stage = open_stage(recipe, "clean", ())
    assert stage is not None
    assert set(committed_ids(table).to_pylist()) == set("abcdef") - lost
    table.write_part(problems(*lost))
    stage.publish(table, publish.in_this_process)
    stage.close(kept=6)
    assert sorted(table.read()["problem_id"].to_pylist()) == list("abcdef")
    assert not [file for file in others if file.exists() and file not in table.files()]


PUBLISH = """
import sys
from dataclasses import replace
from pipelines.recipes import sandbox
from pipelines.tables import publish
from pipelines.tables.stage_table import stage_table

publish.write_output(stage_table(replace(sandbox(), root=sys.argv[1]), "clean"), publish.Output("part", [], {}))
"""


def test_what_a_killed_publisher_left_is_removed(recipe: Recipe) -> None:
    """Ray repeats the task of a killed worker in the same command."""
    stage, table = open_stage(recipe, "clean", ()), stage_table(recipe, "clean")
    assert stage is not None
    table.write_part(problems("a"))
    environment = os.environ | {"VGS_FAILPOINTS": "file.before_rename=kill", "PYTHONPATH": os.getcwd()}
    killed = subprocess.run([sys.executable, "-c", PUBLISH, recipe.root], env=environment)
    assert killed.returncode == -signal.SIGKILL
    assert list(table.folder.glob(".part.*.tmp"))
    stage.publish(table, publish.in_this_process)
    stage.close(kept=1)
    assert {path.name for path in table.folder.iterdir()} == {
        "part-00000-of-00001.parquet",
        "_stage.json",
        "_started.json",
        "_writer",
    }


def test_rows_are_counted_with_one_listing(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """The progress bar counts again and again, and an object store charges for each request."""
    table, listings = stage_table(recipe, "clean"), []
    table.write_part(problems("a", "b"))
    list_files = parts.list_files
    monkeypatch.setattr(parts, "list_files", lambda folder: listings.append(folder) or list_files(folder))
    assert table.count_rows() == 2
    assert len(listings) == 1


def test_a_command_that_lost_its_table_cannot_publish_it(recipe: Recipe) -> None:
    """Its manifest would otherwise replace the one of the new owner."""
    stage, table = open_stage(recipe, "clean", ()), stage_table(recipe, "clean").claim()
    assert stage is not None
    table.write_part(problems("a"))
    done = [publish.publish(table, publish.in_this_process)]
    late = Stage(stage.name, stage.folder, stage.started, stage.description, published=done)
    published(recipe, "bc")
    before = (table.stage / "_stage.json").read_bytes()
    for act in (lambda: stage.publish(table, publish.in_this_process), lambda: late.close(kept=1)):
        with pytest.raises(Displaced):
            act()
    assert (table.stage / "_stage.json").read_bytes() == before
    assert table.count_rows() == 3


@pytest.fixture
def tiny_disk(tmp_path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)], capture_output=True).returncode:
        pytest.skip("a file system of 64 KiB can't be mounted here (needs root)")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_stage_does_not_begin_on_a_full_disk(recipe: Recipe, tiny_disk: Path) -> None:
    with pytest.raises(UserError, match=r"0 MiB free; a stage needs at least 64 MiB.*--root"):
        open_stage(replace(recipe, root=str(tiny_disk)), "clean", ())


def test_disk_that_fills_up_leaves_no_partial_part_and_one_error_line(
    recipe: Recipe, tiny_disk: Path, monkeypatch, capsys
) -> None:
    parts = stage_table(replace(recipe, root=str(tiny_disk)), "clean")
    parts.folder.mkdir(parents=True)
    noise = problems(*(secrets.token_hex(64) for _ in range(4000)))

    def fill(_: Recipe) -> None:
        parts.write_part(noise)

    monkeypatch.setattr("sys.argv", ["pipelines.clean", "sandbox", "--root", recipe.root])
    with pytest.raises(SystemExit) as stop:
        cli(fill, "pipelines.clean")
    assert stop.value.code == 2
    assert "no space left" in capsys.readouterr().err
    assert not [path for path in parts.folder.rglob("*") if path.is_file()]


def test_interrupt_says_how_to_continue(recipe: Recipe, monkeypatch, capsys) -> None:
    def interrupted(_: Recipe) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sys.argv", ["pipelines.clean", "sandbox", "--root", recipe.root])
    with pytest.raises(SystemExit) as stop:
        cli(interrupted, "pipelines.clean")
    assert stop.value.code == 130
    assert "run the same command to continue" in capsys.readouterr().err


def test_second_writer_waits_for_the_first(recipe: Recipe) -> None:
    hold = (
        "import sys, time; from pipelines.cli import parse; from pipelines.tables import lease, stage; lease.POLL_S = 0.1\n"
        "with stage.only_writer(parse('x', sys.argv[1:])): print('held', flush=True); time.sleep(600)"
    )
    holder = subprocess.Popen([sys.executable, "-c", hold, "sandbox", "--root", recipe.root], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    waiter = subprocess.Popen(
        [sys.executable, "-c", hold, "sandbox", "--root", recipe.root], stdout=subprocess.PIPE, text=True
    )
    assert waiter.stdout is not None
    assert f"process {holder.pid} on {socket.gethostname()} is working on" in waiter.stdout.readline()
    holder.kill()
    holder.wait()
    assert waiter.stdout.readline() == "held\n"
    waiter.kill()
    waiter.wait()
