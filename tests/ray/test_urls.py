"""Stages whose run, models, sources or exports are on an object store, against an S3 server."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
from made_up_reports import write_run as write_report_of_run
from made_up_run import write_run
from upath import UPath

from pipelines import clean, compare, evaluate, export, import_vm, label
from pipelines.plan import plan
from pipelines.recipes import sandbox
from pipelines.tables.held_out import held_out_answers
from pipelines.tables.manifest import description, differences
from pipelines.tables.sources import benchmark_problems
from pipelines.tables.stage_table import stage_table
from vgs_ray.cleaning.raw_rows import inspect_source, read_piece
from vgs_ray.config import ImportVM, Label, Recipe
from vgs_ray.data.files import download_folder, upload, upload_folder
from vgs_ray.data.openr1 import CLEANED, VM
from vgs_ray.data.storage import list_files, storage_path
from vgs_ray.errors import UserError
from vgs_ray.evaluate.benchmarks import benchmark_source, pin_revision
from vgs_ray.evaluate.rounds import round_rows, write_rounds
from vgs_ray.sandbox import policy_path
from vgs_ray.value.critic import read_answers
from vgs_ray.value.model import ValueModel

STAGES = ("clean", "roll_in", "roll_out", "verify", "label")


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Copies of models go here, also those of workers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def local(s3_ray: UPath, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A run on a disk with labels, whose policy is a folder next to it."""
    root = tmp_path_factory.mktemp("runs")
    shutil.copytree(policy_path("ref"), root / "models" / "ref")
    recipe = write_run(root, Label(hopeless_share=1.0))
    label.run(recipe)
    return recipe


@pytest.fixture(scope="module")
def moved(local: Recipe, s3_ray: UPath) -> Recipe:
    """The same run, copied to S3."""
    upload_folder(Path(local.root), s3_ray / "moved")
    return replace(local, root=str(s3_ray / "moved"))


def rows(recipe: Recipe, stage: str) -> pa.Table:
    table = stage_table(recipe, stage)
    return table.read().sort_by(table.key)


def test_a_copied_run_is_complete_and_has_the_same_rows(local: Recipe, moved: Recipe, tmp_path: Path, capsys) -> None:
    label.run(moved)
    assert "label     is complete, skipped" in capsys.readouterr().out
    download_folder(storage_path(moved.root), tmp_path)
    back = replace(local, root=str(tmp_path))
    label.run(back)
    assert "label     is complete, skipped" in capsys.readouterr().out
    for stage in STAGES:
        assert rows(local, stage).num_rows > 0
        assert rows(moved, stage).equals(rows(local, stage))
        assert rows(back, stage).equals(rows(local, stage))


def test_a_stage_continues_after_the_run_and_its_models_were_copied(local: Recipe, moved: Recipe) -> None:
    def named(recipe: Recipe) -> Recipe:
        policy = replace(recipe.policy, model=f"{recipe.root}/models/ref")
        return replace(recipe, policy=policy, label=replace(recipe.label, kind="outcome"), run_name="named")

    models = [named(recipe) for recipe in (local, moved)]
    before, after = (description(recipe, "label", {}) for recipe in models)
    assert before["operation"]["policy.model"] != after["operation"]["policy.model"]
    assert before["identity"]["policy.model"].startswith("content:")
    assert not differences(before, after)


def test_export_and_import_on_s3(moved: Recipe, local: Recipe, tmp_path: Path, capsys) -> None:
    moved = replace(moved, export=replace(moved.export, shard_mib=1))
    export.run(moved)
    printed = capsys.readouterr().out
    folder = moved.folder / "export" / "OpenR1-VM"
    assert f'pyarrow.dataset.dataset("{folder}/data")' in printed
    names = list_files(folder)
    assert {"README.md"} | {name for name in names if name.startswith("data/train-00000-of-")} < set(names)
    data = pads.dataset(f"{folder}/data")  # as the command says
    assert data.schema.names == VM.names
    assert pads.dataset(f"{moved.folder}/export/OpenR1-Cleaned/data").schema.names == CLEANED.names
    _loads_with_datasets(folder, data.count_rows(), tmp_path)
    export.run(moved)
    assert "export    is complete, skipped" in capsys.readouterr().out

    imported = replace(moved, run_name="published", import_vm=ImportVM(str(folder)))
    import_vm.run(imported)
    local_import = replace(local, run_name="published", import_vm=ImportVM(str(_downloaded(folder, tmp_path / "copy"))))
    import_vm.run(local_import)
    for stage in STAGES:
        assert rows(imported, stage).equals(rows(local_import, stage)), stage
        assert rows(imported, stage).num_rows > 0
    with pytest.raises(UserError, match="has tables already"):
        import_vm.run(imported)


def _loads_with_datasets(folder: UPath, count: int, cache: Path) -> None:
    files = {
        split: [str(folder / name) for name in list_files(folder) if name.startswith(f"data/{split}-")]
        for split in ("train", "validation")
    }
    loaded = datasets.load_dataset("parquet", data_files=files, cache_dir=str(cache))
    assert sum(each.num_rows for each in loaded.values()) == count
    assert datasets.load_dataset(str(_downloaded(folder, cache / "local")), cache_dir=str(cache)).num_rows == {
        split: each.num_rows for split, each in loaded.items()
    }


def _downloaded(folder: UPath, target: Path) -> Path:
    download_folder(folder, target)
    return target


def test_import_refuses_an_empty_and_a_missing_url(moved: Recipe) -> None:
    for source, message in (
        (f"{moved.root}/nothing", r"has no \.parquet"),
        ("s3://no-such-bucket/vm", "can't be read.*NoSuchBucket"),
    ):
        with pytest.raises(UserError, match=message):
            import_vm.run(replace(moved, run_name="other", import_vm=ImportVM(source)))


def test_held_out_answers_and_value_models_of_a_run_on_s3(local: Recipe, moved: Recipe, tmp_path: Path) -> None:
    found, expected = held_out_answers(moved, 20), held_out_answers(local, 20)
    assert [(each.problem_id, each.tokens.tolist()) for each in found] == [
        (each.problem_id, each.tokens.tolist()) for each in expected
    ]
    assert found
    assert compare.value_folder(moved.folder) is None
    ValueModel.from_backbone(policy_path("ref"), seed=2).save_pretrained(tmp_path / "value")
    upload_folder(tmp_path / "value", moved.folder / "train" / "value_model")
    folder = compare.value_folder(moved.folder)
    assert folder == moved.folder / "train" / "value_model"
    tokens = [each.tokens for each in found]
    [(_, on_s3)] = compare.score_all({"run": folder}, tokens)
    [(_, on_disk)] = compare.score_all({"run": tmp_path / "value"}, tokens)
    assert [values.tolist() for values in on_s3] == [values.tolist() for values in on_disk]


def test_a_critic_is_fitted_to_answers_on_s3(local: Recipe, moved: Recipe) -> None:
    assert read_answers(moved.folder / "roll_in", 30) == read_answers(local.folder / "roll_in", 30) != []


def test_plan_reads_a_run_and_its_models_on_s3(local: Recipe, moved: Recipe) -> None:
    with_url = replace(moved, policy=replace(moved.policy, model=f"{moved.root}/models/ref"))
    assert plan(with_url)[0] == plan(local)[0]


ROWS = [{"problem": f"What is {index} + 1?", "answer": str(index + 1), "solution": "s"} for index in range(2500)]


def _sources(folder: Path) -> list[str]:
    table = pa.Table.from_pylist(ROWS)
    pq.write_table(table, folder / "a.parquet", row_group_size=700)
    with pa.OSFile(str(folder / "a.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=900)
    with pa.OSFile(str(folder / "b.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=900)
    (folder / "a.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in ROWS))
    (folder / "a.json").write_text(json.dumps(ROWS))
    (folder / "folder").mkdir()
    for index in range(2):
        pq.write_table(table.slice(index * 1250, 1250), folder / "folder" / f"{index}.parquet")
    return ["a.parquet", "a.arrow", "b.arrow", "a.jsonl", "a.json", "folder"]


def test_sources_of_every_format_at_a_url(s3_root: UPath, tmp_path: Path) -> None:
    def read(source: str) -> list[Any]:
        pieces = inspect_source(source, 2000).pieces
        return [
            row for piece in pieces for table in read_piece(piece, ["problem", "answer"]) for row in table.to_pylist()
        ]

    for name in _sources(tmp_path):
        path, target = tmp_path / name, s3_root / name
        upload_folder(path, target) if path.is_dir() else upload(path, target)
        assert read(str(target)) == read(str(path)) != []
    for missing in (f"{s3_root}/none.parquet", "s3://no-such-bucket/rows.parquet"):
        with pytest.raises(UserError, match=r"does not exist|cannot be read"):
            inspect_source(missing, 0)
    (s3_root / "bad.parquet").write_bytes(b"no Parquet")
    with pytest.raises(UserError, match="cannot be read"):
        inspect_source(str(s3_root / "bad.parquet"), 0)


def test_clean_reads_problems_and_benchmarks_at_urls(s3_ray: UPath, tmp_path: Path) -> None:
    _sources(tmp_path)
    upload(tmp_path / "a.jsonl", s3_ray / "source" / "rows.jsonl")
    (s3_ray / "benchmarks" / "aime-24.jsonl").write_text('{"problem": "What is 3 + 1?", "answer": "4"}\n')
    assert pin_revision(f"{s3_ray}/source/rows.jsonl") == f"{s3_ray}/source/rows.jsonl"
    assert benchmark_source("aime-24", f"{s3_ray}/benchmarks") == f"{s3_ray}/benchmarks/aime-24.jsonl"
    assert benchmark_problems(f"{s3_ray}/benchmarks/aime-24.jsonl", 0).count() == 1
    base = replace(sandbox(), root=str(s3_ray / "runs"), run_name="cleaned")
    recipe = replace(
        base,
        clean=replace(
            base.clean,
            source=f"{s3_ray}/source/rows.jsonl",
            limit=60,
            exclude=("aime-24",),
            solution_column="",
        ),
        evaluate=replace(base.evaluate, benchmark_folder=f"{s3_ray}/benchmarks"),
    )
    clean.run(recipe)
    kept, dropped = (stage_table(recipe, stage).read().to_pylist() for stage in ("clean", "dropped"))
    assert len(kept) + len(dropped) == 60
    assert [row["reason"] for row in dropped if row["problem"] == "What is 3 + 1?"]


def test_reports_comparisons_and_rounds(s3_root: UPath, tmp_path: Path, capsys) -> None:
    for root in (tmp_path, s3_root):
        for name, skill in (("one", 0.4), ("two", 0.6)):
            write_report_of_run(root, name, skill)
        write_rounds(round_rows([root / "one", root / "two"]), root / "one")
        recipe = replace(sandbox(), root=str(root), run_name="one")
        compare.run(recipe, compare.Flags(runs=("one", "two"), answers=0))
        evaluate.show(recipe)
    on_disk, on_s3 = list_files(tmp_path), list_files(s3_root)
    assert {"one/evaluate/report.json", "one/compare/compare.json", "one/rounds.png"} < set(on_s3)
    assert set(on_s3) == set(on_disk)
    for name in on_s3:
        if not name.endswith(".parquet"):  # its metadata may differ
            assert (s3_root / name).read_bytes() == (tmp_path / name).read_bytes(), name
    assert f"report: {s3_root}/one/evaluate/report.md" in capsys.readouterr().out


def small_evaluation(root: Any, policy: str, value_model: str) -> Recipe:
    base = sandbox()
    config = replace(
        base.evaluate, limit=2, samples=4, budgets=(4,), beam=replace(base.evaluate.beam, groups=2), greedy=False,
        value_model=value_model, resources=replace(base.evaluate.resources, replicas=1),
    )  # fmt: skip
    return replace(base, root=str(root), policy=replace(base.policy, model=policy), evaluate=config)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_evaluation_with_models_at_urls_is_that_with_folders(s3_ray: UPath, tmp_path: Path) -> None:
    ValueModel.from_backbone(policy_path("ref"), seed=2).save_pretrained(tmp_path / "value")
    upload_folder(policy_path("ref"), s3_ray / "models" / "policy")
    upload_folder(tmp_path / "value", s3_ray / "models" / "value")
    on_disk = small_evaluation(tmp_path, "sandbox:ref", str(tmp_path / "value"))
    on_s3 = small_evaluation(s3_ray / "evaluated", f"{s3_ray}/models/policy", f"{s3_ray}/models/value")
    reports = []
    for recipe in (on_disk, on_s3):
        evaluate.run(recipe)
        report = json.loads((recipe.folder / "evaluate" / "report.json").read_text())
        reports.append([{name: value for name, value in row.items() if name != "seconds"} for row in report["rows"]])
    assert reports[0] == reports[1] != []
    searches = [[_tokens(tree) for tree in rows(recipe, "evaluate")["tree"].to_pylist()] for recipe in (on_disk, on_s3)]
    assert searches[0] == searches[1]
    before, after = (description(recipe, "evaluate", {})["identity"] for recipe in (on_disk, on_s3))
    assert before == after


def _tokens(tree: str) -> list[tuple[int, ...]]:
    return [tuple(node["tokens"]) for node in json.loads(tree)["nodes"]]
