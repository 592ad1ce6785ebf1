"""Copies and contamination. The results do not depend on the order of the rows."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from real_data import DATA

from vgs_ray.cleaning.contamination import GRAM, grams, index_benchmarks, overlap
from vgs_ray.cleaning.copies import (
    FingerprintedRow,
    find_copies,
    fingerprint,
    minhash,
    normalize_problem,
    numbers_and_operators,
    similarity,
)
from vgs_ray.data.ids import problem_id

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"the real data of the tests is not at {DATA}")

MERCHANT = (
    "A merchant buys 40 apples for 3 dollars each and sells them for 5 dollars each at the market on Sunday. "
    "How many dollars does the merchant gain in all when every apple of the lot is sold?"
)
FUNCTION = r"Let $f(x)=2(x+1)^2-7x$ be a function on the real numbers. Find the smallest value that $f$ takes there."


def candidates(*problems: tuple[str, str]) -> list[FingerprintedRow]:
    return [FingerprintedRow(row, answer, fingerprint(problem)) for row, (problem, answer) in enumerate(problems)]


def copy_of(first: str, second: str, answers: tuple[str, str] = ("7", "7"), threshold: float = 0.7) -> str | None:
    copies = find_copies(candidates((first, answers[0]), (second, answers[1])), threshold)
    return copies[0].reason if copies else None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Find  $\\left( x+1 \\right)$, \\textbf{now}.", "find (x + 1) \\textbf{Now}"),
        (r"Evaluate $\dfrac12 + x^{2}$.", r"Evaluate \(\frac{1}{2}+x^2\)"),
        ("What is $3+4$?", "Problem 12. (5 points) What is $3+4$?"),
        ("What is $3+4$?", "7.2) what is 3 + 4"),
    ],
)
def test_exact_copies_have_one_normal_form(one: str, other: str) -> None:
    assert normalize_problem(one) == normalize_problem(other)
    assert copy_of(one, other) == "duplicate"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is $3+4$?", "What is $3-4$?"),
        ("What is $3+4$?", "What is $34$?"),
        ("What is $3.4$?", "What is $34$?"),
        ("What is $5!$", "What is $5$"),
        ("What is $2(x+1)$?", "What is $2x+1$?"),
        ("What is $f'(2)$?", "What is $f(2)$?"),
        ("What is $x^{2y}$?", "What is $x^{2}y$?"),
    ],
)
def test_other_mathematics_has_another_normal_form(one: str, other: str) -> None:
    assert normalize_problem(one) != normalize_problem(other)


@pytest.mark.parametrize(
    ("problem", "old", "new"),
    [
        (MERCHANT, "40", "41"),
        (MERCHANT, "3 dollars", "4 dollars"),
        (MERCHANT.replace("40", "forty"), "forty", "thirty"),
        (FUNCTION, "-7x", "+7x"),
        (FUNCTION, "^2", "^3"),
        (FUNCTION, "2(x", "(x"),
        (FUNCTION, "=", r"\le "),
    ],
)
def test_a_number_or_a_sign_makes_another_problem(problem: str, old: str, new: str) -> None:
    """The answers and nearly all words are equal; only numbers and operators differ."""
    assert old in problem
    assert similarity(fingerprint(problem).shingles, fingerprint(problem.replace(old, new)).shingles) > 0.6
    assert copy_of(problem, problem.replace(old, new), threshold=0.6) is None


def test_a_reworded_problem_is_a_near_copy_unless_its_answer_differs() -> None:
    reworded = MERCHANT.replace("How many dollars does the merchant gain", "What sum in dollars does the merchant gain")
    assert copy_of(MERCHANT, reworded) == "near_duplicate"
    assert copy_of(MERCHANT, reworded, (r"\frac{160}{2}", "80")) == "near_duplicate"
    assert copy_of(MERCHANT, reworded, ("80", "200")) is None  # such as the largest value and the smallest value
    assert copy_of(MERCHANT, reworded, threshold=1.01) is None
    assert copy_of(MERCHANT, MERCHANT.upper(), threshold=1.01) == "duplicate"


def test_evidence_names_the_earlier_row_and_answers_that_disagree() -> None:
    reworded = MERCHANT.replace("in all when", "after")
    rows = [FingerprintedRow(30, "80", fingerprint(MERCHANT)), FingerprintedRow(10, "80", fingerprint(reworded))]
    rows += [FingerprintedRow(40, "81", fingerprint(reworded.upper()))]
    near, exact = find_copies(rows, 0.7)
    assert (near.row, near.reason, near.evidence.split(",")[0]) == (30, "near_duplicate", "row 10")
    assert exact == (40, "duplicate", "row 10, whose answer is 80 instead of 81")


WORDS = "alpha beta gamma delta red blue green train apple river 3 5 17 + = x".split()
SENTENCES = st.lists(st.sampled_from(WORDS), min_size=1, max_size=12).map(" ".join)


@settings(deadline=None, max_examples=60)
@given(st.lists(SENTENCES, min_size=1, max_size=25), st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_matter_and_one_of_each_stays(texts: list[str], rng: random.Random) -> None:
    rows = candidates(*((text, str(len(text) % 2)) for text in texts))
    copies = find_copies(rows, 0.6)
    shuffled = rows.copy()
    rng.shuffle(shuffled)
    assert find_copies(shuffled, 0.6) == copies
    kept = {row.row for row in rows} - {copy.row for copy in copies}
    assert {normalize_problem(texts[row]) for row in kept} <= {normalize_problem(text) for text in texts}
    assert all(int(copy.evidence.split()[1].rstrip(",")) < copy.row for copy in copies)
    assert all(int(copy.evidence.split()[1].rstrip(",")) in kept for copy in copies if copy.reason == "near_duplicate")
    assert len({normalize_problem(texts[row]) for row in kept}) == len(kept)


@settings(deadline=None)
@given(st.text(), st.text())
def test_one_problem_id_means_one_normal_form(one: str, other: str) -> None:
    spaced = f" {one.upper().lower()}\n"
    if problem_id(one) == problem_id(spaced):
        assert normalize_problem(one) == normalize_problem(spaced)
    if problem_id(one) == problem_id(other):
        assert normalize_problem(one) == normalize_problem(other)
    assert numbers_and_operators(normalize_problem(one)) == numbers_and_operators(normalize_problem(one + " "))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 300), st.integers(0, 300), st.integers(1, 300), st.integers(0, 10_000))
def test_minhash_estimates_the_similarity(only_one: int, only_other: int, both: int, seed: int) -> None:
    """A signature of 128 entries has a standard error of at most 0.044, so 0.25 is over five standard errors."""
    hashes = np.random.default_rng(seed).choice(2**32, only_one + only_other + both, replace=False).astype(np.uint32)
    one, other = np.sort(hashes[: only_one + both]), np.sort(hashes[only_one:])
    exact = both / len(hashes)
    assert similarity(one, other) == pytest.approx(exact)
    assert float(np.mean(minhash(one) == minhash(other))) == pytest.approx(exact, abs=0.25)


AYA = (
    "Every morning Aya goes for a long walk and stops at a coffee shop afterwards. How many minutes does the walk take?"
)
BENCHMARK = index_benchmarks(
    [("aime row 0", AYA), ("aime row 1", "Compute $1+1$."), ("math row 2", "How many primes are below $x + 10$?")]
)


def test_contamination_says_how_much_where_and_what() -> None:
    shared = overlap("Once more. " + AYA.upper().replace(" ", "\n"), BENCHMARK)
    assert shared is not None
    assert (shared.name, shared.gram) == ("aime row 0", "every morning aya goes for a long walk")
    count = len(AYA.split()) - GRAM + 1
    assert shared.share == pytest.approx(count / (count + 2))
    assert overlap("Every morning Aya goes for a long swim in the river, and then she sleeps.", BENCHMARK) is None
    assert overlap("", BENCHMARK) is None
    assert overlap(AYA, index_benchmarks([])) is None


def test_short_problems_are_compared_as_a_whole() -> None:
    shared = overlap(r"compute \(1 + 1\)", BENCHMARK)
    assert shared is not None
    assert (shared.share, shared.name) == (1.0, "aime row 1")
    assert overlap("Compute $1-1$.", BENCHMARK) is None
    assert overlap("Compute $11$.", BENCHMARK) is None


def test_code_of_figures_is_no_wording() -> None:
    code = '[asy] draw((0,0)--(1,1)); label("A", (0,0), N); label("B", (1,1), S); dot((2,2)); dot((3,3)); [/asy]'
    assert (
        overlap(f"How long is the thick line? {code}", index_benchmarks([("m", f"Find $x$ from this. {code}")])) is None
    )


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.lists(st.sampled_from("abcd"), max_size=14), max_size=6), st.lists(st.sampled_from("abcd"), max_size=14)
)
def test_overlap_is_the_best_share_of_any_benchmark_problem(benchmark: list[list[str]], problem: list[str]) -> None:
    own = set(grams(" ".join(problem)))
    shares = [len(own & set(grams(" ".join(other)))) / max(len(own), 1) for other in benchmark]
    shared = overlap(
        " ".join(problem), index_benchmarks((str(i), " ".join(other)) for i, other in enumerate(benchmark))
    )
    assert (shared.share if shared else 0.0) == pytest.approx(max(shares, default=0.0))


def real_problems(name: str) -> list[str]:
    return [json.loads(line)["problem"] for line in (DATA / name).read_text().splitlines()]


@needs_data
def test_math_500_is_found_in_the_test_set_of_math() -> None:
    benchmark = real_problems("benchmarks/math-500.jsonl")
    index = index_benchmarks((str(row), text) for row, text in enumerate(benchmark))
    overlaps = [overlap(text, index) for text in real_problems("problems/math_test_5000.jsonl")]
    copied = {shared.name for shared in overlaps if shared and shared.share > 0.95}
    assert len(copied) >= 495


@needs_data
def test_the_test_set_of_math_has_few_copies_in_itself() -> None:
    """All answers are equal here, but problems with different numbers or operators are not copies."""
    texts = real_problems("problems/math_test_5000.jsonl")
    copies = find_copies(candidates(*((text, "1") for text in texts)), 0.7)
    assert 5 <= len(copies) <= 50
    for copy in copies:
        original = int(copy.evidence.split()[1].rstrip(","))
        assert numbers_and_operators(normalize_problem(texts[copy.row])) == numbers_and_operators(
            normalize_problem(texts[original])
        )
