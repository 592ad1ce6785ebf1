"""Cleaning rules on single examples and on real rows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from real_data import DATA

from vgs_ray.cleaning.rules import REASONS, boxed_answer, check
from vgs_ray.grade import boxes

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"the real data of the tests is not at {DATA}")

GOOD = {"problem": "What is $3+4$?", "answer": "7", "solution": r"It is $\boxed{7}$."}


def reason(**changes: Any) -> str | None:
    dropped = check({**GOOD, **changes})
    return dropped and dropped.reason


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, None),
        ({"problem": None}, "malformed"),
        ({"problem": " \n"}, "malformed"),
        ({"answer": None}, "malformed"),
        ({"answer": 7}, "malformed"),
        ({"answer": ""}, "malformed"),
        ({"solution": None}, None),
        ({"solution": "  "}, None),
        ({"solution": "It is 7."}, "no_single_box"),
        ({"solution": r"\boxed{3} and \boxed{4}"}, "no_single_box"),
        ({"solution": r"\boxed{7}, that is \boxed{07} = \boxed{\frac{14}{2}}"}, None),
        ({"solution": r"\boxed{8}"}, "box_disagrees"),
        ({"solution": r"\boxed{\frac{14}{2}}"}, None),
        ({"answer": "seven of the nine apples are red", "solution": None}, "not_checkable"),
        ({"answer": "proof", "solution": None}, "not_checkable"),
        ({"answer": r"\frac{", "solution": None}, "not_checkable"),
        ({"answer": "C", "solution": r"\boxed{\text{(C)}}"}, "multiple_choice"),
        ({"question_type": "MCQ"}, "multiple_choice"),
        ({"question_type": "math-word-problem"}, None),
        ({"answer": "...", "solution": None}, "not_checkable"),
        ({"answer": "Show that $a=2$.", "solution": None}, "not_checkable"),
        ({"answer": "X的分布列为 | 0 | 1 |", "solution": None}, "not_checkable"),
        ({"answer": "$男生的概率=\\frac{1}{3}，女生的概率=\\frac{3}{4}$", "solution": None}, "not_checkable"),
        ({"answer": "$x=1$ 或 $x=2$", "solution": None}, None),
    ],
)
def test_rules_on_whole_rows(changes: dict[str, Any], expected: str | None) -> None:
    assert reason(**changes) == expected


@pytest.mark.parametrize(
    ("problem", "expected"),
    [
        ("Prove that $n^2+n$ is even.", "not_checkable"),
        ("Let $n$ be odd. Show that $8 | n^2-1$.", "not_checkable"),
        ("Prove: $OP$ is fixed, and find this value.", "not_checkable"),
        ("It can be shown that $n$ is unique. Find $n$.", None),
        ("Alice wants to show that she is fast. How fast is she?", None),
        ("Find $x$. (A) 1 (B) 2 (C) 3 (D) 4", "multiple_choice"),
        (r"Find $x$. $\textbf{(A)}\ 1\qquad\textbf{(B)}\ 2\qquad\textbf{(C)}\ 3$", "multiple_choice"),
        (r"Find $x$. $\mathrm{(A) \ }1 \qquad \mathrm{(B) \ }2 \qquad \mathrm{(C) \ }3$", "multiple_choice"),
        ("Find $x$.\nA) 1\nB) 2\nC) 3\nD) 4", "multiple_choice"),
        ("Find $x$.\nA. 1\nB. 2\nC. 3\nD. 4", "multiple_choice"),
        ("Let $P(A)=0.1$, $P(B)=0.2$ and $P(C)=0.3$. Find $P(A)+P(B)+P(C)$.", None),
        ("Triangle $ABC$ has $A=(0,0)$, $B=(1,0)$, $C=(0,1)$. Find its area.", None),
        ("(a) Find $x$. (b) Find $y$.", "several_questions"),
        (r"Given $f$. $(1)$ Find $f(2)$; $(2)$ How large is $f(3)$?", "several_questions"),
        ("Given $f$.\n1. Discuss its monotonicity.\n2. Find its minimum.", "several_questions"),
        ("Question 1: what is $x$? Question 2: what is $y$?", "several_questions"),
        ("For a square of side 2, find: (a) the area, (b) the perimeter.", "several_questions"),
        ("A function satisfies (i) $f(1)=1$; (ii) $f(xy)=f(x)f(y)$. Find $f(9)$.", None),
        ("Find all $f$ such that: (a) $f(1)=1$, (b) $f$ is increasing.", None),
        ("A trick. Step 1: find the sum of the digits. Step 2: find its square. What comes out for 123?", None),
        ("A polynomial has $f(a)=a^3$ and $f(b)=b^3$. Find $a+b$.", None),
        ("Find $f(1)$, if $f(1)+f(2)=n^2 f(n)$. What is it?", None),
        ("In $ABC$, if $a=3$, find:<br/> $(1)$ The value of $b$; $(2)$ The area.", "several_questions"),
        ("Calculate:<br/>$(1)-3+5-2$;<br/>$(2)-6\\div 4$.", "several_questions"),
        ("Given $q>0$. Find the values of: (1) $a_1$ and $q$; (2) The sum of six terms.", "several_questions"),
        ("求证：$a^2-3b>0$.", "not_checkable"),
        ("In the figure, find $x$.", "needs_figure"),
        ("Three circles are tangent, as shown. Find $r$.", "needs_figure"),
        ("The graph of $y=f(x)$ is shown below. Find $f(2)$.", "needs_figure"),
        ("Find the shaded area. ![](https://cdn.mathpix.com/a.jpg)", "needs_figure"),
        ("A [point](https://example.org/wiki) moves. Find $x$.", "needs_figure"),
        ('In the diagram below, find $x$. [asy] draw((0,0)--(1,1)); label("(A) (B) (C)"); [/asy]', None),
        (r"As shown: \begin{tikzpicture}\coordinate (A) at (0,0); (B) (C)\end{tikzpicture} Find $x$.", None),
        ("The graph of $y=x^2$ meets $y=4$. How many figure skaters have a three-figure number?", None),
    ],
)
def test_rules_on_problems(problem: str, expected: str | None) -> None:
    assert reason(problem=problem) == expected


def test_the_first_broken_rule_counts_and_the_evidence_is_shown() -> None:
    dropped = check({**GOOD, "problem": "Prove that (a) is as shown.", "solution": r"\boxed{8}"})
    assert dropped == ("box_disagrees", "answer 7, box 8")
    assert REASONS[0] == "malformed"
    assert REASONS[-3:] == ("duplicate", "near_duplicate", "contaminated")


def test_the_comparison_can_be_replaced() -> None:
    asked: list[tuple[str, str]] = []

    def equal(gold: str, answer: str) -> bool:
        asked.append((gold, answer))
        return True

    assert check({**GOOD, "solution": r"\boxed{9^{9^{9^9}}}"}, equal) is None
    assert asked == [("7", "9^{9^{9^9}}")]
    assert check({**GOOD, "answer": "9^{9^{9^9}}", "solution": None}, equal, lambda answer: True) is None
    dropped = check({**GOOD, "answer": "9^{9^{9^9}}", "solution": None}, equal, lambda answer: False)
    assert dropped == ("not_checkable", "math-verify cannot read the answer 9^{9^{9^9}}")


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        (r"So $x=\boxed{3}$.", "3"),
        (r"\boxed{3}, no: \boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        ("No box.", ""),
        (" ", None),
        (None, None),
    ],
)
def test_the_answer_of_a_source_without_answers_is_in_the_box(solution: str | None, answer: str | None) -> None:
    assert boxed_answer(solution) == answer


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["problem", "answer", "solution", "question_type"]), st.text(max_size=30) | st.none()
    )
)
def test_check_never_raises_and_gives_known_reasons(row: dict[str, Any]) -> None:
    dropped = check(row, equal=lambda gold, answer: gold == answer, readable=bool)
    assert dropped is None or dropped.reason in REASONS


def _reasons(rows: Iterable[dict[str, Any]]) -> Counter[str]:
    decisions = (check(row) for row in rows)
    return Counter(dropped.reason if dropped else "kept" for dropped in decisions)


def _last_box(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "answer": (boxes(row["solution"]) or ["?"])[-1]}


@needs_data
def test_math_500_is_mostly_kept() -> None:
    counts = _reasons(map(json.loads, (DATA / "benchmarks/math-500.jsonl").read_text().splitlines()))
    assert counts == {"kept": 496, "multiple_choice": 3, "needs_figure": 1}


@needs_data
def test_grade_school_problems_are_kept() -> None:
    rows = [json.loads(line) for line in (DATA / "benchmarks/gsm8k-test.jsonl").read_text().splitlines()[:300]]
    assert _reasons({"problem": r["question"], "answer": r["answer"].split("####")[1]} for r in rows) == {"kept": 300}


@needs_data
def test_the_choices_of_amc_and_the_proofs_of_numina_are_dropped() -> None:
    rows = json.loads((DATA / "problems/numina_amc_aime_part1.json").read_text())[:400]
    counts = _reasons(map(_last_box, rows))
    assert counts["multiple_choice"] >= 0.8 * len(rows)
    kept = [row["problem"] for row in rows if check(_last_box(row)) is None]
    assert not any("qquad" in text and "(B)" in text for text in kept)
    assert not any("rove that" in text for text in kept)


@needs_data
def test_the_proofs_of_putnam_are_dropped() -> None:
    rows = json.loads((DATA / "problems/putnam_informal.json").read_text())
    proofs = [row for row in rows if row["informal_solution"] == "None."]
    counts = _reasons({"problem": r["informal_statement"], "answer": r["informal_solution"]} for r in proofs)
    assert counts == {"not_checkable": len(proofs)}
