"""Verdicts on the pairs of answers in answers/*.tsv (columns: verdict, gold answer, answer)."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vgs_ray.answers.classify import classify_answer
from vgs_ray.answers.compare import compare_read
from vgs_ray.answers.judge import Judge, Pair
from vgs_ray.answers.normalize import normalize_answer
from vgs_ray.grade import compare, equivalent, parse_ok, quick_compare, quick_equivalent
from vgs_ray.search.select import classes

TABLES = sorted((Path(__file__).parent / "answers").glob("*.tsv"))
ALLOWED = {
    "same": {True},
    "different": {False},
    "unknown": {None},
    "not same": {False, None},
    "not different": {True, None},
}
# In these tables the answer may contain what the gold answer omits, or only answers may be unreadable.
ONE_WAY = {"bases", "mixed", "hostile_stays_incorrect", "unknown_not_incorrect", "whole_answer_parsed"}
REVERSIBLE = [table for table in TABLES if table.stem not in ONE_WAY]


def rows_of(table: Path) -> list[tuple[str, str, str]]:
    rows = [line.split("\t") for line in table.read_text().splitlines()]
    assert all(len(row) == 3 for row in rows), table
    return [(verdict, gold, answer) for verdict, gold, answer in rows]


def reversible_pairs(table: Path) -> list[Pair]:
    return [(gold, answer) for _, gold, answer in rows_of(table) if gold.strip() and answer.strip()][:60]


@pytest.fixture(scope="module")
def verdicts() -> dict[Pair, bool | None]:
    """All pairs of all tables, and the reversed ones, judged at once, so that all workers are busy."""
    pairs = [(gold, answer) for table in TABLES for _, gold, answer in rows_of(table)]
    pairs += [pair[::-1] for table in REVERSIBLE for pair in reversible_pairs(table)]
    with Judge(workers=2, timeout_s=30.0) as judge:
        return judge.equivalent_pairs(pairs)


def test_there_are_tables() -> None:
    assert len(TABLES) > 15
    assert sum(len(rows_of(table)) for table in TABLES) > 1500


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.stem)
def test_verdicts(table: Path, verdicts: dict[Pair, bool | None]) -> None:
    wrong = [(*row, verdicts[row[1:]]) for row in rows_of(table) if verdicts[row[1:]] not in ALLOWED[row[0]]]
    assert not wrong


@pytest.mark.parametrize("table", REVERSIBLE, ids=lambda table: table.stem)
def test_no_pair_is_equal_in_one_order_and_different_in_the_other(
    table: Path, verdicts: dict[Pair, bool | None]
) -> None:
    both = [(pair, verdicts[pair], verdicts[pair[::-1]]) for pair in reversible_pairs(table)]
    assert [row for row in both if set(row[1:]) == {True, False}] == []


def test_quick_rules_never_contradict_the_full_comparison() -> None:
    golds = sorted({gold for table in TABLES for _, gold, _ in rows_of(table) if len(gold) < 12})[:150]
    for gold, answer in itertools.pairwise(golds):
        quick = quick_equivalent(gold, answer)
        if quick is not None:
            assert compare_read(gold, answer).equivalent in (quick, None)
        assert compare_read(gold, gold).equivalent is not False, gold


@settings(max_examples=60, deadline=None)
@given(st.integers(-2000, 2000), st.integers(1, 60), st.integers(-2000, 2000), st.integers(1, 60))
def test_quick_ratios_agree_with_the_full_comparison(a: int, b: int, c: int, d: int) -> None:
    gold, answer = rf"\frac{{{a}}}{{{b}}}", rf"\frac{{{c}}}{{{d}}}"
    assert quick_equivalent(gold, answer) is compare_read(gold, answer).equivalent is (a * d == b * c)


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="0123456789,.+-= xyz()[]{}\\frac^_$%'", max_size=14))
def test_normalization_never_raises(text: str) -> None:
    assert quick_equivalent(text, text) in (True, False)
    assert normalize_answer(normalize_answer(text)) is not None


PIECES = [
    r"\frac",
    r"\sqrt",
    r"\text{",
    "√",
    "^",
    "_",
    "{",
    "}",
    "|",
    "!",
    "(",
    ")",
    "5",
    "x",
    " ",
    ",",
    "½",
    "米",
    "i",
    r"\pm",
    "'",
    "\\",
]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(PIECES), st.integers(1, 400)), max_size=4))
def test_quick_rules_never_raise(runs: list[tuple[str, int]]) -> None:
    """It runs in the parent of the worker processes, where an exception would lose the verdicts of a whole batch."""
    text = "".join(piece * times for piece, times in runs)[:1200]
    normalize_answer(text)
    quick_compare("5", text)
    quick_compare(text, "x")


@pytest.mark.parametrize(
    "piece",
    [
        "{",
        "}",
        "\\",
        "(",
        "1,",
        "1,000",
        "a'",
        "\\text{a}",
        "5 cm ",
        "\\frac",
        "^",
        "0.",
        "\\dot{1}",
        "not ",
        "米",
        "if ",
        "=",
        "\\pm",
        " and ",
    ],
)
@pytest.mark.timeout(30)
def test_hostile_text_is_classified_in_bounded_time(piece: str) -> None:
    text = (piece * 1000)[:999]
    classify_answer(text)
    quick_equivalent("x", text)
    compare("5", text[:300])  # math-verify's own parser takes seconds for longer ones


def test_votes_do_not_depend_on_the_order_of_equal_answers() -> None:
    same = [r"\sqrt{\frac{a}{b}}", r"\frac{\sqrt{a}}{\sqrt{b}}", r"\frac{\sqrt{ab}}{b}", r"\sqrt{a/b}"]
    for turn in range(len(same)):
        answers = same[turn:] + same[:turn] + ["7"]
        assert sorted(map(len, classes(answers, equivalent))) == [1, 4]


@pytest.mark.parametrize(
    "gold",
    [r"3\text{ million}", r"12\text{ cm}^2", r"n\equiv 3\pmod 5", r"0.\overline{3}", "110_2", "7元", r"n\text{ odd}"],
)
def test_gold_answers_that_can_be_compared_can_be_parsed(gold: str) -> None:
    assert parse_ok(gold)
    assert compare(gold, "1234567").reason == "different"
