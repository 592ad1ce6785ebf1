"""The published layouts: `datasets` loads them, and importing them gives the examples that training reads."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import DatasetCard
from made_up_run import CUTS, ROLL_INS, write_run

from pipelines import export, import_vm, label
from pipelines.recipes import sandbox
from pipelines.tables.stage_table import LAYOUT, stage_table
from vgs_ray.config import Export, ImportVM, Label, Recipe
from vgs_ray.data.ids import problem_id
from vgs_ray.data.openr1 import VM
from vgs_ray.errors import UserError

Responses = Counter[tuple[tuple[int, ...], tuple[int, ...], int]]


@pytest.fixture(scope="module")
def exported(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    recipe = write_run(tmp_path_factory.mktemp("runs"), Label(hopeless_share=1.0))
    label.run(recipe)
    export.run(recipe)
    return recipe


@pytest.fixture(scope="module")
def imported(exported: Recipe) -> Recipe:
    source = str(exported.folder / "export" / "OpenR1-VM")
    recipe = replace(exported, run_name="published", import_vm=ImportVM(source))
    import_vm.run(recipe)
    return recipe


def opened(recipe: Recipe, layout: str, cache: Path) -> datasets.DatasetDict:
    return datasets.load_dataset(str(recipe.folder / "export" / layout), cache_dir=str(cache))


def responses_of(recipe: Recipe, split: str) -> dict[str, Responses]:
    """What training sees, by problem text: tokens given, tokens added and the label, each as often as it occurs."""
    problems = {row["problem_id"]: row["problem"] for row in stage_table(recipe, "clean").read().to_pylist()}
    roll_ins = {row["roll_in_id"]: row for row in stage_table(recipe, "roll_in").read().to_pylist()}
    roll_outs = {row["roll_out_id"]: row for row in stage_table(recipe, "roll_out").read().to_pylist()}
    found: dict[str, Responses] = {}
    for row in stage_table(recipe, "label").read().to_pylist():
        if row["split"] == split:
            roll_in, added = roll_ins[row["roll_in_id"]], roll_outs[row["roll_out_id"]]["tokens"]
            key = (*roll_in["prompt"], *roll_in["tokens"][: row["cut"]]), tuple(added), row["label"]
            found.setdefault(problems[row["problem_id"]], Counter())[key] += 1
    return found


def test_loader_opens_the_published_layout(exported: Recipe, tmp_path: Path) -> None:
    data = opened(exported, "OpenR1-VM", tmp_path)
    assert set(data) == {"train", "validation"}
    assert data["train"].column_names == VM.names
    for split, rows in data.items():
        expected = responses_of(exported, str(split))
        assert {row["problem"] for row in rows} == set(expected)
        for row in rows:
            keys = zip(map(tuple, row["roll_in_ids"]), map(tuple, row["roll_outs_ids"]), row["labels"], strict=True)
            assert Counter(keys) == expected[row["problem"]]
            assert row["reward"] == [float(each == 1) for each in row["labels"]]
            assert row["message_id"] == problem_id(row["problem"])
            answered = [answer is not None for answer in row["processed_answer"]]
            assert answered == [each != 2 for each in row["labels"]]


def test_loader_opens_the_cleaned_problems(exported: Recipe, tmp_path: Path) -> None:
    data = opened(exported, "OpenR1-Cleaned", tmp_path)
    problems = stage_table(exported, "clean").read().to_pylist()
    for split in ("train", "validation"):
        found = {(row["message_id"], row["problem"], row["answer"], row["source"]) for row in data[split]}
        assert found == {
            (row["problem_id"], row["problem"], row["answer"], row["source"])
            for row in problems
            if row["split"] == split
        }


def test_card_has_the_values_of_the_manifests(exported: Recipe) -> None:
    card = DatasetCard.load(exported.folder / "export" / "OpenR1-VM" / "README.md")
    assert card.data.license == "other"
    assert card.data.configs[0]["data_files"][0] == {"split": "train", "path": "data/train-*.parquet"}
    assert "value-model" in card.data.tags
    rows = stage_table(exported, "label").count_rows()
    for part in (
        "sandbox:weak", "| roll_in.sampling.temperature | 1.0 |", f"| rows | {rows} |", "left_out: unknown", "ray 2."
    ):  # fmt: skip
        assert part in card.text
    cleaned = DatasetCard.load(exported.folder / "export" / "OpenR1-Cleaned" / "README.md")
    assert "sandbox:weak" not in cleaned.text


def test_round_trip_keeps_what_training_reads(exported: Recipe, imported: Recipe) -> None:
    for split in ("train", "validation"):
        before = responses_of(exported, split)
        assert sum(map(len, before.values())) > 40
        assert responses_of(imported, split) == before
    for stage in ("clean", "roll_in", "roll_out", "verify", "label"):
        parts = stage_table(imported, stage)
        table = parts.read()
        assert table.schema.equals(parts.schema)
        assert len(set(table[parts.key].to_pylist())) == table.num_rows, LAYOUT[stage]


def test_imported_roll_ins_are_stored_once(exported: Recipe, imported: Recipe) -> None:
    def tokens(recipe: Recipe) -> int:
        return sum(map(len, stage_table(recipe, "roll_in").read(["tokens"])["tokens"].to_pylist()))

    given = sum(len(key[0]) for each in responses_of(exported, "train").values() for key in each.elements())
    assert tokens(imported) <= tokens(exported) < given


def test_imported_stages_are_complete_for_what_follows(imported: Recipe, capsys) -> None:
    label.run(imported)
    assert "is complete, skipped" in capsys.readouterr().out
    with pytest.raises(UserError, match="has tables already"):
        import_vm.run(imported)


def test_only_openr1_cleaned_has_a_test_split(exported: Recipe, tmp_path: Path) -> None:
    recipe = replace(exported, root=str(tmp_path))
    parts = stage_table(recipe, "clean")
    parts.folder.mkdir(parents=True)
    problem = {"problem": "p", "answer": "1", "solution": "s", "source": "made up"}
    splits = ["train", "test", "validation", "train"]
    rows = [problem | {"problem_id": str(index), "split": split} for index, split in enumerate(splits)]
    parts.write_part(pa.Table.from_pylist(rows, schema=parts.schema))
    (tmp_path / "out" / "data").mkdir(parents=True)
    counts = export.write_cleaned(recipe, tmp_path / "out" / "data")
    assert {split: found["rows"] for split, found in counts.items()} == {"train": 2, "validation": 1, "test": 1}
    data = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert data["test"]["message_id"] == ["1"]


def test_import_without_a_validation_file_takes_some_problems(tmp_path: Path) -> None:
    rows = pa.table({"problem": [f"What is {index // 2}?" for index in range(240)]})  # each twice
    files = [tmp_path / "train-0.parquet", tmp_path / "train-1.parquet"]
    for index, file in enumerate(files):
        pq.write_table(rows.slice(index * 120, 120), file, row_group_size=50)

    def splits(*names: Path, validation: int) -> Counter[str]:
        return Counter(split for task in import_vm.row_groups(list(names), validation) for split in task["splits"])

    assert splits(*files, validation=20) == {"train": 220, "validation": 20}
    assert splits(*files, validation=500) == {"train": 216, "validation": 24}  # a tenth at most
    assert splits(*files, validation=0) == {"train": 240}
    named = files[1].rename(tmp_path / "validation-0.parquet")
    assert splits(files[0], named, validation=20) == {"train": 120, "validation": 120}


def test_finished_export_may_be_pushed_later(exported: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    pushed: list[tuple[str, str, str]] = []
    monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
    monkeypatch.setattr(export, "upload_dataset", lambda folder, name, token: pushed.append((folder.name, name, token)))
    export.run(replace(exported, export=Export(hub="me")))
    assert pushed == [(name, f"me/sandbox-{name}", "hf_of_a_test") for name in ("OpenR1-VM", "OpenR1-Cleaned")]


def test_rows_have_the_requested_number_of_responses(exported: Recipe, tmp_path: Path) -> None:
    recipe = replace(exported, root=str(tmp_path), export=Export(responses=9))
    recipe.folder.mkdir()
    for stage in ("clean", "roll_in", "roll_out", "verify", "label"):
        (recipe.folder / stage).symlink_to(exported.folder / stage)
    export.run(recipe)
    data = opened(recipe, "OpenR1-VM", tmp_path)
    sizes = {len(row["labels"]) for rows in data.values() for row in rows}
    assert sizes == {9}
    enough = sum(each.total() >= 9 for split in data for each in responses_of(exported, str(split)).values())
    assert sum(rows.num_rows for rows in data.values()) == enough < ROLL_INS * CUTS * 30
    shutil.rmtree(recipe.folder / "export")
    with pytest.raises(UserError, match=r"responses is 99.*lower it"):
        export.run(replace(recipe, export=Export(responses=99)))


def test_bad_row_stops_the_import_with_one_line(exported: Recipe, tmp_path: Path) -> None:
    file = next((exported.folder / "export" / "OpenR1-VM" / "data").glob("train-*.parquet"))
    table = pq.read_table(file).slice(0, 1)
    labels = pa.array([[*table["labels"][0].as_py()[:-1], None]], pa.list_(pa.int64()))
    pq.write_table(table.set_column(table.column_names.index("labels"), "labels", labels), tmp_path / "a.parquet")
    with pytest.raises(
        UserError, match=r"row group 0 of .*a.parquet: row 0 .*labels has null as item.*Fix the row"
    ) as raised:
        import_vm.run(replace(exported, root=str(tmp_path), import_vm=ImportVM(str(tmp_path))))
    assert "\n" not in str(raised.value)


DYING_IMPORT = """
import os, signal
from pipelines import import_vm
from pipelines.cli import cli

def open_or_die(recipe, name, inputs, opened=import_vm.open_stage):
    if name == "roll_out":
        os.kill(os.getpid(), signal.SIGKILL)
    return opened(recipe, name, inputs)

import_vm.open_stage = open_or_die
cli(import_vm.run, "pipelines.import_vm")
"""


def test_import_killed_between_two_tables_continues(exported: Recipe, imported: Recipe, tmp_path: Path) -> None:
    source = str(exported.folder / "export" / "OpenR1-VM")
    recipe = replace(imported, root=str(tmp_path), run_name="killed")
    options = [
        "--root",
        str(tmp_path),
        "--run-name",
        "killed",
        "--import-vm.source",
        source,
        "--label.hopeless-share",
        "1.0",
    ]
    done = subprocess.run([sys.executable, "-c", DYING_IMPORT, "sandbox", *options], capture_output=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    finished = {path.parent.name for path in recipe.folder.glob("*/_stage.json")}
    assert finished == {"clean", "roll_in"}
    shutil.copytree(source, tmp_path / "other")
    with pytest.raises(UserError, match="has tables already"):
        import_vm.run(replace(recipe, import_vm=ImportVM(str(tmp_path / "other"))))
    import_vm.run(recipe)
    for stage in ("clean", "roll_in", "roll_out", "verify", "label"):
        parts, expected = stage_table(recipe, stage), stage_table(imported, stage)
        assert parts.read().sort_by(parts.key).equals(expected.read().sort_by(parts.key)), stage
        counts = [json.loads((each.folder / "_stage.json").read_text())["counts"] for each in (parts, expected)]
        assert counts[0] == counts[1]
    with pytest.raises(UserError, match="has tables already"):
        import_vm.run(recipe)


def test_import_needs_a_folder(exported: Recipe, tmp_path: Path) -> None:
    for source in ("", str(tmp_path)):
        with pytest.raises(UserError, match=r"has no \.parquet.*hf download"):
            import_vm.run(replace(exported, run_name="other", import_vm=ImportVM(source)))


def test_pushing_needs_a_token_from_the_environment(exported: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(UserError, match=r"export\.hub is 'me', but HF_TOKEN is not set"):
        export.run(replace(exported, export=Export(hub="me")))


def test_export_names_the_stage_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"pipelines\.clean sandbox"):
        export.run(replace(sandbox(), root=str(tmp_path)))
