"""The sandbox: exact answers, disjoint splits, defects of train rows, tokenizer and shipped policies."""

import hashlib
import json
import random
import re
import subprocess
import sys
from collections import Counter
from fractions import Fraction
from itertools import islice
from pathlib import Path

import pytest

from vgs_ray.sandbox import POLICIES, policy_path
from vgs_ray.sandbox.rows import DEFECT_SHARE, DEFECTS, Row, benchmark_rows, draw_rows, labelled_rows
from vgs_ray.sandbox.world import FLAWLESS, REFERENCE, WEAK, draw_problems, systematic_error, write_response


def _normal(text: str) -> str:
    return " ".join(text.lower().split())


def _solve(text: str) -> Fraction:
    """The answer of a problem, computed from its text without code of the sandbox."""
    modulus, value = map(int, re.findall(r"modulo (\d+)\. Start with (\d+)", text)[0])
    for verb, operand in re.findall(r"\) (add|subtract|multiply by) (\d+)", text):
        change = {"add": value + int(operand), "subtract": value - int(operand), "multiply by": value * int(operand)}
        value = change[verb] % modulus
    divisor = re.search(r"divided by (\d+)", text)
    return Fraction(value, int(divisor[1]) if divisor else 1)


def _read(latex: str) -> Fraction:
    parts = re.fullmatch(r"\\frac\{(\d+)\}\{(\d+)\}", latex)
    return Fraction(int(parts[1]), int(parts[2])) if parts else Fraction(int(latex))


def _clean(split: str, count: int) -> list[Row]:
    return [row for row, kind in labelled_rows(split, count, seed=3) if kind is None]  # type: ignore[arg-type]


def test_gold_answers_are_exact_and_in_lowest_terms() -> None:
    rows = [*_clean("train", 400), *_clean("validation", 100), *benchmark_rows(200)]
    for row in rows:
        assert _read(row["answer"]) == _solve(row["problem"])
        assert row["solution"].endswith(rf"\boxed{{{row['answer']}}}")
        if parts := re.findall(r"\d+", row["answer"])[1:]:
            assert _solve(row["problem"]).denominator == int(parts[0])
    fractions = sum("frac" in row["answer"] for row in rows)
    assert 0.25 < fractions / len(rows) < 0.6


def test_splits_do_not_overlap() -> None:
    problems_of = {split: {_normal(row["problem"]) for row in _clean(split, 500)} for split in ("train", "validation")}
    problems_of["benchmark"] = {_normal(row["problem"]) for row in benchmark_rows(500)}
    assert len(problems_of["benchmark"]) == 500
    assert not problems_of["train"] & problems_of["validation"]
    assert not problems_of["train"] & problems_of["benchmark"]
    assert not problems_of["validation"] & problems_of["benchmark"]


def test_only_train_rows_have_defects_and_every_defect_occurs() -> None:
    kinds = Counter(kind for _, kind in labelled_rows("train", 3000, seed=0))
    assert set(kinds) == {None, *DEFECTS}
    assert abs(1 - kinds[None] / 3000 - DEFECT_SHARE) < 0.03
    assert {kind for split in ("validation", "benchmark") for _, kind in labelled_rows(split, 50, 0)} == {None}


def test_defects_are_as_named() -> None:
    rows: dict[str | None, list[Row]] = {}
    for row, kind in labelled_rows("train", 3000, seed=0):
        rows.setdefault(kind, []).append(row)
    clean = {_normal(row["problem"]) for row in rows[None]}
    benchmark = {_normal(row["problem"]) for row in benchmark_rows(100)}
    assert len(clean) == len(rows[None])
    assert all(_normal(row["problem"]) in clean for row in rows["duplicate"])
    assert all(_normal(row["problem"]) in benchmark for row in rows["contamination"])
    assert not any(row["problem"].strip() for row in rows["empty_problem"])
    assert not any(row["answer"] for row in rows["no_answer"])
    assert not any("boxed" in row["solution"] for row in rows["no_box"])
    assert all(row["solution"].count("boxed") == 2 for row in rows["two_boxes"])
    assert all(_read(row["answer"]) != _solve(row["problem"]) for row in rows["disagreeing"])
    assert {row["answer"] for row in rows["multiple_choice"]} == set("ABCD")
    assert not any("Start with" in row["problem"] for row in rows["needs_figure"])


def test_rows_do_not_name_their_defect_and_share_one_layout() -> None:
    layouts = {tuple(row) for row in draw_rows("train", 500, seed=1)}
    assert len(layouts) == 1
    assert not {name for name in layouts.pop() if "defect" in name or "kind" in name}


def test_same_seed_same_rows_and_a_shorter_draw_is_a_prefix() -> None:
    for split in ("train", "validation", "benchmark"):
        long, short = list(draw_rows(split, 60, seed=5)), list(draw_rows(split, 20, seed=5))
        assert long[:20] == short
        assert long != list(draw_rows(split, 60, seed=6))


def test_a_flawless_solver_is_right_and_slips_are_as_described() -> None:
    rng = random.Random(0)
    problems = list(islice(draw_problems("validation", rng), 200))
    assert all(write_response(problem, FLAWLESS, rng)[1] == _solve(problem.text) for problem in problems)
    boxed = [(write_response(problem, REFERENCE, rng)[1], _solve(problem.text)) for problem in problems * 4]
    assert 0.3 < sum(value == gold for value, gold in boxed) / len(boxed) < 0.55
    assert 0.02 < sum(value is None for value, _ in boxed) / len(boxed) < 0.09
    assert systematic_error(3, "subtract", 5) == 16  # right is 17
    assert systematic_error(5, "subtract", 3) is None


def test_pure_parts_do_not_load_torch() -> None:
    code = "import sys, vgs_ray.sandbox, vgs_ray.sandbox.rows; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0


def test_unknown_policy_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"'strong'.*ref, weak"):
        policy_path("strong")


@pytest.mark.parametrize("name", POLICIES)
def test_shipped_policy_is_the_one_that_was_trained(name: str) -> None:
    folder = policy_path(name)
    record = json.loads((folder.parent / "TRAINING.json").read_text())[name]
    assert hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest() == record["sha256"]
    assert record["command"].startswith("python -m vgs_ray.sandbox.train_policy")


@pytest.mark.parametrize("name", POLICIES)
def test_tokenizer_gives_texts_back(name: str) -> None:
    tokenizer = pytest.importorskip("transformers").AutoTokenizer.from_pretrained(policy_path(name))
    rng = random.Random(0)
    assert len(tokenizer) < 400
    for problem in islice(draw_problems("validation", rng), 100):
        for text in (problem.text, write_response(problem, WEAK, rng)[0]):
            tokens = tokenizer.encode(text, add_special_tokens=False)
            assert tokenizer.unk_token_id not in tokens
            assert tokenizer.decode(tokens) == tokenizer.decode(tokens, skip_special_tokens=True) == text
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Start with 7."}], add_generation_prompt=True, tokenize=True, return_dict=False
    )
    assert tokenizer.decode(prompt) == "<|user|>Start with 7.<|assistant|><think>"
    assert tokenizer.unk_token_id in tokenizer.encode("an unheard-of word")
