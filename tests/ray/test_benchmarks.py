"""Benchmarks by name: their sources, real data sets with their answers, and errors."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import huggingface_hub.constants
import pytest
from real_data import DATA

from pipelines.errors import line_of
from pipelines.evaluate import all_problems, benchmark_sources
from pipelines.recipes import sandbox, vgs
from pipelines.tables.sources import pin_sources
from vgs_ray.config import Evaluate
from vgs_ray.config.checks import check_recipe
from vgs_ray.data.source_names import HubId, benchmark_label
from vgs_ray.errors import UserError
from vgs_ray.evaluate.benchmarks import BENCHMARKS, benchmark_source, final_answer, pin_revision

pytestmark = pytest.mark.usefixtures("local_ray")

BENCHMARK_DATA = DATA / "benchmarks"
SIZES = {"aime-24": 30, "aime-25": 30, "hmmt-feb-24": 30, "hmmt-feb-25": 30, "math-500": 500, "gsm8k": 1319}


def test_names_are_data_sets_at_a_revision() -> None:
    assert set(BENCHMARKS) == set(SIZES)
    for name in BENCHMARKS:
        source = HubId.parse(benchmark_source(name))
        assert "/" in source.id
        assert name.startswith("hmmt") == (source.revision is None)
        assert source.revision is None or len(source.revision) == 40
    assert HubId.parse("a/b") == ("a/b", None, None, "train")
    assert HubId.parse("a/b@1f:main/test") == ("a/b", "1f", "main", "test")
    assert HubId.parse("a/b:main") == ("a/b", None, "main", "train")
    assert pin_revision(benchmark_source("gsm8k")) == BENCHMARKS["gsm8k"]  # offline
    assert len(HubId.parse(vgs().clean.source).revision or "") == 40
    assert {*vgs().evaluate.benchmarks} < {*vgs().clean.exclude} <= {*BENCHMARKS}


def test_labels_are_short() -> None:
    labels = {
        "gsm8k": "gsm8k", "sandbox": "sandbox", "some/where/hard.jsonl": "hard", "some/folder/": "folder", "a/b.v2@1f": "b.v2",
        "org/set@1f:main/test": "set:main/test", "org/set:socratic/test": "set:socratic/test",
    }  # fmt: skip
    assert {name: benchmark_label(name) for name in labels} == labels


@pytest.mark.parametrize(("text", "answer"), [("So 2 + 2 = <<2+2=4>>4\n#### 1,234", "1,234"), ("7", "7"), (None, "")])
def test_an_answer_follows_its_rationale(text: str | None, answer: str) -> None:
    assert final_answer(text) == answer


@pytest.mark.skipif(
    not BENCHMARK_DATA.is_dir(),
    reason=f"{BENCHMARK_DATA} does not exist: real benchmarks are not part of the repository",
)
def test_real_benchmarks_are_read_from_a_folder() -> None:
    copies = benchmark_sources(Evaluate(benchmarks=tuple(SIZES), benchmark_folder=str(BENCHMARK_DATA)))
    problems, count = all_problems(copies, limit=0)
    rows = problems.to_pandas()
    assert count == len(rows) == sum(SIZES.values())
    assert rows.groupby("benchmark").size().to_dict() == SIZES
    assert rows["problem"].str.len().min() >= 20
    gsm8k = rows[rows["benchmark"] == "gsm8k"]["answer"]
    assert gsm8k.str.fullmatch(r"-?[\d,.]+").all()
    assert len(all_problems(copies, limit=3)[0].take_all()) == 18


@pytest.mark.parametrize("wrong", [(), ("sandbox", "sandbox"), ("a/x.jsonl", "b/x.jsonl")])
def test_each_benchmark_is_named_once(wrong: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match=r"evaluate\.benchmarks"):
        check_recipe(replace(sandbox(), evaluate=replace(sandbox().evaluate, benchmarks=wrong)))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"problem": "What is 1 + 1?", "answer": " "}], r"rows \[0\] lack"),
        ([{"problem": "What is 1 + 1?"}], "no column answer"),
        ([{"answer": "2"}], "no column problem"),
        ([{"problem": "What is 1 + 1?", "answer": "2"}] * 2, "1 repeated problems"),
        ([], "no column"),
    ],
)
def test_a_benchmark_without_problems_or_answers_is_an_error(
    rows: list[dict[str, str]], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "bench.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match=message):
        all_problems({"bench": str(path)}, limit=0)


def test_the_revision_of_a_source_is_recorded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A restarted stage reads the revision of its first start, even if the data set has changed."""
    requested: list[str] = []

    def now(source: str) -> str:
        requested.append(source)
        return f"{source}@{len(requested)}"

    monkeypatch.setattr("pipelines.tables.sources.pin_revision", now)
    first = pin_sources(tmp_path, {"a": "org/a", "b": "org/b"})
    assert first == {"a": "org/a@1", "b": "org/b@2"}
    assert pin_sources(tmp_path, {"a": "org/a", "b": "org/b"}) == first
    assert pin_sources(tmp_path / "..", {"a": "org/a"}) == {"a": "org/a@3"}


@pytest.mark.parametrize("missing", ["none.jsonl", "/nowhere/none.parquet", "./folder", "word"])
def test_a_missing_file_is_named_before_the_hub_is_asked(missing: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"{missing} does not exist.*check the path"):
        pin_sources(tmp_path, {"a": missing})


@pytest.mark.parametrize(
    ("benchmark", "folder", "named"),
    [
        ("nowhere.jsonl", "", "nowhere.jsonl does not exist"),
        ("some/where/nowhere.jsonl", "", "nowhere.jsonl does not exist"),
        ("./nowhere", "", "nowhere does not exist"),
        ("/nowhere", "", "nowhere does not exist"),
        ("aime-24", "/nowhere", "evaluate.benchmark_folder is '/nowhere'"),
    ],
)
def test_a_benchmark_that_is_not_there_is_named(benchmark: str, folder: str, named: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=named) as raised:
        pin_sources(tmp_path, benchmark_sources(Evaluate(benchmarks=(benchmark,), benchmark_folder=folder)))
    assert "\n" not in line_of(raised.value)


def test_a_missing_connection_is_reported_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")  # a closed port
    with pytest.raises(UserError, match=r"MathArena/hmmt_feb_2025 .*check the id and the network") as raised:
        pin_revision("MathArena/hmmt_feb_2025")
    assert "\n" not in line_of(raised.value)
