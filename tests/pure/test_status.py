"""python -m pipelines.status: what it tells of stages in any state, on a disk and on an S3 server, and what it reads for that."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from made_up_run import write_run
from s3_server import BUCKET, reach, s3_server
from upath import UPath

from pipelines import status
from pipelines.cli import cli
from pipelines.recipes import sandbox
from pipelines.run_status import SILENT_S
from pipelines.tables.lease import this_process
from pipelines.tables.progress_record import Work, begin_record, read_record
from pipelines.tables.stage_table import stage_table
from vgs_ray.config import Label, Recipe
from vgs_ray.data.files import make_folder
from vgs_ray.data.storage import storage_path

PARTS = 27_000
WORK = """
import sys, time
sys.path.insert(0, {support!r})
import pyarrow as pa
from made_up_run import rows_of_run
from pipelines.tables.lease import this_process
from pipelines.tables.progress_record import begin_record
from pipelines.tables.stage import locked, open_stage
from pipelines.tables.stage_table import stage_table
from test_status import recipe_in

recipe = recipe_in({root!r})
rows = rows_of_run(0)["verify"]
with locked(recipe.folder):
    open_stage(recipe, "verify", ("clean", "roll_in", "roll_out"))
    out = stage_table(recipe, "verify").claim()
    record = begin_record(out.stage, "row", len(rows), this_process(), 0, time.time())
    for at in range(0, 60, 20):
        out.write_part(pa.Table.from_pylist(rows[at : at + 20], schema=out.schema))
        record.advance(time.time(), at + 20, record.work)
        record.mark()
    record.write(out.stage)
    print("running", flush=True)
    sys.stdin.readline()
    out.write_part(pa.Table.from_pylist(rows[60:67], schema=out.schema))
    print("more", flush=True)
    time.sleep(600)
"""


def recipe_in(root: UPath | str) -> Recipe:
    return replace(sandbox(), root=str(root), label=Label())


def shown(capsys: pytest.CaptureFixture[str], root: object, *options: str, code: int = 0) -> str:
    """What the command prints."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["status", "sandbox", "--root", str(root), *options])
        with pytest.raises(SystemExit, match=str(code)) if code else nullcontext():
            cli(status.run, "pipelines.status", writes=False, flags=status.Flags())
    printed = capsys.readouterr()
    return printed.err if code else printed.out


def stages(capsys: pytest.CaptureFixture[str], root: object) -> dict[str, dict[str, Any]]:
    return {each["stage"]: each for each in json.loads(shown(capsys, root, "--json").splitlines()[-1])["stages"]}


def run_without(stage: str, root: UPath) -> Recipe:
    """A run whose stage is not begun."""
    recipe = write_run(root, Label())
    for name in ("_stage.json", "_started.json"):
        (recipe.stage_folder(stage) / name).unlink()
    for file in recipe.stage_folder(stage).glob("*.parquet"):
        file.unlink()
    return recipe


def begun(recipe: Recipe, stage: str = "roll_out", ago: float = 0.0, **owner: str) -> None:
    """A record of this process, or of another one, that made 300 of 1,000 rows in an hour on 2 GPUs."""
    folder, start = recipe.stage_folder(stage), time.time() - ago - 3600
    make_folder(folder)
    record = begin_record(folder, "row", 1000, this_process() | owner, 0, start)
    for minute in range(61):
        work = Work(2, 2.0, 8, 1, {"prefix has N tokens": minute // 10}, {"generated": minute * 60_000})
        record.advance(start + minute * 60, minute * 5, work)
        record.mark()
    record.write(folder)


def test_a_fresh_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "sandbox").mkdir()
    text = shown(capsys, tmp_path)
    assert text.count("not started") == 7
    assert {each["state"] for each in stages(capsys, tmp_path).values()} == {"not started"}


@pytest.mark.parametrize(("options", "named"), [([], "--root"), (["--run-name", "other"], "--run-name")])
def test_a_run_that_does_not_exist_is_one_line(
    any_root: UPath, options: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = shown(capsys, any_root, *options, code=2)
    assert text.startswith(f"error: {any_root}/")
    assert "does not exist" in text
    assert named in text
    assert text.count("\n") == 1


def test_a_wrong_recipe_or_price_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.status", "sandbocks"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: recipe 'sandbocks' does not exist; it must be one of: sandbox, ")
    assert done.stderr.count("\n") == 1
    (tmp_path / "sandbox").mkdir()
    assert "price_per_gpu_hour is -1" in shown(capsys, tmp_path, "--price-per-gpu-hour", "-1", code=2)


def test_complete_stages_have_the_rows_of_their_tables(any_root: UPath, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = write_run(any_root, Label())
    found = stages(capsys, any_root)
    for stage in ("clean", "roll_in", "roll_out", "verify"):
        assert found[stage]["state"] == "complete"
        assert found[stage]["rows"] == found[stage]["expected"] == stage_table(recipe, stage).count_rows() > 0
    assert {found[stage]["state"] for stage in ("label", "train", "evaluate")} == {"not started"}


def test_a_running_stage_has_its_rates_failures_cost_and_time_left(
    any_root: UPath, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = recipe_in(any_root)
    begun(recipe, machine="another")
    stage = stages(capsys, any_root)["roll_out"]
    assert (stage["state"], stage["rows"], stage["expected"]) == ("running", 300, 1000)
    assert stage["rates"] == {name: pytest.approx(5 / 60) for name in ("10 min", "1 h", "24 h", "all")}
    assert stage["history"] == [pytest.approx(5 / 60)] * 12
    assert stage["left_s"] == pytest.approx(700 * 12)
    assert (stage["errors"], stage["restarts"], stage["replicas"]) == ({"prefix has N tokens": 6}, 1, 2)
    assert stage["tokens_per_s"] == pytest.approx(1000)
    assert stage["gpu_hours"] == pytest.approx(2.0, rel=0.02)
    text = shown(capsys, any_root, "--price-per-gpu-hour", "3")
    row = next(line.split() for line in text.splitlines() if line.startswith("roll_out "))
    assert row == ["roll_out", "running", "300/1,000", "30%", "5", "2.00%", "2", "60", "min", "2.0", "6.00", "2.3", "h"]
    assert "cost" not in shown(capsys, any_root)
    assert "per min   10 min 5, 1 h 5, 24 h 5, all 5" in text
    assert "failed 6   prefix has N tokens: 6" in text
    assert max(map(len, text.splitlines())) <= status.COLUMNS


@pytest.mark.parametrize(("ago", "state"), [(SILENT_S / 2, "running"), (2 * SILENT_S, "dead")])
def test_a_silent_command_on_another_machine_is_dead(
    ago: float, state: str, any_root: UPath, capsys: pytest.CaptureFixture[str]
) -> None:
    begun(recipe_in(any_root), ago=ago, machine="another")
    assert stages(capsys, any_root)["roll_out"]["state"] == state


def test_a_command_that_stopped_in_order_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = recipe_in(tmp_path)
    begun(recipe)
    folder = recipe.stage_folder("roll_out")
    record = read_record(folder)
    assert record
    record.ended = "interrupted"
    record.write(folder)
    assert stages(capsys, tmp_path)["roll_out"]["state"] == "stopped"
    assert "stopped at" in (text := shown(capsys, tmp_path))
    assert "interrupted" in text


@pytest.mark.timeout(120)
def test_a_killed_command_is_dead_and_its_last_rows_count(any_root: UPath, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = run_without("verify", any_root)
    code = WORK.format(support=str(Path(__file__).parents[1] / "support"), root=str(any_root))
    path = os.pathsep.join([str(Path(__file__).parents[2]), str(Path(__file__).parent)])
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": path},
    )  # fmt: skip
    assert process.stdin
    assert process.stdout
    assert process.stdout.readline() == "running\n"
    stage = stages(capsys, any_root)["verify"]
    assert (stage["state"], stage["rows"], stage["owner"]["process"]) == ("running", 60, process.pid)
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "more\n"
    assert stages(capsys, any_root)["verify"]["rows"] == 60  # parts are not listed while a command runs
    process.send_signal(signal.SIGKILL)
    process.wait()
    stage = stages(capsys, any_root)["verify"]
    assert (stage["state"], stage["rows"]) == ("dead", 67)
    assert stage["rows"] == stage_table(recipe, "verify").read().num_rows
    seen = datetime.fromisoformat(stage["seen"])
    assert (datetime.now(UTC) - seen).total_seconds() < 60
    text = " ".join(shown(capsys, any_root).split())
    assert f"process {process.pid} on " in text
    assert f"has ended, or has not written since {status.utc(stage['seen'])}: run the same command" in text


@contextmanager
def many_parts(recipe: Recipe) -> Iterator[Path]:
    """27,000 parts with 96 rows each; nothing may open them."""
    folder = Path(stage_table(recipe, "roll_out").parts_folder)
    folder.mkdir(parents=True)
    for number in range(PARTS):
        (folder / f"{number:016x}-96.parquet").touch()
    yield folder


AUDITED: list[tuple[str, str]] = []
AUDITING = False


def audit(event: str, arguments: tuple[Any, ...]) -> None:
    if AUDITING and event in ("open", "os.listdir", "os.scandir"):
        AUDITED.append((event, str(arguments[0])))


sys.addaudithook(audit)


def accesses(work: Callable[[], object], folder: Path) -> list[str]:
    """The files and folders below a folder that a function opens and lists."""
    global AUDITING
    AUDITED.clear()
    AUDITING = True
    try:
        work()
    finally:
        AUDITING = False
    return [path for _, path in AUDITED if path.startswith(str(folder))]


def test_a_running_stage_of_27_thousand_parts_is_one_small_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = recipe_in(tmp_path)
    begun(recipe, machine="another")
    with many_parts(recipe) as parts:
        opened = accesses(lambda: shown(capsys, tmp_path), tmp_path)
        assert len(opened) <= 3 * len(recipe.stages) + 1
        assert not [path for path in opened if path.startswith(str(parts))]
        begun(recipe, ago=2 * SILENT_S, machine="another")
        reader = status.RunStatus(recipe)
        listed = accesses(lambda: [reader.read() for _ in range(3)], parts)
        assert listed == [str(parts)]  # names only, and once for each record
        [found] = [each for each in reader.read() if each.stage == "roll_out"]
        assert (found.state, found.rows) == ("dead", PARTS * 96)


@pytest.mark.timeout(120)
def test_requests_to_an_object_store_do_not_depend_on_the_parts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "output"
    with s3_server(tmp_path) as server, reach(server.endpoint):
        recipe = recipe_in(root := storage_path(f"s3://{BUCKET}/runs"))
        begun(recipe, machine="another")
        before = requests(log)
        shown(capsys, root)
        few = requests(log) - before
        for number in range(50):
            (recipe.stage_folder("roll_out") / "_parts" / f"{number:016x}-96.parquet").write_bytes(b"")
        before = requests(log)
        shown(capsys, root)
        assert requests(log) - before == few
        assert len(recipe.stages) < few <= 3 * len(recipe.stages) + 4


def requests(log: Path) -> int:
    return log.read_text().count(" HTTP/1.1")


def test_watch_ends_when_all_stages_are_complete(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "REFRESH_S", 0.1)
    recipe = replace(write_run(tmp_path, Label()), stages=("clean", "roll_in"))
    status.run(recipe, status.Flags(watch=True))
    assert "complete" in capsys.readouterr().out
