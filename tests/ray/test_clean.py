"""Stage clean on Ray: all reasons, renamed columns, independence of the block layout, and memory of the driver."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import clean
from pipelines.tables.stage_table import stage_table
from vgs_ray.cleaning.rules import REASONS
from vgs_ray.config import Clean, Evaluate, JudgeLimits, Recipe
from vgs_ray.errors import UserError
from vgs_ray.sandbox.rows import labelled_rows

pytestmark = [pytest.mark.usefixtures("local_ray"), pytest.mark.timeout(300)]

LONG = "A gardener plants {} red and {} white roses along the wall of the old mill, and then counts all of them. {}"
BENCHMARK = "On a far planet every one of the seven moons is seen once in {} nights. How long is the year there?"


def made(problem: str, answer: Any = "7", solution: Any = None, kind: str | None = None) -> dict[str, Any]:
    return {"problem": problem, "answer": answer, "solution": solution, "question_type": kind, "source": "made"}


EACH = {
    "kept": made(LONG.format(3, 4, "How many roses are there in the end?"), "7", r"So \boxed{7}."),
    "malformed": made(" "),
    "no_single_box": made("What is $1+6$?", "7", r"\boxed{7} or \boxed{8}"),
    "box_disagrees": made("What is $2+5$?", "7", r"\boxed{8}"),
    "not_checkable": made("What is $9^{9^9}$?", r"9^{9^{9^{9^{9^{9}}}}}", r"\boxed{9^{9^{9^{9^{9^{9}}}}}}"),
    "multiple_choice": made("What is $3+4$? (A) 6 (B) 7 (C) 8", "B"),
    "several_questions": made("(a) What is $3+4$? (b) What is $3+5$?"),
    "needs_figure": made("How many dots are in the figure?"),
    "duplicate": made(LONG.format(3, 4, "How many roses are there in the end?").upper()),
    "near_duplicate": made(LONG.format(3, 4, "How many roses are there at the end?")),
    "contaminated": made("My problem: " + BENCHMARK.format(8)),
}
OTHERS = [
    made(LONG.format(3, 5, "How many roses are there in the end?"), "8"),
    made(LONG.format(3, 4, "How many roses are there in the end, less one?"), "6"),
    made("At least one of the moons is seen tonight. What is the chance?", r"\frac{1}{2}"),
]


def cleaned(root: Path, source: Path, benchmarks: str = "", **options: Any) -> dict[str, str]:
    """What became of each problem; a suffix tells rows with one text apart."""
    evaluate = Evaluate(benchmark_folder=benchmarks)
    config = Clean(str(source), **({"workers": 1, "validation": 0, "test": 0} | options))
    recipe = Recipe(
        "test",
        root=str(root),
        run_name=f"run_{len(list(root.glob('run_*')))}",
        clean=config,
        evaluate=evaluate,
        judge=JudgeLimits(timeout_s=2.0),
    )
    clean.run(recipe)
    kept, dropped = (stage_table(recipe, stage).read().to_pylist() for stage in ("clean", "dropped"))
    found = [(row["problem"], "kept") for row in kept] + [(row["problem"], row["reason"]) for row in dropped]
    assert len(dict(found)) == len(found)
    assert all(row["evidence"] for row in dropped)
    return dict(found)


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_each_reason_with_its_evidence_and_its_line_of_the_summary(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = write_jsonl(tmp_path / "raw.jsonl", [*EACH.values(), *OTHERS])
    benchmark = write_jsonl(tmp_path / "planets.jsonl", [{"question": "Why?"}, {"question": BENCHMARK.format("eight")}])
    found = cleaned(tmp_path, source, exclude=(str(benchmark),))
    expected = {row["problem"]: reason for reason, row in EACH.items()} | {row["problem"]: "kept" for row in OTHERS}
    assert found == expected
    assert set(found.values()) == {"kept", *REASONS}
    table = capfd.readouterr().out.split("clean     done")[0]
    lines = [line.split() for line in table.splitlines() if line.split()[:1] and line.split()[0] in ("kept", *REASONS)]
    assert lines == [["kept", "4", "28.6%"], *([reason, "1", "7.1%"] for reason in REASONS)]
    assert max(map(len, table.splitlines()[-20:])) <= 100
    dropped = stage_table(Recipe("test", root=str(tmp_path), run_name="run_0"), "dropped").read().to_pylist()
    evidence = {row["reason"]: row["evidence"] for row in dropped}
    assert evidence["duplicate"] == "row 0"
    assert evidence["near_duplicate"].startswith("row 0, similarity 0.")
    assert evidence["contaminated"].startswith("planets.jsonl row 1, ")
    assert evidence["contaminated"].endswith("such as: on a far planet every one of the")


def test_rows_below_the_contamination_share_are_kept(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "raw.jsonl", [EACH["contaminated"], OTHERS[0], made(BENCHMARK.format("eight"))])
    benchmark = write_jsonl(tmp_path / "planets.jsonl", [{"problem": BENCHMARK.format("eight")}])
    found = cleaned(tmp_path, source, exclude=(str(benchmark),), contamination=0.6)
    assert list(found.values()).count("kept") == 2
    assert found[BENCHMARK.format("eight")] == "contaminated"


def test_renamed_columns_and_answers_from_the_box(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"What is ${i}+{i}$?", "gold": 2 * i, "cot": rf"It is \boxed{{{2 * i + (i == 3)}}}"}
        | {"problem_type": "Algebra", "question_type": [None], "answer_type": "proof" if i == 4 else None}
        for i in range(5)
    ]
    proof = {rows[4]["prompt"]: "not_checkable"}
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "raw.parquet")
    columns = {"problem_column": "prompt", "solution_column": "cot"}
    found = cleaned(tmp_path, tmp_path / "raw.parquet", **columns, answer_column="gold")
    assert found == {row["prompt"]: "box_disagrees" if i == 3 else "kept" for i, row in enumerate(rows)} | proof
    found = cleaned(tmp_path, tmp_path / "raw.parquet", **columns, answer_column="")
    assert found == {row["prompt"]: "kept" for row in rows} | proof
    recipe = Recipe("test", root=str(tmp_path), run_name="run_1")
    assert sorted(stage_table(recipe, "clean").read()["answer"].to_pylist()) == ["0", "2", "4", "7"]


def test_a_missing_column_and_an_invalid_line_are_user_errors(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "raw.jsonl", [{"problem": "a", "result": "1"}])
    with pytest.raises(UserError, match=r"has no column answer; .* \(found: problem, result\).*--clean.answer-column"):
        cleaned(tmp_path, source)
    source.write_text('{"problem": "What is $1+1$?", "answer": "2"}\n' * 1500 + '{"problem": "What\n')
    with pytest.raises(UserError, match=r"line 1501 of .*raw.jsonl is not valid JSON"):
        cleaned(tmp_path, source)
    with pytest.raises(UserError, match=r"none.jsonl does not exist"):
        cleaned(tmp_path, tmp_path / "none.jsonl")


def test_the_block_layout_does_not_change_the_result(tmp_path: Path) -> None:
    """The same rows as one file and as many small row groups; copies of a row lie far from it."""
    originals = [
        made(LONG.format(i, i + 1, "How many roses are there in the end?"), str(2 * i + 1)) for i in range(300)
    ]
    near = [
        made(LONG.format(i, i + 1, "How many roses are there at the end?"), str(2 * i + 1)) for i in range(0, 300, 3)
    ]
    exact = [made(originals[i]["problem"].upper(), str(2 * i + 1)) for i in range(0, 300, 5)]
    rows = originals + near + exact
    (tmp_path / "many").mkdir()
    for file in range(4):
        part = pa.Table.from_pylist(rows[file * 120 : (file + 1) * 120 if file < 3 else None])
        pq.write_table(part, tmp_path / "many" / f"{file}.parquet", row_group_size=29)
    counts = {"validation": 25, "test": 20}
    one = cleaned(tmp_path, write_jsonl(tmp_path / "raw.jsonl", rows), **counts)
    assert Counter(one.values()) == {"kept": 300, "near_duplicate": len(near), "duplicate": len(exact)}
    assert all(one[row["problem"]] == "kept" for row in originals)
    assert cleaned(tmp_path, tmp_path / "many", workers=2, **counts) == one
    runs = [Recipe("test", root=str(tmp_path), run_name=name) for name in ("run_0", "run_1")]
    rows = [stage_table(run, "clean").read(["problem", "split"]).sort_by("problem") for run in runs]
    assert rows[0] == rows[1]
    assert Counter(rows[0]["split"].to_pylist()) == {"train": 255, **counts}


def test_a_benchmark_is_excluded_by_its_name(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "raw.jsonl", [made(BENCHMARK.format("eight")), OTHERS[0]])
    write_jsonl(tmp_path / "aime-24.jsonl", [{"problem": BENCHMARK.format("eight"), "answer": "8"}])
    found = cleaned(tmp_path, source, str(tmp_path), exclude=("aime-24",))
    assert found == {BENCHMARK.format("eight"): "contaminated", OTHERS[0]["problem"]: "kept"}
    recipe = Recipe("test", root=str(tmp_path), run_name="run_0")
    [dropped] = stage_table(recipe, "dropped").read().to_pylist()
    assert dropped["evidence"].startswith("aime-24 row 0, 100%")
    counts = json.loads((recipe.folder / "clean" / "_stage.json").read_text())["counts"]
    assert counts["sources"] == {str(source): str(source), "aime-24": str(tmp_path / "aime-24.jsonl")}


def test_the_defects_of_the_sandbox_are_caught(tmp_path: Path) -> None:
    from pipelines.recipes import sandbox

    recipe = sandbox()
    recipe = Recipe("sandbox", root=str(tmp_path), clean=recipe.clean)
    clean.run(recipe)
    kept = set(stage_table(recipe, "clean").read()["problem"].to_pylist())
    splits = json.loads((recipe.folder / "clean" / "_stage.json").read_text())["counts"]["splits"]
    assert splits == {"train": len(kept) - 218, "validation": 218}
    planted = list(labelled_rows("train", recipe.clean.limit, recipe.seed))
    assert kept == {row["problem"] for row, defect in planted if defect is None}
    dropped = Counter(stage_table(recipe, "dropped").read()["reason"].to_pylist())
    kinds = Counter(defect for _, defect in planted)
    assert dropped["contaminated"] + dropped["duplicate"] == kinds["contamination"] + kinds["duplicate"]


def peak_mib(reset: bool = False) -> int:
    """The largest resident memory of this process, in MiB, since the last reset."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) // 1024


def test_the_driver_holds_no_rows(tmp_path: Path) -> None:
    """A source of 60 MB adds next to nothing to the memory of the process that starts the stage."""
    pad = "x" * 100_000
    rows = (made(f"What is ${i}+0$?", str(i), rf"\boxed{{{i}}} {pad}") for i in range(600))
    with open(tmp_path / "raw.jsonl", "w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    assert (tmp_path / "raw.jsonl").stat().st_size > 60e6
    before = peak_mib(reset=True)
    found = clean_only(tmp_path, tmp_path / "raw.jsonl")
    after = peak_mib()
    assert found == 600
    assert after - before < 20, f"the driver grew from {before} to {after} MiB"


def clean_only(root: Path, source: Path) -> int:
    """Run the stage, and count the kept rows from the parts' footers."""
    recipe = Recipe("test", root=str(root), clean=Clean(str(source), workers=1))
    clean.run(recipe)
    return stage_table(recipe, "clean").count_rows()
