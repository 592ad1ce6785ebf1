"""Comparison of runs: made-up searches -> a report for each run -> one comparison with tables and figures."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from made_up_reports import SHAPE, write_manifest, write_run
from matplotlib.figure import Figure

from vgs_ray.errors import UserError
from vgs_ray.evaluate import plot, plot_comparison
from vgs_ray.evaluate.comparison import compare_runs, read_field, read_run
from vgs_ray.evaluate.comparison_formats import markdown, terminal_table
from vgs_ray.evaluate.plot_comparison import draw_comparison
from vgs_ray.evaluate.report import PER_PROBLEM
from vgs_ray.evaluate.statistics import difference
from vgs_ray.evaluate.value_curves import POSITIONS, Answer, ranked_pairs, value_curves


@pytest.fixture(autouse=True)
def no_figures_of_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plot, "draw_figures", lambda report, folder: None)


def test_differences_are_paired_by_problem(tmp_path: Path) -> None:
    for name, skill in (("low", 0.3), ("middle", 0.5), ("highest", 0.8)):
        write_run(tmp_path, name, skill)
    runs = [read_run(tmp_path, name) for name in ("low", "middle", "highest")]
    comparison = compare_runs(runs, resamples=200, seed=3)
    assert [column[1] for column in comparison["columns"] if column[0] != "single"] == [4] * 5
    assert all(
        row == {"run": row["run"], **read_run(tmp_path, row["run"]).rows[place(row)]} for row in comparison["rows"]
    )
    pairs = [(row["a"], row["b"]) for row in comparison["differences"] if row["method"] == "majority"]
    assert pairs == [("middle", "low"), ("highest", "low"), ("highest", "middle")]
    tables = {
        name: pq.read_table(tmp_path / name / "evaluate" / PER_PROBLEM).to_pylist() for name in ("low", "highest")
    }
    for row in comparison["differences"]:
        if (row["a"], row["b"]) == ("highest", "low"):
            a, b = (
                [
                    each["correct"]
                    for each in sorted(tables[name], key=lambda each: each["problem_id"])
                    if place(each) == place(row)
                ]
                for name in ("highest", "low")
            )
            assert (row["difference"], row["low"], row["high"]) == pytest.approx(tuple(difference(a, b, 200, 3)))
            assert row["low"] > 0


def place(row: dict[str, Any]) -> tuple[str, tuple[str, int]]:
    return row["benchmark"], (row["method"], row["budget"])


def test_methods_that_some_runs_lack_stay_empty(tmp_path: Path) -> None:
    write_run(tmp_path, "base", 0.4, searched=("sample",))
    for name in ("sft", "svpo!"):
        write_run(tmp_path, name, 0.6, shape=replace(SHAPE, budgets=(2,) if name == "sft" else (2, 4)))
    comparison = compare_runs([read_run(tmp_path, name) for name in ("base", "sft", "svpo!")], resamples=50)
    assert ["vgs_weighted_majority", 2] in comparison["columns"]  # the largest budget that both runs with it have
    beams = {(row["a"], row["b"]) for row in comparison["differences"] if row["method"].startswith("vgs")}
    assert beams == {("svpo!", "sft")}
    [line] = [line for line in markdown(comparison, []).splitlines() if line.startswith("| `base`")][:1]
    assert line.count("–") == 2
    chosen = compare_runs([read_run(tmp_path, name) for name in ("sft", "svpo!")], ["majority", "single"], [2])
    assert chosen["columns"] == [["majority", 2], ["single", 1]]


def test_several_benchmarks_are_averaged_with_equal_weights(tmp_path: Path) -> None:
    for name, skill in (("a", 0.3), ("better", 0.6)):
        write_run(tmp_path, name, skill, {"easy": 60, "hard": 20})
    comparison = compare_runs([read_run(tmp_path, "a"), read_run(tmp_path, "better")], ["majority"], resamples=50)
    gaps = {row["benchmark"]: row["difference"] for row in comparison["differences"]}
    assert gaps["average"] == pytest.approx((gaps["easy"] + gaps["hard"]) / 2)
    assert markdown(comparison, []).count("# Comparison: ") == terminal_table(comparison).count(" problems\n") == 3


def test_what_can_not_be_compared_is_refused_in_one_line(tmp_path: Path) -> None:
    write_run(tmp_path, "a", 0.5)
    write_run(tmp_path, "fewer", 0.5, {"sandbox": 40})
    write_run(tmp_path, "other", 0.5, {"gsm8k": 60})
    write_manifest(tmp_path / "a", "label", {}, **{"label.kind": "outcome"})
    a, fewer, other = (read_run(tmp_path, name) for name in ("a", "fewer", "other"))
    for runs, methods, message in (
        ([a], [], "at least two different runs"),
        ([a, a], [], "at least two different runs"),
        ([a, fewer], [], "a has 60 problems of sandbox and fewer 40, and 20 are in only one of them"),
        ([a, other], [], "a was evaluated on sandbox and other on gsm8k"),
        ([a, replace(a, name="b")], ["nonsense"], "no run has this method, but single"),
    ):
        with pytest.raises(UserError, match=message) as refused:
            compare_runs(runs, methods)
        assert "\n" not in str(refused.value)
    with pytest.raises(UserError, match="no run has a budget of 3"):
        compare_runs([a, replace(a, name="b")], ["majority"], [3])
    with pytest.raises(UserError, match=r"missing/evaluate/report.json is missing.*--run-name missing"):
        read_run(tmp_path, "missing")
    with pytest.raises(
        UserError, match=r"label.kind of run a is 'outcome'; a plot with a logarithmic scale needs a positive number"
    ):
        read_field(tmp_path, "a", "label.kind")
    with pytest.raises(UserError, match=r"run fewer has no label.paths of its own"):
        read_field(tmp_path, "fewer", "label.paths")


def made_up_values(quality: float, draw: np.random.Generator) -> tuple[list[Answer], list[np.ndarray]]:
    answers, values = [], []
    for problem in range(30):
        for correct in (True, False):
            length = int(draw.integers(1, 60))
            answers.append(
                Answer(f"p{problem:02}", np.zeros(length + 3, np.int32), 3, correct, tuple(range(5, length, 9)))
            )
            certainty = quality * np.linspace(0, 1, length) * (1 if correct else -1)
            values.append((0.5 + certainty / 2).astype(np.float32))
    return answers, values


def test_value_curves_part_with_the_quality_of_the_values() -> None:
    answers, good = made_up_values(0.9, np.random.default_rng(0))
    _, poor = made_up_values(0.1, np.random.default_rng(0))
    curves = value_curves(answers, {"good": good, "poor": poor}, examples=2)
    assert (curves["answers"], curves["problems"], len(curves["examples"])) == (60, 30, 2)
    runs = curves["runs"]
    assert runs["good"]["tokens"]["brier"] < runs["poor"]["tokens"]["brier"] < 0.25
    # Every answer has the same weight, whatever its length.
    errors = [np.mean((each - answer.correct) ** 2) for answer, each in zip(answers, good, strict=True)]
    assert runs["good"]["tokens"]["brier"] == pytest.approx(np.mean(errors), abs=1e-6)
    assert (
        runs["good"]["steps"]["brier"] < runs["good"]["tokens"]["brier"]
    )  # steps end later, where these values know more
    for outcome in ("correct", "incorrect"):
        assert len(runs["good"][outcome]) == POSITIONS
        assert all(part["low"] <= part["mean"] <= part["high"] for part in runs["good"][outcome])
    gaps = [
        right["mean"] - wrong["mean"]
        for right, wrong in zip(runs["good"]["correct"], runs["good"]["incorrect"], strict=True)
    ]
    assert gaps == sorted(gaps)
    assert (runs["good"]["ranked_pairs"], ranked_pairs(answers, [0.3] * 60)) == (1.0, 0.5)
    assert ranked_pairs(answers[:2], [0.2, 0.4]) == 0.0
    assert ranked_pairs(answers[:1], [0.2]) is None
    example = curves["examples"][0]
    assert [answer["correct"] for answer in example["answers"]] == [True, False]
    assert len(example["answers"][0]["tokens"]) == len(example["answers"][0]["values"]["good"]) == len(good[0])


def test_every_figure_and_table_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: dict[str, Figure] = {}
    for module in (plot, plot_comparison):
        monkeypatch.setattr(module, "save_figure", lambda figure, path: saved.update({path.name: figure}))
    for name, paths in (("ten", 10), ("hundred", 100)):
        write_run(tmp_path, name, 0.5, {"easy": 60, "hard": 10})
        write_manifest(tmp_path / name, "label", {}, **{"label.paths": paths})
        write_manifest(tmp_path / name, "train", {"validation": {"brier": 0.2, "auc": 0.7}})
    comparison = compare_runs([read_run(tmp_path, name) for name in ("ten", "hundred")], resamples=50)
    comparison["against"] = {
        "field": "label.paths", "numbers": {name: read_field(tmp_path, name, "label.paths") for name in ("ten", "hundred")}
    }  # fmt: skip
    assert comparison["against"]["numbers"] == {"ten": 10.0, "hundred": 100.0}
    answers, values = made_up_values(0.5, np.random.default_rng(0))
    comparison["held_out"] = value_curves(answers, {"ten": values, "hundred": values})
    figures = draw_comparison(comparison, tmp_path)
    assert figures == [
        "accuracy_by_run-easy.png", "accuracy_vs_flops-easy.png", "accuracy_by_run-hard.png", "accuracy_vs_flops-hard.png",
        "accuracy_by_run.png", "accuracy_vs_flops.png", "values_by_position.png", "values_along_answers.png", "against_field.png",
    ]  # fmt: skip
    assert list(saved) == figures
    for figure in saved.values():
        figure.draw_without_rendering()
    lines = {text.get_text() for text in saved["accuracy_vs_flops.png"].axes[0].texts}
    methods = ("majority", "weighted majority", "VGS")
    assert lines == {f"{run}, {method}" for run in ("ten", "hundred") for method in methods}
    same = replace(read_run(tmp_path, "ten"), name="again")
    draw_comparison(compare_runs([read_run(tmp_path, "ten"), same], resamples=50), tmp_path)
    shared = [text.get_text() for text in saved["accuracy_vs_flops.png"].axes[0].texts]
    assert "majority" in shared
    assert "ten, majority" not in shared
    text = markdown(comparison, figures)
    assert all(f"({name})" in text for name in figures[4:])
    assert re.search(r"`ten` +\| +0\.200 \| +0\.700 \|", text)
    assert all(len(line) <= 100 for line in terminal_table(comparison).splitlines())
    assert json.loads(json.dumps(comparison)) == comparison
